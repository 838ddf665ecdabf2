"""The micro-kernels compiled for the CPU at hand, for tiles of any size up to its largest."""
from . import micro
from .jit import Native, instructions
from .simd import INT, tile

TILE = tile()


def _of_any_size(emit, largest, pointers):
    """Emitter of a tile whose size and blocks, known at run time, are the first two of its integers."""
    def emit_all(e, size, blocks, *values):
        values = [e.pointer(v) if i in pointers else v for i, v in enumerate(values)]
        cases = {n * 4 + j: (lambda n=n, j=j: emit(e, TILE, n, j, *values))
                 for n in range(1, largest + 1) for j in range(1, TILE.blocks + 1)}
        e.switch(e.b.add(e.b.mul(size, INT(4)), blocks), cases)
    return instructions(emit_all)


_multiply = _of_any_size(micro.emit_multiply, TILE.pixels, (1, 3, 6, 8))
_outer = _of_any_size(micro.emit_outer, TILE.inputs, (1, 5, 10))
PEAK_VECTORS = 24 if TILE.name in ('avx512', 'neon') else 12
_peak = instructions(lambda e, count, c: micro.emit_peak(e, PEAK_VECTORS, count, e.pointer(c)))


@Native
def multiply(pixels, blocks, tiles, a, step, table, count, run, b, b_block, c, c_step, c_block, add):
    _multiply((pixels, blocks, tiles, a, step, table, count, run, b, b_block, c, c_step, c_block, add))


@Native
def outer(inputs, blocks, tiles, a, a_next, a_row, a_step, b, b_row, b_block, rows, pixels, c, c_next, c_block, add):
    _outer((inputs, blocks, tiles, a, a_next, a_row, a_step, b, b_row, b_block, rows, pixels, c, c_next, c_block, add))


@Native
def peak(count, c):
    _peak((count, c))
