"""Linear maps written as vector instructions: the 16 x 16 transpose, and the small dense matrices of Winograd's transforms."""
import numpy as np
from llvmlite import ir

from .simd import BLOCK, INT32


def emit_transpose(e, source, target):
    """A 16 x 16 block of contiguous floats, transposed, in squares as wide as a vector."""
    n = e.width
    for i in range(0, BLOCK, n):
        for j in range(0, BLOCK, n):
            rows = [e.load(source, (i + k) * BLOCK + j) for k in range(n)]
            for _ in range(n.bit_length() - 1):         # interleave the two halves, log2(n) times
                rows = [e.b.shuffle_vector(rows[k], rows[k + n // 2], _interleave(n, half))
                        for k in range(n // 2) for half in (0, 1)]
            for k in range(n):
                e.store(rows[k], target, (j + k) * BLOCK + i)


def _interleave(n, half):
    first = half * n // 2
    return ir.Constant(ir.VectorType(INT32, n), [k for i in range(first, first + n // 2) for k in (i, n + i)])
