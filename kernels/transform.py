"""Linear maps written as vector instructions: the 16 x 16 transpose, and the small dense matrices of Winograd's transforms."""
import numpy as np
from llvmlite import ir

from .simd import BLOCK, INT, INT32


def emit_transpose(e, source, target, ahead):
    """A 16 x 16 block of contiguous floats, transposed, in squares as wide as a vector; what lies `ahead` floats on will be
    asked for soon."""
    n = e.width
    for i in range(BLOCK):
        e.prefetch(e.at(source, ahead), i * BLOCK)
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


def emit_tiles(e, matrix, how, fetch, count, source, s_row, s_column, s_next, target, t_row, t_column, t_next, ahead):
    """`count` times target = matrix @ source @ matrix.T, where an entry of source and target is 16 neighbouring floats.

    how: 'store', 'add' to the target, or 'stream' to it past the caches. With `fetch`, what lies `ahead` floats on from the
    source, or from the target that is added to, is asked for now.
    Entry (i, j) lies i * s_row + j * s_column floats on, the next tile s_next.
    """
    outputs, inputs = matrix.shape

    def one(carried):
        source, target = carried
        read, row, column, n = (target, t_row, t_column, outputs) if how == 'add' else (source, s_row, s_column, inputs)
        for i in range(n if fetch else 0):
            for j in range(n):
                place = e.at(e.at(read, e.b.mul(row, INT(i))), e.b.mul(column, INT(j)))
                e.prefetch(e.at(place, ahead))
        _one_tile(e, matrix, source, _steps(e, s_row, inputs), _steps(e, s_column, inputs), target, _steps(e, t_row, outputs), _steps(e, t_column, outputs), how)
        return [e.at(source, s_next), e.at(target, t_next)]

    e.loop(count, [source, target], one)


def emit_short_tiles(e, matrix, how, complete, count, source, s_row, s_column, s_next, target, t_row, t_column, t_next, rows, columns):
    """The same for tiles whose first `rows` rows and `columns` columns are not in memory: source, or target, is where the first entry that exists lies.

    complete(e, entries, lacking): the entries of a line of the source, of which the first ones are not valid, with others in their place. Without it the
    target is what lacks them, and they are not written.
    """
    outputs, inputs = matrix.shape

    def places(step, n, lacking):
        """Those that lack are sent to the first that exists."""
        after = [e.b.sub(INT(i), lacking) for i in range(n)]
        return [e.b.mul(step, e.b.select(e.b.icmp_signed('>', i, INT(0)), i, INT(0))) for i in after]

    def one(carried):
        source, target = carried
        if complete:
            filled = [lambda entries, lacking=lacking: complete(e, entries, lacking) for lacking in (rows, columns)]
            _one_tile(e, matrix, source, places(s_row, inputs, rows), places(s_column, inputs, columns),
                      target, _steps(e, t_row, outputs), _steps(e, t_column, outputs), how, filled)
        else:
            wanted = [[e.b.icmp_signed('>=', INT(i), lacking) for i in range(outputs)] for lacking in (rows, columns)]
            _one_tile(e, matrix, source, _steps(e, s_row, inputs), _steps(e, s_column, inputs),
                      target, places(t_row, outputs, rows), places(t_column, outputs, columns), how, wanted=wanted)
        return [e.at(source, s_next), e.at(target, t_next)]

    e.loop(count, [source, target], one)


def _steps(e, step, n):
    return [e.b.mul(step, INT(i)) for i in range(n)]


def _one_tile(e, matrix, source, s_rows, s_columns, target, t_rows, t_columns, how, filled=None, wanted=None):
    """target = matrix @ source @ matrix.T. s_rows ...: where rows and columns lie; filled: functions that complete a column and a row; wanted: whether a
    row, and a column, of the target counts: what does not is written before what does, to the same place."""
    fill_column, fill_row = filled or [lambda entries: entries] * 2
    for part in range(0, BLOCK, e.width):
        half = []
        for place in s_columns:
            column = e.at(e.at(source, part), place)
            half.append(emit_product(e, matrix, fill_column([e.load(column, row) for row in s_rows])))
        for i, place in enumerate(t_rows):
            row = e.at(e.at(target, part), place)
            for j, value in enumerate(emit_product(e, matrix, fill_row([column[i] for column in half]))):
                entry = e.at(row, t_columns[j])
                if how == 'add':
                    if wanted:
                        value = e.b.select(e.b.and_(wanted[0][i], wanted[1][j]), value, e.zero)
                    value = e.b.fadd(value, e.load(entry))
                e.store(value, entry, stream=how == 'stream')


def emit_product(e, matrix, vector):
    """matrix @ vector. Neighbouring columns that differ in signs alone are first added and subtracted; neighbouring rows that
    do are the sum and the difference of two parts."""
    rows = [[(c, v) for c, v in zip(row, vector)] for row in matrix.tolist()]
    for j in range(len(vector) - 1):
        a, b = matrix[:, j], matrix[:, j + 1]
        if np.array_equal(abs(a), abs(b)) and (a * b > 0).any() and (a * b < 0).any():
            total, difference = e.b.fadd(vector[j], vector[j + 1]), e.b.fsub(vector[j], vector[j + 1])
            for row, first, second in zip(rows, a, b):
                row[j], row[j + 1] = (first, total if first == second else difference), (0, None)
    rows = [[(c, v) for c, v in row if c] for row in rows]

    results = []
    while len(results) < len(rows):
        i = len(results)
        row, below = rows[i], rows[i + 1] if i + 1 < len(rows) else []
        same = [term for term in row if term in below]
        other = [term for term in row if (-term[0], term[1]) in below]
        if same and other and len(same) + len(other) == len(row) == len(below):
            scale = other[0][0]
            even, odd = emit_sum(e, same), emit_sum(e, [(c / scale, v) for c, v in other])
            results += [emit_sum(e, [(1, even), (scale, odd)]), emit_sum(e, [(1, even), (-scale, odd)])]
        else:
            results.append(emit_sum(e, row))
    return results


def emit_sum(e, terms):
    """Sum of number * vector."""
    scale = abs(terms[0][0])
    if len(terms) > 1 and scale != 1 and all(abs(c) == scale for c, _ in terms):
        return e.b.fmul(emit_sum(e, [(c / scale, v) for c, v in terms]), e.splat(scale))
    (first, total), *rest = sorted(terms, key=lambda term: term[0] != 1)
    if first != 1:
        total = e.b.fmul(total, e.splat(first))
    for c, v in rest:
        if abs(c) == 1:
            total = e.b.fadd(total, v) if c > 0 else e.b.fsub(total, v)
        else:
            total = e.fma(v, e.splat(c), total)
    return total
