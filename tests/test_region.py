"""Boxes and layouts: algebra on random boxes, partitions that cover."""
import random
from itertools import product

import pytest

from mpi_ftp.region import NOTHING, Layout, Region, balanced


def random_box(rng, size=6):
    lo = tuple(rng.randrange(-2, size) for _ in range(4))
    return Region(lo, tuple(a + rng.randrange(0, 5) for a in lo))


def points(box):
    return set(product(*(range(a, b) for a, b in zip(box.lo, box.hi))))


@pytest.mark.parametrize('seed', range(30))
def test_algebra_agrees_with_sets_of_points(seed):
    rng = random.Random(seed)
    a, b = random_box(rng), random_box(rng)
    assert points(a & b) == points(a) & points(b)
    assert points(a) | points(b) <= points(a | b)
    assert (b in a) == (points(b) <= points(a))
    parts = a.minus(b)
    assert sum(p.size for p in parts) == len(points(a) - points(b)), 'pieces overlap or miss points'
    assert set().union(*map(points, parts)) == points(a) - points(b)
    assert a.size == len(points(a)) and a.empty == (not points(a))


def test_nothing_is_empty_everywhere():
    box = Region((0, 0, 0, 0), (2, 3, 4, 5))
    assert NOTHING.empty and (box & NOTHING) == NOTHING and (box | NOTHING) == box and NOTHING in box and NOTHING.minus(box) == []
    assert str(NOTHING) == 'nothing' and str(box) == 'N0:2 C0:3 H0:4 W0:5'


@pytest.mark.parametrize('n, parts, unit', [(7, 3, 1), (13, 6, 1), (3, 5, 1), (64, 3, 16), (40, 3, 16), (10, 4, 16)])
def test_balanced_cuts(n, parts, unit):
    edges = balanced(n, parts, unit)
    assert edges[0] == 0 and edges[-1] == n and len(edges) == parts + 1
    assert all(a <= b and (a % unit == 0 or a == n) for a, b in zip(edges, edges[1:]))
    sizes = [-(-(b - a) // unit) for a, b in zip(edges, edges[1:])]
    assert max(sizes) - min(sizes) <= 1


def test_the_larger_pieces_are_the_outermost():
    assert balanced(38, 3) == (0, 13, 25, 38) and balanced(155, 4) == (0, 39, 78, 116, 155) and balanced(8, 3, 2) == (0, 4, 6, 8)
    assert balanced(3, 5) == (0, 1, 2, 3, 3, 3)            # but where some are empty these come last


def test_a_cut_layout_is_a_partition_and_spare_ranks_own_nothing():
    shape = (2, 40, 7, 9)
    layout = Layout.cut(shape, ((0, 1, 2), (0, 16, 40), (0, 3, 3, 7), (0, 9)), 14)
    assert len(layout) == 14 and layout[13] == NOTHING
    assert sum(r.size for r in layout) == Region.whole(shape).size
    assert set().union(*map(points, layout)) == points(Region.whole(shape))
    assert Layout.on_rank(shape, 3, 1).regions == (NOTHING, Region.whole(shape), NOTHING)
