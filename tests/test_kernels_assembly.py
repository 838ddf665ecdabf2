"""The machine code of every micro-kernel, for this CPU's kind and others by cross-compilation: no register is spilled."""
import re

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from mpi_ftp.kernels import depthwise, micro, pooled
from mpi_ftp.kernels.simd import INT, POINTER, TILES, Emitter

CPUS = [('avx512', 'skylake-avx512'), ('avx512', 'znver4'), ('avx512', 'znver5'), ('avx512', 'sapphirerapids'),
        ('avx2', 'haswell'), ('avx2', 'znver2'), ('avx2', 'alderlake'),
        ('neon', 'cortex-a53'), ('neon', 'cortex-a72'), ('neon', 'cortex-a76'), ('generic', 'x86-64')]
ARGUMENTS = {'multiply': 'iPiPiiPiPiii', 'outer': 'iPiiiPiiiiPiii'}     # P: pointer, i: integer
SPILL = re.compile(r'[xyz]mm\d+, -?\d*\(%rsp\)|-?\d*\(%rsp\)[^\n]*, %[xyz]mm|(st|ld)[rp]\s+q\d+.*\[sp')  # d8 ... d15 are saved by convention
MULTIPLY_ADD = {'avx512': r'vfmadd\d+ps\s.*zmm', 'avx2': r'vfmadd\d+ps\s.*ymm', 'neon': r'fmla\s+v\d+\.4s', 'generic': r'mulps'}


def assembly(kind, tile, cpu, size, blocks):
    """LLVM's output for one micro-kernel."""
    emit = getattr(micro, f'emit_{kind}')
    return compiled(lambda emitter, *arguments: emit(emitter, tile, size, blocks, *arguments), ARGUMENTS[kind], tile, cpu)


def compiled(emit, arguments, tile, cpu):
    module = ir.Module()
    module.triple = tile.triple
    types = [POINTER if letter == 'P' else INT for letter in arguments]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), types), 'kernel')
    emitter = Emitter(ir.IRBuilder(function.append_basic_block('entry')), tile.width)
    emit(emitter, *function.args)
    emitter.b.ret_void()
    machine = llvm.Target.from_triple(tile.triple).create_target_machine(cpu=cpu, opt=3)
    parsed = llvm.parse_assembly(str(module))
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(3))
    builder.getModulePassManager().run(parsed, builder)
    return machine.emit_assembly(parsed)


@pytest.fixture(scope='module', autouse=True)
def targets():
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@pytest.mark.parametrize('name, cpu', CPUS)
@pytest.mark.parametrize('kind', ARGUMENTS)
def test_no_spills(kind, name, cpu):
    tile = TILES[name]
    for size in range(1, (tile.pixels if kind == 'multiply' else tile.inputs) + 1):
        for blocks in range(1, tile.blocks + 1):
            text = assembly(kind, tile, cpu, size, blocks)
            found = SPILL.findall(text)
            assert not found, f'{size} x {blocks}: {len(found)} spills'
            assert len(re.findall(MULTIPLY_ADD[name], text)) >= size * blocks * 16 // tile.width


@pytest.mark.parametrize('name, cpu', CPUS)
@pytest.mark.parametrize('group, columns, step, spacing', [(1, 3, 1, 1), (1, 3, 2, 1), (1, 5, 1, 1), (1, 7, 1, 1), (2, 3, 1, 1),
                                                          (4, 3, 2, 1), (8, 3, 1, 1)])
def test_no_spills_in_depthwise(group, columns, step, spacing, name, cpu):
    tile = TILES[name]
    for size in range(1, depthwise.largest(tile, group) + 1):
        text = compiled(lambda e, *a: depthwise.emit_stencil(e, size, group, columns, step, spacing, *a), 'iiiPiiPiiiPii', tile, cpu)
        assert not SPILL.findall(text), f'stencil of {size}'
        assert len(re.findall(MULTIPLY_ADD[name], text)) >= size * columns * 16 // tile.width
    for rows in range(1, min(columns, depthwise.tap_rows(tile, columns)) + 1):
        text = compiled(lambda e, *a: depthwise.emit_gather(e, depthwise.unroll(tile), rows, group, columns, step, spacing, *a), 'iiPiPiiPi', tile, cpu)
        assert not SPILL.findall(text), f'gather of {rows} rows'
        assert len(re.findall(MULTIPLY_ADD[name], text)) >= rows * columns * 16 // tile.width


@pytest.mark.parametrize('cpu', [cpu for name, cpu in CPUS if name == 'avx512'])
@pytest.mark.parametrize('activation', ['linear', 'leaky', 'relu'])
def test_no_spills_in_pools_with_their_norm(activation, cpu):
    """Where one vector is a block. Where several are, the numbers of its channels do not fit, and are read from the stack: memory sets the pace."""
    for emit, arguments in ((pooled.emit_forward, 6), (pooled.emit_reduce, 8)):
        assert not SPILL.search(compiled(lambda e, *a, emit=emit: emit(activation, 2, e, *a), 'i' * arguments, TILES['avx512'], cpu))
    for past in (False, True):
        assert not SPILL.search(compiled(lambda e, *a, past=past: pooled.emit_backward(activation, 2, past, e, *a), 'i' * 11, TILES['avx512'], cpu))


def test_neon_multiplies_by_lanes():
    text = assembly('multiply', TILES['neon'], 'cortex-a72', 6, 1)
    assert len(re.findall(r'fmla.*\.s\[[0-3]\]', text)) >= 96
    assert 'dup' not in re.split(r'\.LBB0_\d+:', text)[3]


def test_a_spill_is_found():
    """Too large a tile does spill, and the test above would see it."""
    from dataclasses import replace
    for name, size in (('avx512', 17), ('avx2', 9), ('neon', 9)):
        tile = replace(TILES[name], pixels=size)
        assert SPILL.search(assembly('multiply', tile, tile.cpu, size, tile.blocks))
