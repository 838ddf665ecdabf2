"""The two micro-kernels that hold all multiply-adds of the convolutions, sums in registers.

multiply    forward, input gradient, Winograd:   c[m] (+)= sum over t, k of a[table[t] + m * step + k] * b[t, k]
outer       weight gradient:                     c[i] (+)= sum over rows, pixels of a[row, pixel + i] * b[row, pixel]

where c[m], c[i], b[...] are 16 output channels of one block, or of two blocks at a stride in b and c. Addresses are
integers, all strides and offsets count floats. Both are compiled once as C functions for every size of tile up to the
largest; callers get their address and call it, so that they need not be compiled with them.
"""
from .simd import BLOCK, INT

UNROLL_OUTER = 2


def emit_multiply(e, tile, pixels, blocks, tiles, a, step, table, count, run, b, b_block, c, c_step, c_block, add):
    """A row of `tiles` tiles, each of `pixels` x `blocks` (Python ints) vectors of 16.

    a: input at the first pixel; pixels lie `step` apart. table: `count` offsets of runs of `run` inputs. b: (count, run, 16)
    filters of the first block, the second `b_block` further; c likewise, pixels `c_step` apart. add: 0 overwrites c, 1 adds
    to it, 2 overwrites it past the caches (c and its strides must be multiples of 64 bytes).
    """
    parts = range(0, BLOCK, e.width)
    outputs = [(m, j, p) for m in range(pixels) for j in range(blocks) for p in parts]
    index = {output: i for i, output in enumerate(outputs)}

    def places(c):
        return [e.at(e.at(e.at(c, e.b.mul(c_step, INT(m))), e.b.mul(c_block, INT(j))), p) for m, j, p in outputs]

    # every third pixel has a pointer of its own: the two behind it are reached by pointer + step * 1 and * 2
    firsts = range(0, pixels, 3)
    further = [0, step, e.b.mul(step, INT(2))]

    def pixel(pointers, m):
        return e.at(pointers[m // 3], further[m % 3])

    def taps(n):
        """n inputs of every pixel times n vectors of filters."""
        def body(carried):
            inputs, (b0, *sums) = carried[:len(firsts)], carried[len(firsts):]
            streams = [b0, e.at(b0, b_block)][:blocks]
            if tile.lanes and n == 4:
                quads = [e.load(pixel(inputs, m), width=4) for m in range(pixels)]
                for k in range(n):
                    for j in range(blocks):
                        for p in parts:
                            filters = e.load(streams[j], k * BLOCK + p)
                            for m in range(pixels):
                                sums[index[m, j, p]] = e.fma(e.lane(quads[m], k), filters, sums[index[m, j, p]])
            else:
                for k in range(n):
                    filters = [(j, p, e.load(streams[j], k * BLOCK + p)) for j in range(blocks) for p in parts]
                    for m in range(pixels):
                        value = e.broadcast(pixel(inputs, m), k)
                        for j, p, f in filters:
                            sums[index[m, j, p]] = e.fma(value, f, sums[index[m, j, p]])
            return [e.at(x, n) for x in inputs] + [e.at(b0, n * BLOCK)] + sums
        return body

    def entry(carried):
        """One entry of the table."""
        entries, b0, *sums = carried
        offset = e.b.load(entries, typ=INT, align=8)
        inputs = [e.at(a, e.b.add(offset, e.b.mul(step, INT(m)))) for m in firsts]
        ahead = e.b.mul(step, INT(pixels))
        for m in range(pixels):                         # the tile on the right is the next to be asked for
            e.prefetch(pixel(inputs, m), ahead)
        state = inputs + [b0] + sums
        state = e.loop(e.b.sdiv(run, INT(tile.unroll)), state, taps(tile.unroll))
        if tile.unroll > 1:
            state = e.loop(e.b.srem(run, INT(tile.unroll)), state, taps(1))
        b0, *sums = state[len(firsts):]
        return [e.b.gep(entries, [INT(1)], source_etype=INT), b0] + sums

    def one(carried):
        """One tile."""
        nonlocal a
        a, c = carried
        right = e.at(c, e.b.mul(c_step, INT(pixels)))

        def prefetch():
            for place in places(e.again(right))[::len(parts)]:
                e.prefetch(place, write=True)
        e.switch(add, {0: prefetch, 1: prefetch})
        sums = e.start(e.b.and_(add, INT(1)), places(c))
        sums = e.loop(count, [table, b] + sums, entry)[2:]

        def store(stream):
            for place, value in zip(places(e.again(c)), sums):
                e.store(value, place, stream=stream)
        e.switch(add, {0: lambda: store(False), 1: lambda: store(False), 2: lambda: store(True)})
        return [e.at(a, e.b.mul(step, INT(pixels))), right]

    e.loop(tiles, [a, c], one)


def emit_outer(e, tile, inputs, blocks, tiles, a, a_next, a_row, a_step, b, b_row, b_block, rows, pixels,
               c, c_next, c_block, add):
    """A row of `tiles` tiles, each of `inputs` x `blocks` (Python ints) vectors of 16, summed over `rows` x `pixels` from zero.

    a: first of `inputs` neighbouring floats at the first pixel; pixels lie `a_step`, rows `a_row`, tiles `a_next` apart. b:
    (rows, pixels, 16), rows `b_row` apart, the second block `b_block` further. c: (inputs, 16), tiles `c_next`, the second
    block `c_block` apart; add: 0 overwrites c, 1 adds to it.
    """
    parts = range(0, BLOCK, e.width)
    outputs = [(i, j, p) for i in range(inputs) for j in range(blocks) for p in parts]
    index = {output: i for i, output in enumerate(outputs)}

    def pixel(n):
        def body(carried):
            a0, b0, *sums = carried
            streams = [b0, e.at(b0, b_block)][:blocks]
            for u in range(n):
                at = e.at(a0, e.b.mul(a_step, INT(u)))
                e.prefetch(at, e.b.mul(a_step, INT(64)))
                vectors = []
                for j in range(blocks):
                    e.prefetch(streams[j], (u + 64) * BLOCK)
                    vectors += [(j, p, e.load(streams[j], u * BLOCK + p)) for p in parts]
                if tile.lanes:
                    quads = [e.load(at, q, width=4) for q in range(0, inputs // 4 * 4, 4)]
                for i in range(inputs):
                    value = e.lane(quads[i // 4], i % 4) if tile.lanes and i // 4 < len(quads) else e.broadcast(at, i)
                    for j, p, vector in vectors:
                        sums[index[i, j, p]] = e.fma(value, vector, sums[index[i, j, p]])
            return [e.at(a0, e.b.mul(a_step, INT(n))), e.at(b0, n * BLOCK)] + sums
        return body

    def row(carried):
        a0, b0, *sums = carried
        state = e.loop(e.b.sdiv(pixels, INT(UNROLL_OUTER)), [a0, b0] + sums, pixel(UNROLL_OUTER))
        sums = e.loop(e.b.srem(pixels, INT(UNROLL_OUTER)), state, pixel(1))[2:]
        return [e.at(a0, a_row), e.at(b0, b_row)] + sums

    def one(carried):
        """One tile."""
        a, c = carried
        sums = e.loop(rows, [a, b] + [e.zero] * len(outputs), row)[2:]
        streams = [c, e.at(c, c_block)]

        def store(old):
            for (i, j, p), value in zip(outputs, sums):
                e.store(e.b.fadd(value, e.load(streams[j], i * BLOCK + p)) if old else value, streams[j], i * BLOCK + p)
        e.switch(add, {0: lambda: store(False), 1: lambda: store(True)})
        return [e.at(a, a_next), e.at(c, c_next)]

    e.loop(tiles, [a, c], one)


def emit_peak(e, vectors, count, c):
    """`count` rounds of `vectors` independent multiply-adds: what the CPU can do at best."""
    x, y, *sums = [e.load(c, i * e.width) for i in range(vectors + 2)]
    sums = e.loop(count, sums, lambda sums: [e.fma(x, y, value) for value in sums])
    for i, value in enumerate(sums):
        e.store(value, c, (i + 2) * e.width)
