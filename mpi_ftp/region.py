"""Boxes of global tensor coordinates, and how ranks share a tensor: pure integers, no arrays, no messages."""
from dataclasses import dataclass
from itertools import accumulate, product

AXES = 'NCHW'


@dataclass(frozen=True, slots=True)
class Region:
    """A half-open box over (N, C, H, W) in global coordinates.

    It may reach past the tensor (that part is padding) and may be empty.
    """
    lo: tuple
    hi: tuple

    @staticmethod
    def whole(shape):
        """The box of a whole tensor of `shape` (N, C, H, W)."""
        return Region((0, 0, 0, 0), tuple(shape))

    @property
    def shape(self):
        return tuple(max(0, b - a) for a, b in zip(self.lo, self.hi))

    @property
    def size(self):
        n, c, h, w = self.shape
        return n * c * h * w

    @property
    def empty(self):
        (a, b, c, d), (e, f, g, h) = self.lo, self.hi       # asked many times while a model is built: a loop takes five times as long
        return e <= a or f <= b or g <= c or h <= d

    def __and__(self, other):
        """The intersection; `NOTHING` when there is none."""
        lo = tuple(map(max, self.lo, other.lo))
        hi = tuple(map(min, self.hi, other.hi))
        return NOTHING if any(b <= a for a, b in zip(lo, hi)) else Region(lo, hi)

    def __or__(self, other):
        """The smallest box around both."""
        if self.empty:
            return NOTHING if other.empty else other
        if other.empty:
            return self
        return Region(tuple(map(min, self.lo, other.lo)), tuple(map(max, self.hi, other.hi)))

    def __contains__(self, other):
        return other.empty or (all(a <= b for a, b in zip(self.lo, other.lo))
                               and all(a >= b for a, b in zip(self.hi, other.hi)))

    def replace(self, axis, lo, hi):
        """The same box with the interval [lo, hi) on `axis`."""
        return Region(self.lo[:axis] + (lo,) + self.lo[axis + 1:], self.hi[:axis] + (hi,) + self.hi[axis + 1:])

    def minus(self, other):
        """Disjoint boxes that cover this box without `other`."""
        core = self & other
        if core.empty:
            return [] if self.empty else [self]
        rest, parts = self, []
        for axis in range(4):
            for lo, hi in ((rest.lo[axis], core.lo[axis]), (core.hi[axis], rest.hi[axis])):
                if lo < hi:
                    parts.append(rest.replace(axis, lo, hi))
            rest = rest.replace(axis, core.lo[axis], core.hi[axis])
        return parts

    def __str__(self):
        return 'nothing' if self.empty else ' '.join(f'{x}{a}:{b}' for x, a, b in zip(AXES, self.lo, self.hi))


NOTHING = Region((0, 0, 0, 0), (0, 0, 0, 0))


def balanced(n, parts, unit=1):
    """Cut points 0 … n of `parts` nearly equal pieces whose inner cuts fall on multiples of `unit`. The larger ones are the outermost, as a tile at a map's
    end has a halo on one side only; empty ones come last."""
    q, r = divmod(-(-n // unit), parts)
    late = r // 2 if q else 0
    sizes = [q + 1] * (r - late) + [q] * (parts - r) + [q + 1] * late
    return tuple(min(n, e * unit) for e in accumulate(sizes, initial=0))


@dataclass(frozen=True)
class Layout:
    """A global shape and one Region per rank.

    Owned layouts are partitions (disjoint, covering); held layouts overlap (owned and halo).
    """
    shape: tuple
    regions: tuple

    @staticmethod
    def cut(shape, edges, ranks, order=()):
        """The product of per-axis cut points, W varying fastest; ranks beyond the product own nothing.

        `edges` holds, for N, C, H and W, cut points from 0 to the size, e.g. (0, 7, 13); order: the rank of each box where they are not numbered alike.
        """
        spans = [list(zip(e, e[1:])) for e in edges]
        boxes = [Region(*zip(*span)) for span in product(*spans)]
        boxes = [NOTHING if b.empty else b for b in boxes]
        of_rank = dict(zip(order or range(ranks), boxes))
        return Layout(tuple(shape), tuple(of_rank.get(rank, NOTHING) for rank in range(max(ranks, len(boxes)))))

    @staticmethod
    def on_rank(shape, ranks, rank=0):
        """All of the tensor on one rank."""
        return Layout(tuple(shape), tuple(Region.whole(shape) if r == rank else NOTHING for r in range(ranks)))

    def __getitem__(self, rank):
        return self.regions[rank]

    def __iter__(self):
        return iter(self.regions)

    def __len__(self):
        return len(self.regions)
