"""Random numbers by keys: the same everywhere, and permutations of any length."""
import pytest

from mpi_ftp.chance import Chance, shuffled


def test_chance_is_the_same_everywhere():
    """Frozen numbers: a resumed run, or a rank with another numpy, must draw the same."""
    chance = Chance(1, 2, 3)
    assert [round(chance.uniform(0, 1), 12) for _ in range(3)] == [0.071663707638, 0.863331714605, 0.357189756829]
    assert shuffled(10, 5, 0).tolist() == [9, 7, 2, 4, 5, 0, 6, 1, 8, 3]


@pytest.mark.parametrize('count', [1, 2, 17, 1000])
def test_shuffled_is_a_permutation(count):
    orders = [shuffled(count, seed, epoch).tolist() for seed in range(2) for epoch in range(2)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    if count > 10:
        assert len(set(map(tuple, orders))) == 4
