"""Ways in which ranks can share a tensor: numbers of parts along N, C, H and W, equal ones or sized by the ranks' speeds.

Pure integers: which ways suit a network is decided here, which is best is not.
"""
from dataclasses import dataclass
from math import prod

import numpy as np

from .region import balanced
from .tile import BLOCK

EQUAL = (), (), (), ()
MANY = 16                   # ranks up to which all grids are tried


@dataclass(frozen=True)
class Way:
    """parts: along N, C, H, W; shares: relative sizes of the parts of an axis, () where they are equal."""
    parts: tuple
    shares: tuple = EQUAL

    @property
    def grid(self):
        return self.parts[2:]

    @property
    def filters(self):
        return self.parts[1] > 1

    def edges(self, shape):
        """Cut points of a tensor (N, C, H, W); None where it has fewer samples, rows or columns than parts. A tensor of few channels leaves parts empty."""
        if any(part > size for part, size in zip(self.parts, shape) if part != self.parts[1]) or any(self.parts[a] > shape[a] for a in (0, 2, 3)):
            return None
        found = [cut(size, part, share, BLOCK if axis == 1 else 1) for axis, (size, part, share) in enumerate(zip(shape, self.parts, self.shares))]
        return tuple(found)

    def __str__(self):
        return words(self.parts)


def words(parts):
    """2x3 grid, filters/4, samples/2 in a few letters; '' for a tensor that is not cut."""
    n, c, h, w = parts
    return ' '.join([f'{h}x{w}'] * (h * w > 1) + [f'filters/{c}'] * (c > 1) + [f'samples/{n}'] * (n > 1))


def cut(size, parts, share=(), unit=1):
    """Cut points 0 … size of `parts` pieces on multiples of `unit`, sized by `share`; pieces are empty only where there are too few units."""
    blocks = -(-size // unit)
    if parts >= blocks or not share:
        few = balanced(size, min(parts, blocks), unit)
        return few + (size,) * (parts + 1 - len(few))
    ends = np.cumsum(share) / sum(share) * blocks
    edges = [0]
    for number, end in enumerate(ends[:-1]):
        edges.append(min(max(round(end), edges[-1] + 1), blocks - (parts - 1 - number)))
    return tuple(min(size, e * unit) for e in (*edges, blocks))


def stripped(edges):
    """Edges without the empty parts at the end of an axis."""
    return tuple(e if len(set(e)) == len(e) else tuple(dict.fromkeys(e)) for e in edges)


def factors(number, shape, batch):
    """[(samples, rows, columns)] with that product which a picture (C, H, W) and a batch can be cut into, squarish grids first."""
    found = [(n, r, number // n // r) for n in range(1, min(number, batch) + 1) if number % n == 0
             for r in range(1, number // n + 1) if number // n % r == 0]
    found = [f for f in found if f[1] <= shape[1] and f[2] <= shape[2]]
    return sorted(found, key=lambda f: (f[0], max(f[1:]) / min(f[1:]), -f[1]))


def main_ways(network, ranks, batch):
    """Ways for maps: all products of samples, rows and columns equal to the ranks; where only strips are, also those that leave one or two idle.

    Of many ranks no long strips: a grid four times as long as wide has 1.25 times the halo of a square one.
    """
    shape = network.layers[0].out_shape
    found = factors(ranks, shape, batch)
    if ranks > MANY:
        found = [f for f in found if max(f[1:]) <= 4 * min(f[1:])] or found[:1]
    if all(1 in f[1:] for f in found if f[0] == 1):
        for fewer in range(max(4, ranks - 2), ranks):
            found += [f for f in factors(fewer, shape, batch) if 1 not in f[1:]]
    return [Way((n, 1, r, c)) for n, r, c in found] or [Way((1, 1, 1, 1))]


def tail_ways(ranks, batch):
    """Ways for small maps and many weights: whole on one rank; samples; filters; filters of some samples (as many for each rank, where that can be), of
    some rows, and of both."""
    parts = [d for d in range(2, ranks) if ranks % d == 0]
    some = [d for d in parts if d <= batch]
    even = [d for d in some if batch % d == 0] or some
    both = [d for d in even if ranks % (2 * d) == 0 and ranks > 2 * d]
    found = [Way((1, 1, 1, 1)), Way((min(batch, ranks), 1, 1, 1)), Way((1, ranks, 1, 1))]
    found += [Way((d, ranks // d, 1, 1)) for d in even[-2:]]
    found += [Way((1, ranks // d, d, 1)) for d in parts[:2]]
    found += [Way((d, 2, ranks // d // 2, 1)) for d in both[-1:]]
    return list(dict.fromkeys(found))


def sized(way, speeds):
    """The way with parts sized by the ranks' speeds (seconds relative to each other), so that the slowest cell takes least; see `balance`."""
    speeds = np.resize(np.array(speeds, float), max(prod(way.parts), len(speeds)))[:prod(way.parts)]
    if np.allclose(speeds, speeds[0]):
        return way
    return Way(way.parts, balance(speeds.reshape(way.parts)))


def balance(seconds, rounds=100):
    """Shares along each axis for which the largest product of shares and seconds is small: each part in turn as large as its slowest cell allows.

    seconds: array (N, C, H, W parts) for equal cells. Several starts; exact where one axis is cut.
    """
    best = None
    for start in range(4):
        shares = [np.full(p, 1 / p) for p in seconds.shape]
        if start:                           # throughput of slices, as proportional fitting begins
            shares = [(1 / seconds).sum(tuple(a for a in range(4) if a != axis)) for axis in range(4)]
            shares = [s / s.sum() for s in shares]
        order = [axis for axis in (2, 3, 0, 1) if seconds.shape[axis] > 1]
        order = order[start % 2:] + order[:start % 2]
        for _ in range(rounds):
            for axis in order:
                cost = seconds.copy()
                for other in range(4):
                    if other != axis:
                        cost *= shares[other].reshape([-1 if a == other else 1 for a in range(4)])
                slowest = cost.max(tuple(a for a in range(4) if a != axis))
                shares[axis] = 1 / slowest / (1 / slowest).sum()
        worst = (seconds * np.einsum('i,j,k,l->ijkl', *shares)).max()
        if best is None or worst < best[0] * (1 - 1e-9):
            best = worst, shares
    return tuple(() if len(s) == 1 else tuple(float(round(x, 6)) for x in s) for s in best[1])
