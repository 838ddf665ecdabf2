"""A plan: the groups of layers, how the output of each is cut, where to recompute, where the backward pass is cut."""
from dataclasses import asdict, dataclass, field

from .errors import PlanError
from .geometry import owned_layout, share
from .network import PICTURE
from .region import Layout, Region, balanced


@dataclass(frozen=True)
class GroupPlan:
    """Layers [start, stop) run without halo exchange inside.

    edges: cut points of the last layer's output along N, C, H, W; cuts: inner layers after which the backward pass adds up copies;
    recompute: the group keeps only its inputs and runs forward again in the backward pass; parts: (rows, columns) of sub-tiles in which each
    rank takes its tile, one after the other, always recomputing (see subtiles.py); early: begin with what a rank owns while messages from other hosts
    travel, in pieces that cost more than the whole does at once.
    """
    start: int
    stop: int
    edges: tuple
    cuts: tuple = ()
    recompute: bool = False
    parts: tuple = (1, 1)
    early: bool = True

    @property
    def parted(self):
        return self.parts != (1, 1)

    @property
    def again(self):
        """Whether the backward pass begins with the group's forward pass."""
        return self.recompute or self.parted

    @property
    def last(self):
        return self.stop - 1

    @property
    def cut_along_channels(self):
        return sum(b > a for a, b in zip(self.edges[1], self.edges[1][1:])) > 1


@dataclass(frozen=True)
class Plan:
    """`batch` samples at a time on `ranks` ranks. predicted: what the cost model expects, for the record; order: the rank of each tile, the first one's
    first, where they are not numbered alike."""
    ranks: int
    batch: int
    groups: tuple
    predicted: dict = field(default_factory=dict, compare=False)
    order: tuple = ()

    def layouts(self, network):
        """{tensor index: its owned Layout} of every layer."""
        found = {}
        for group in self.groups:
            last = Layout.cut(network.tensor_shape(group.last, self.batch), group.edges, self.ranks, self.order)
            for index in range(group.start, group.stop):
                found[index] = owned_layout(network, group.last, last, index)
        return found

    def share(self, network, layouts, group, rank, training=True):
        owned = {index: layouts[index][rank] for index in range(group.start, group.stop)}
        return share(network, group.start, group.stop, owned, group.cuts, training)

    def picture_region(self, network, rank, training=True):
        """What a rank reads of the mini-batch: the box around all that its groups hold of the picture (without padding)."""
        layouts, box = self.layouts(network), Region((0,) * 4, (0,) * 4)
        for group in self.groups:
            held = self.share(network, layouts, group, rank, training).held.get(PICTURE)
            if held is not None:
                box = box | (held & Region.whole(network.tensor_shape(PICTURE, self.batch)))
        return box

    def to_json(self):
        return asdict(self)

    @staticmethod
    def from_json(record):
        groups = tuple(GroupPlan(g['start'], g['stop'], tuple(map(tuple, g['edges'])), tuple(g['cuts']), g['recompute'],
                                 tuple(g.get('parts', (1, 1))), g.get('early', True)) for g in record['groups'])
        return Plan(record['ranks'], record['batch'], groups, record.get('predicted', {}), tuple(record.get('order', ())))


def grid_edges(shape, grid):
    """Nearly equal cuts of an (N, C, H, W) tensor on a (rows, columns) grid; a map smaller than the grid is cut along N instead."""
    n, c, h, w = shape
    rows, columns = grid
    if h < rows or w < columns:
        return (balanced(n, rows * columns), (0, c), (0, h), (0, w))
    return ((0, n), (0, c), balanced(h, rows), balanced(w, columns))


def by_hand(network, ranks, batch, grid, starts, cuts=(), recompute=False):
    """The plan with groups that begin at the layers `starts`, each cut on `grid`.

    Raises PlanError when the grid does not fit the ranks or a start is no layer.
    """
    rows, columns = grid
    if rows < 1 or columns < 1 or rows * columns > ranks:
        raise PlanError(f'grid {rows}x{columns} needs {rows * columns} ranks, there are {ranks}')
    starts = sorted(set(starts) | {0})
    wrong = [s for s in list(starts) + list(cuts) if not 0 <= s < len(network)]
    if wrong:
        raise PlanError(f'group or cut at layer {wrong[0]}: expected a layer from 0 to {len(network) - 1}')
    starts = split_small(network, starts, grid)
    groups = []
    for start, stop in zip(starts, starts[1:] + [len(network)]):
        shape = network.tensor_shape(stop - 1, batch)
        inner = tuple(c for c in cuts if start <= c < stop - 1)
        groups.append(GroupPlan(start, stop, grid_edges(shape, grid), inner, recompute))
    return Plan(ranks, batch, tuple(groups))


def split_small(network, starts, grid):
    """Begin a new group where the map becomes, or stops being, smaller than the grid: a group has one kind of cut."""
    starts = set(starts)
    small = [network.layers[i].out_shape[1] < grid[0] or network.layers[i].out_shape[2] < grid[1] for i in range(len(network))]
    starts.update(i for i in range(1, len(network)) if small[i] != small[i - 1])
    return sorted(starts)


def per_layer(network):
    """Starts of groups such that every layer that reads a neighbourhood begins one."""
    return [layer.index for layer in network.layers if layer.index == 0 or not layer.halo_free]
