"""Vector code for the CPU at hand: the register tile of each instruction set, and a small emitter of LLVM vector IR.

Numba keeps no array in registers, so the innermost loops are written as LLVM instructions. Nothing here knows what is
computed; `micro` and `transform` do. To add an architecture: add a line to TILES (and, if its multiply-add takes a lane of
a vector as operand, set `lanes`), then run the tests with MPI_FTP_SIMD set to its name.
"""
import functools
import os
import platform
from dataclasses import dataclass

from llvmlite import ir

from . import Setting

FLOAT, INT, INT32, POINTER = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.PointerType()
BLOCK = 16


@dataclass(frozen=True)
class Tile:
    """The register tile of an instruction set."""
    name: str
    width: int              # floats of a vector register
    pixels: int             # pixels of the tile of a forward kernel ...
    blocks: int             # ... and its blocks of 16 output channels
    inputs: int             # inputs of the tile of a weight-gradient kernel
    unroll: int             # multiply-adds of one accumulator in a row (more made LLVM spill registers)
    lanes: bool = False     # multiply by one lane of a register instead of by a broadcast load
    cpu: str = ''           # LLVM's name of a CPU that has it, for looking at assembly
    triple: str = 'x86_64-unknown-linux-gnu'


TILES = {tile.name: tile for tile in (
    Tile('avx512', 16, 14, 2, 12, 1, cpu='skylake-avx512'),
    Tile('avx2', 8, 6, 1, 6, 4, cpu='haswell'),
    Tile('neon', 4, 6, 1, 4, 4, lanes=True, cpu='cortex-a72', triple='aarch64-unknown-linux-gnu'),
    Tile('generic', 4, 1, 1, 2, 2, cpu='x86-64'),
)}


def tile():
    """The tile for the CPU that numba compiles for; the environment variable MPI_FTP_SIMD names another one (any of them runs anywhere)."""
    name = os.environ.get('MPI_FTP_SIMD')
    if name:
        if name not in TILES:
            raise Setting(f'MPI_FTP_SIMD is {name!r}; known: {", ".join(TILES)}')
        return TILES[name]
    if arm():
        return TILES['neon']
    if has('avx512f', 'avx512vl', 'avx512dq'):
        return TILES['avx512']
    return TILES['avx2' if has('avx2', 'fma') else 'generic']


@functools.cache
def target():
    """What numba compiles for: LLVM's triple, name of the CPU and its features. This machine's, but for NUMBA_CPU_NAME and NUMBA_CPU_FEATURES."""
    from numba.core.registry import cpu_target
    return cpu_target.target_context.codegen().magic_tuple()


def arm():
    return target()[0].startswith(('aarch64', 'arm64'))


def has(*features):
    """Whether there are instructions for all of these, by LLVM's names."""
    return {f'+{feature}' for feature in features} <= set(target()[2].split(','))


class Emitter:
    """Writes vector instructions of a given width through an IRBuilder. Offsets count floats."""

    def __init__(self, builder, width):
        self.b, self.width = builder, width
        self.vector = ir.VectorType(FLOAT, width)
        self.zero = ir.Constant(self.vector, [0.0] * width)

    def int(self, value):
        return ir.Constant(INT, value) if isinstance(value, int) else value

    def splat(self, value):
        return ir.Constant(self.vector, [float(value)] * self.width)

    def pointer(self, address):
        return self.b.inttoptr(address, POINTER)

    def at(self, pointer, offset):
        if isinstance(offset, int) and offset == 0:
            return pointer
        return self.b.gep(pointer, [self.int(offset)], source_etype=FLOAT)

    def again(self, value):
        """The same value, unknown to the compiler: what is derived from it is computed here and not kept since earlier."""
        kind = ir.FunctionType(value.type, [value.type])
        return self.b.asm(kind, '', '=r,0', [value], side_effect=True)

    def load(self, pointer, offset=0, width=None):
        kind = ir.VectorType(FLOAT, width) if width else self.vector
        return self.b.load(self.at(pointer, offset), typ=kind, align=4)

    def store(self, value, pointer, offset=0, stream=False):
        """With `stream` past the caches: the address must be a multiple of the vector's size."""
        stored = self.b.store(value, self.at(pointer, offset), align=4 * self.width if stream else 4)
        if stream:
            stored.set_metadata('nontemporal', self.b.module.add_metadata([INT32(1)]))

    def channels(self, address):
        """The vectors of a block's 16 numbers in memory, by the place of their first."""
        return {part: self.load(self.pointer(address), part) for part in range(0, BLOCK, self.width)}

    def broadcast(self, pointer, offset=0):
        """One float from memory in every lane."""
        value = self.b.load(self.at(pointer, offset), typ=FLOAT, align=4)
        nothing = ir.Constant(self.vector, ir.Undefined)
        return self.lane(self.b.insert_element(nothing, value, INT32(0)), 0)

    def lane(self, vector, lane):
        """One lane of a vector in every lane."""
        return self.shuffle(vector, [lane] * self.width)

    def shuffle(self, vector, lanes):
        """The lanes of a vector with the given numbers."""
        pick = ir.Constant(ir.VectorType(INT32, len(lanes)), lanes)
        return self.b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), pick)

    def fma(self, x, y, z):
        """x * y + z, rounded once where the CPU can."""
        return self._call(f'llvm.fmuladd.v{self.width}f32', self.vector, [x, y, z])

    def prefetch(self, pointer, offset=0, write=False):
        arguments = [self.at(pointer, offset), INT32(int(write)), INT32(3), INT32(1)]
        self._call('llvm.prefetch.p0', ir.VoidType(), arguments)

    def pause(self):
        """Tell the CPU that this is a loop that waits."""
        if platform.machine() in ('x86_64', 'AMD64'):
            self._call('llvm.x86.sse2.pause', ir.VoidType(), [])
        elif platform.machine() in ('aarch64', 'arm64'):
            self._call('llvm.aarch64.hint', ir.VoidType(), [INT32(1)])

    def _call(self, name, result, arguments):
        kind = ir.FunctionType(result, [a.type for a in arguments])
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        return self.b.call(function, arguments)

    def start(self, add, places):
        """Vectors to sum into: zero, or when the integer `add` is not 0 those at `places`."""
        b, before = self.b, self.b.block
        old, go = b.append_basic_block('old'), b.append_basic_block('go')
        b.cbranch(b.icmp_signed('!=', add, INT(0)), old, go)
        b.position_at_end(old)
        loaded = [self.load(place) for place in places]
        b.branch(go)
        b.position_at_end(go)
        return [self._merge(self.zero, before, value, old) for value in loaded]

    def switch(self, value, cases):
        """Run the function `cases[value]`, nothing for a value without one."""
        b = self.b
        end = b.append_basic_block('done')
        chosen = b.switch(value, end)
        for key, emit in cases.items():
            block = b.append_basic_block(f'case{key}')
            chosen.add_case(INT(key), block)
            b.position_at_end(block)
            emit()
            b.branch(end)
        b.position_at_end(end)

    def _merge(self, first, from_first, second, from_second):
        phi = self.b.phi(first.type)
        phi.add_incoming(first, from_first)
        phi.add_incoming(second, from_second)
        return phi

    def loop(self, count, carried, body):
        """Run carried = body(carried) `count` times (0 or more); values live in registers. Returns the last values."""
        b, before = self.b, self.b.block
        head, end = b.append_basic_block('loop'), b.append_basic_block('end')
        b.cbranch(b.icmp_signed('>', count, INT(0)), head, end)
        b.position_at_end(head)
        left = b.phi(INT)
        left.add_incoming(count, before)
        entering = [b.phi(value.type) for value in carried]
        leaving = body(entering)
        rest = b.sub(left, INT(1))
        last = b.block
        b.cbranch(b.icmp_signed('>', rest, INT(0)), head, end)
        left.add_incoming(rest, last)
        for start, phi, value in zip(carried, entering, leaving):
            phi.add_incoming(start, before)
            phi.add_incoming(value, last)
        b.position_at_end(end)
        return [self._merge(start, before, value, last) for start, value in zip(carried, leaving)]
