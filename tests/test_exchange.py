"""An exchange is linear, so it is tested as such: forward puts every number in its place, backward is the exact transpose."""
import numpy as np
import pytest

from mpi_ftp import comm as comm_module
from mpi_ftp.exchange import Exchange
from mpi_ftp.kernels.prepared import nothing
from mpi_ftp.region import NOTHING, Layout, Region, balanced
from mpi_ftp.tile import Tile

SHAPE = (2, 40, 7, 9)


def layouts(kind, ranks):
    """(owned, held) pairs: halos wider than tiles, all-gather, sample cut to rows, all on one rank, uneven with empty tiles."""
    n, c, h, w = SHAPE
    rows = Layout.cut(SHAPE, ((0, n), (0, c), balanced(h, ranks), (0, w)), ranks)
    columns = Layout.cut(SHAPE, ((0, n), (0, c), (0, h), balanced(w, ranks)), ranks)
    filters = Layout.cut(SHAPE, ((0, n), balanced(c, ranks, 16), (0, h), (0, w)), ranks)

    def grown(layout, by):
        return Layout(SHAPE, tuple(NOTHING if r.empty else Region(r.lo[:2] + (r.lo[2] - by, r.lo[3] - 1), r.hi[:2] + (r.hi[2] + by, r.hi[3] + 2))
                                   for r in layout))

    everything = Layout(SHAPE, (Region.whole(SHAPE),) * ranks)
    uneven = Layout.cut(SHAPE, ((0, n), (0, c), (0,) + (1,) * (ranks - 1) + (h,), (0, w)), ranks)
    return {'halo': (rows, grown(rows, 1)), 'wide halo': (columns, grown(columns, 4)), 'all-gather': (filters, everything),
            'turn': (rows, columns), 'to one': (columns, Layout.on_rank(SHAPE, ranks)), 'uneven': (uneven, grown(uneven, 2))}[kind]


KINDS = ['halo', 'wide halo', 'all-gather', 'turn', 'to one', 'uneven']


def random_tile(region, seed):
    """Global random numbers, of which a rank keeps its part; padded lanes stay zero."""
    whole = np.random.default_rng(seed).standard_normal((SHAPE[0], SHAPE[1], SHAPE[2] + 12, SHAPE[3] + 12))
    tile = Tile.zeros(region, dtype=np.float64)
    if not region.empty:
        (n0, c0, y0, x0), (n1, c1, y1, x1) = region.lo, region.hi
        tile.set_plain(region, whole[n0:n1, c0:c1, y0 + 6:y1 + 6, x0 + 6:x1 + 6])
    return tile


@pytest.mark.mpi(1, 2, 3, 4, 6)
@pytest.mark.parametrize('kind', KINDS)
def test_forward_copies_and_pads(kind):
    comm = comm_module.world()
    src, dst = layouts(kind, comm.size)
    exchange = Exchange(comm, src, dst, pad_value=-7.0, dtype=np.float64, tag=1)
    x, y = random_tile(src[comm.rank], 1), Tile.zeros(dst[comm.rank], dtype=np.float64)
    exchange.forward(x, y)
    inside = y.region & Region.whole(SHAPE)
    want = random_tile(inside, 1)
    np.testing.assert_array_equal(y[inside], want[inside])
    for box in y.region.minus(inside):
        assert (y[box] == -7).all()


@pytest.mark.mpi(1, 2, 3, 4, 6)
@pytest.mark.parametrize('kind', KINDS)
def test_backward_is_the_transpose(kind):
    """⟨E x, y⟩ = ⟨x, Eᵀ y⟩ on random data, for the exchange without padding."""
    comm = comm_module.world()
    src, dst = layouts(kind, comm.size)
    exchange = Exchange(comm, src, dst, dtype=np.float64, tag=2)
    x, dy = random_tile(src[comm.rank], 1), random_tile(dst[comm.rank], 2 + comm.rank)
    y, dx = Tile.zeros(dst[comm.rank], dtype=np.float64), Tile.zeros(src[comm.rank], dtype=np.float64)
    exchange.forward(x, y)
    exchange.backward(dx, dy)
    sides = comm.sum(np.array([(y.array * dy.array).sum(), (x.array * dx.array).sum()]))
    assert abs(sides[0] - sides[1]) <= 1e-12 * max(1, abs(sides[0]))
    exchange.backward(dx, dy, add=True)
    twice = comm.sum(np.array([(x.array * dx.array).sum()]))[0]
    assert abs(twice - 2 * sides[1]) <= 1e-12 * max(1, abs(twice))


@pytest.mark.mpi(4)
def test_one_message_per_peer_and_none_where_nothing_moves():
    comm = comm_module.world()
    src, dst = layouts('wide halo', comm.size)
    exchange = Exchange(comm, src, dst, dtype=np.float32, tag=3)
    peers = [peer for peer, _ in exchange.sends]
    assert peers and len(peers) == len(set(peers)) and comm.rank not in peers
    same = Exchange(comm, src, src, tag=4)
    assert not same.sends and not same.receives and same.bytes_sent == 0


@pytest.mark.mpi(2, 3)
@pytest.mark.parametrize('kind', KINDS)
def test_half_precision_rounds_what_travels(kind):
    """Also numbers beyond 65504 and tiny ones: each message has its own scale; what stays is exact."""
    comm = comm_module.world()
    src, dst = layouts(kind, comm.size)
    for factor in (1e8, 1e-8):
        full, half = (Exchange(comm, src, dst, -7.0, dtype=np.float32, tag=tag, half=tag == 6) for tag in (5, 6))
        x = Tile(src[comm.rank], (random_tile(src[comm.rank], 1).array * factor).astype(np.float32))
        y, z = Tile.zeros(dst[comm.rank]), Tile.zeros(dst[comm.rank])
        full.forward(x, y)
        half.forward(x, z)
        np.testing.assert_allclose(z.array, y.array, rtol=2 ** -10, atol=factor * 1e-6)
        np.testing.assert_array_equal(z[half.keeps], y[half.keeps])
        assert half.bytes_sent <= full.bytes_sent / 2 + 4 * len(half.sends) and (y.array == z.array).all() == (not full.receives)
        dx, dw = Tile.zeros(src[comm.rank]), Tile.zeros(src[comm.rank])
        full.backward(dx, y)
        half.backward(dw, y)
        np.testing.assert_allclose(dw.array, dx.array, rtol=2 ** -9, atol=factor * 1e-5)


@pytest.mark.mpi(2, 3)
def test_boxes_without_gaps_travel_without_a_copy():
    """Filters of one sample: each rank's are sent from its tile and received in their places; what goes to several ranks is one array."""
    comm = comm_module.world()
    shape = 1, 32 * comm.size, 4, 5
    src = Layout.cut(shape, ((0, 1), balanced(shape[1], comm.size, 16), (0, 4), (0, 5)), comm.size)
    exchange = Exchange(comm, src, Layout(shape, (Region.whole(shape),) * comm.size), dtype=np.float32, tag=7)
    for turn in (1, 2):
        for x, y in ((Tile.zeros(exchange.src), Tile.zeros(exchange.dst)), (Tile.zeros(exchange.src), Tile.zeros(exchange.dst))):
            x.array[...] = comm.rank + turn
            exchange.forward(x, y)
            assert exchange.journey.before is nothing and exchange.journey.after is nothing
            for rank, box in enumerate(src):
                assert (y[box] == rank + turn).all()
            dx = Tile.zeros(exchange.src)
            exchange.backward(dx, y)
            assert exchange.journey.before is nothing and (dx.array == comm.size * (comm.rank + turn)).all()
