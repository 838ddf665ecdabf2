"""Ways to cut: parts sized by speed, on blocks, never empty where there is room."""
import pytest

from mpi_ftp.ways import Way, cut, factors, sized, tail_ways, words


def test_parts_are_sized_by_speed():
    assert sized(Way((1, 1, 4, 1)), (1, 1, 1, 2)).edges((1, 3, 70, 9))[2] == (0, 20, 40, 60, 70)
    assert sized(Way((1, 3, 1, 1)), (1, 1, 2)).edges((1, 80, 7, 7))[1] == (0, 32, 64, 80)
    assert sized(Way((1, 1, 2, 2)), (3, 3, 3, 3)) == Way((1, 1, 2, 2))


@pytest.mark.parametrize('speeds', [(1, 1, 1, 2), (1, 2, 3, 4), (5, 1, 1, 1)])
def test_no_cell_of_a_grid_takes_longer_than_equal_cells(speeds):
    rows, columns = sized(Way((1, 1, 2, 2)), speeds).shares[2:]
    rows, columns = rows or (.5, .5), columns or (.5, .5)
    assert sum(rows) == pytest.approx(1, abs=1e-5)
    slowest = max(rows[r // 2] * columns[r % 2] * seconds for r, seconds in enumerate(speeds))
    assert 1 / sum(1 / s for s in speeds) <= slowest * (1 + 1e-5) and slowest <= max(speeds) / 4 + 1e-6


@pytest.mark.parametrize('size, parts, share', [(5, 4, (1, 100, 1, 1)), (7, 3, (1, 1, 50)), (4, 4, (1, 2, 3, 4))])
def test_every_part_has_something(size, parts, share):
    edges = cut(size, parts, share)
    assert edges[0] == 0 and edges[-1] == size and all(a < b for a, b in zip(edges, edges[1:]))


def test_a_way_that_does_not_fit_is_none():
    assert Way((1, 1, 8, 1)).edges((1, 16, 7, 99)) is None
    assert Way((1, 6, 1, 1)).edges((1, 40, 7, 7))[1] == (0, 16, 32, 40, 40, 40, 40)
    assert words((2, 3, 4, 1)) == '4x1 filters/3 samples/2'


def test_factors_make_the_number_and_fit():
    assert factors(6, (3, 9, 9), 2) == [(1, 3, 2), (1, 2, 3), (1, 6, 1), (1, 1, 6), (2, 3, 1), (2, 1, 3)]
    assert factors(6, (3, 2, 9), 1) == [(1, 2, 3), (1, 1, 6)] and factors(5, (3, 1, 1), 4) == []


def test_filters_are_cut_of_as_many_samples_on_each_rank():
    assert [way.parts for way in tail_ways(6, 4)[3:]] == [(2, 3, 1, 1), (1, 3, 2, 1), (1, 2, 3, 1)]
    assert [way.parts for way in tail_ways(16, 4)[3:]] == [(2, 8, 1, 1), (4, 4, 1, 1), (1, 8, 2, 1), (1, 4, 4, 1), (4, 2, 2, 1)]
    assert [way.parts for way in tail_ways(6, 5)[3:5]] == [(2, 3, 1, 1), (3, 2, 1, 1)]          # 5 samples come out even nowhere
    assert [way.parts for way in tail_ways(7, 4)] == [(1, 1, 1, 1), (4, 1, 1, 1), (1, 7, 1, 1)]
