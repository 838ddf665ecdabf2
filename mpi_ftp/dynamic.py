"""Dynamic programming over cut points: a state is (layers done, how the last output is cut), a step is one group.

One Search for each way to cut large maps; with it go a few ways for small maps and many weights.
"""
from itertools import pairwise

import numpy as np

from .errors import PlanError
from .plan import GroupPlan, Plan, per_layer, split_small
from .space import WHOLE, Mix, Space
from .ways import Way, main_ways, sized, stripped, tail_ways

LAYOUTS = 'auto', 'spatial', 'samples', 'tail'
CERTAIN = 0.98              # of a layer's time alone: in a group its cuts are carried over, and may fall a row better
HIDDEN = Mix(0.0, 0.0)      # all sums of gradients, behind the backward pass
MIXES = Mix(.5, 0.0), HIDDEN, Mix(.25, 0.0), Mix(.1, 0.0), Mix(.35, 0.0), Mix(.7, 0.0), Mix(1.0, .7)       # middling, hidden, between; sums last longer
PARTS = (2, 1), (4, 1), (8, 1), (4, 4)      # rows and columns in which a rank may take its tile, one after the other
FUSED_FILTERS = 3           # layers of a group that is cut along filters: a convolution and what does not mix channels


class Search:
    """Dynamic programming for one way to cut large maps, `tails` for the others.

    starts: first layers of the groups where they are prescribed, or None; by_hand: every map that is large enough is cut as `main`; parts: what a rank may
    take its tile in where memory is short.
    """

    def __init__(self, space, main, tails, starts=None, recompute='auto', by_hand=False, layout='auto', parts=PARTS):
        self.space, self.model, self.network, self.main = space, space.model, space.network, main
        self.ways = [way for way in dict.fromkeys([main, *tails]) if space.table(way)]
        self.starts, self.recompute, self.by_hand, self.layout = starts, recompute, by_hand, layout
        self.parts = parts if recompute != 'none' or not space.model.training else ()
        self.following = {a: b for a, b in pairwise([*starts, len(self.network)])} if starts else None
        self.tail = smallest_maps(self.network) if layout == 'tail' else None
        self.mixed(MIXES[0])

    def mixed(self, mix):
        """Take sums of gradients into account in another way."""
        self.mix = Mix(1.0, 0.0) if self.model.layers.one_host else mix        # within a host sums take the cores' time
        self.rest = self.least()
        return self

    def least(self):
        """Seconds that layers [i, end) take at least, at i: no group computes them faster than its fastest way does alone."""
        count, inf = len(self.network), np.inf
        found = np.full((len(self.ways), count + 1), inf)
        for row, way in enumerate(self.ways):
            stops = self.space.table(way).stops
            found[row, stops - 1] = self.space.inner(way, stops - 1, np.arange(len(stops)), self.mix)
        alone = np.where(np.isfinite(found.min(0)), found.min(0), 0.0) * CERTAIN
        return alone[::-1].cumsum()[::-1]

    def ends(self, way, start, cap):
        """The rows of a way's table whose groups may begin at `start`, in a plan that takes less than `cap` seconds."""
        table, count = self.space.table(way), len(self.network)
        first = int(np.searchsorted(table.stops, start, 'right'))
        last = len(table.stops)
        if way.filters:
            last = int(np.searchsorted(table.stops, self.filters_until(start), 'right'))
        if self.following:
            stop = self.following.get(start, count + 1)
            first, last = max(first, int(np.searchsorted(table.stops, stop))), min(last, int(np.searchsorted(table.stops, stop, 'right')))
        if first < last:
            seconds = self.space.inner(way, start, slice(first, last), self.mix) + self.rest[0] - self.rest[start] + self.rest[table.stops[first:last]]
            below = np.flatnonzero(seconds < cap)
            last = first + int(below[-1]) + 1 if len(below) else first
        return slice(first, last)

    def filters_until(self, start):
        """The last stop of a group from `start` that may be cut along filters."""
        layers = self.network.layers
        if not layers[start].tensors or getattr(layers[start], 'groups', 1) > 1:
            return start
        stop = start + 1
        while stop < min(len(layers), start + FUSED_FILTERS) and layers[stop].kind in ('maxpool', 'dropout', 'avgpool'):
            stop += 1
        return stop

    def light(self, start, stops):
        """Which groups from `start` hold no more weights than the layer with most: where weights wait in a file, to hold more is to waste."""
        if not self.model.course.paged or self.starts:
            return np.ones(len(stops), bool)
        counts = [self.model.layers.counts[index] for index in range(len(self.network))]
        upto = np.concatenate([[0], np.cumsum(counts)])
        return upto[stops] - upto[start] <= max(counts)

    def allowed(self, start, way, stops):
        """Which ends may be cut so: where a way was chosen by hand, others are for groups of what is too small for it, and for the tail on one rank."""
        good = np.ones(len(stops), bool)
        if self.tail is not None:
            if start >= self.tail:
                return good & (way == WHOLE)
            good &= stops <= self.tail
        if way != self.main and self.by_hand:
            mains = self.space.table(self.main).edges if self.main in self.ways else ()
            free = next((stop for stop in mains if stop > start), len(self.network) + 1)
            good &= np.array([stop < free and way == self.fallback(stop) for stop in stops.tolist()], bool)
        return good

    def fallback(self, stop):
        """The way to cut by hand what is too small for the main one: the first that can."""
        return next(way for way in self.ways if way != self.main and stop in self.space.table(way).edges)

    def best(self, price=0.0, limit=float('inf'), bound=float('inf'), cap=float('inf')):
        """(seconds by the tables, Plan) of the cheapest plan when a byte of tape costs `price` seconds and no group recomputes more than `limit` bytes
        at once (a forward pass: works on more). None where there is none below `bound`; `cap`: seconds without that price that no plan of interest exceeds."""
        count, inf, cap = len(self.network), np.inf, min(cap, bound) if not price else cap
        value = {way: np.full(count + 1, inf) for way in self.ways}
        back = {way: [None] * (count + 1) for way in self.ways}
        for start in range(count):
            befores = [way for way in self.ways if value[way][start] + self.rest[start] < bound] if start else [None]
            befores.sort(key=lambda before: value[before][start] if before else 0.0)
            for way in self.ways if befores else ():
                ends = self.ends(way, start, cap)
                if ends.start == ends.stop:
                    continue
                stops, inside = self.space.table(way).stops[ends], self.inside(way, start, ends, limit)
                for before in befores:              # groups that would lower a value if they were entered for nothing
                    reached = value[before][start] if before else 0.0
                    if (reached + inside < np.minimum(value[way][stops], bound - self.rest[stops])).any():
                        self.relax(value, back, start, before, way, ends, price, limit)
        end = min(self.ways, key=lambda way: value[way][count])
        if not value[end][count] < bound:
            return None
        groups, way, stop = [], end, count
        while stop:
            start, before, (again, parts) = back[way][stop]
            groups.append(GroupPlan(start, stop, stripped(self.space.table(way).edges[stop]), (), again, parts))
            way, stop = before, start
        return float(value[end][count]), Plan(self.model.ranks, self.model.batch, tuple(reversed(groups)), order=self.model.order)

    def inside(self, way, start, ends, limit):
        """Seconds that the layers of groups take at least, in parts where that is allowed."""
        found = self.space.inner(way, start, ends, self.mix)
        more = [self.space.parted(way, start, parts)[0][ends] for parts in self.parts] if limit < float('inf') else []
        return found + np.minimum.reduce([np.zeros(len(found)), *more])

    def relax(self, value, back, start, before, way, ends, price, limit):
        """Lower the values at all ends that groups from `start` reach."""
        reached, steps = value[before][start] if start else 0.0, self.space.steps(start, way, before, ends)
        choices = self.choices(start, way, steps, price, limit)
        seconds = np.array([seconds for _, seconds in choices])
        chosen = seconds.argmin(0)
        total = np.where(self.allowed(start, way, steps.stops), reached + seconds.min(0), np.inf)
        if self.following:
            total[steps.stops != self.following[start]] = np.inf
        known = value[way][steps.stops]
        for k in np.flatnonzero(total < known).tolist():
            back[way][steps.stops[k]] = start, before, choices[chosen[k]][0]
        value[way][steps.stops] = np.minimum(known, total)

    def choices(self, start, way, steps, price=0.0, limit=float('inf')):
        """[((whether to recompute, parts), seconds with the price of bytes)]: what groups may do to need less memory."""
        whole, training, seconds = (1, 1), self.model.training, self.mix.of(steps.seconds, steps.behind, steps.sums)
        found = [] if self.recompute == 'all' else [((False, whole), seconds + price * (steps.tape + steps.held))]
        if found and training and not price and limit == float('inf'):
            return found                    # nothing else takes less time
        if not training:
            seconds = np.where(self.light(start, steps.stops), seconds, np.inf)
            found = [((False, whole), np.where(steps.tape <= limit, seconds, np.inf))]
        elif self.recompute != 'none':
            found.append(((True, whole), np.where(steps.tape <= limit, seconds + steps.again + price * steps.held, np.inf)))
        if limit < float('inf'):
            table = self.space.table(way)
            first = int(np.searchsorted(table.stops, steps.stops[0]))
            rows = slice(first, first + len(steps.stops))
            for parts in self.parts:
                more, tape = (array[rows] for array in self.space.parted(way, start, parts))
                found.append(((training, parts), np.where(tape <= limit, seconds + more + price * steps.held, np.inf)))
        return found


def searches_of(model, grid, groups, recompute, layout, parts=PARTS, shares=()):
    """A Search for every way to cut large maps that may be chosen. shares: of tiles, by speed where there are none. Raises PlanError."""
    network, ranks, batch = model.network, model.workers, model.batch
    if layout not in LAYOUTS:
        raise PlanError(f'layout={layout!r}: expected one of {", ".join(LAYOUTS)}')
    space, speeds = Space(model), [1 / share for share in shares] or model.machine.speeds
    samples = Way((min(batch, ranks), 1, 1, 1))
    mains = [checked(grid, ranks, batch)] if grid else [samples] if layout == 'samples' else main_ways(network, ranks, batch)
    if not grid and (layout in ('spatial', 'tail') or not isinstance(groups, str) or groups != 'auto'):
        mains = [way for way in mains if way.parts[0] == 1 or layout == 'samples'] or [WHOLE]
    tails = {'auto': tail_ways(ranks, batch), 'spatial': [WHOLE], 'tail': [WHOLE], 'samples': [WHOLE]}[layout]
    tails = [sized(way, speeds) for way in tails]
    found = []
    for way in mains:
        starts = first_layers(network, groups, way.grid)
        if starts and layout == 'tail':
            starts = sorted({*starts, smallest_maps(network)})
        by_hand = bool(grid) or layout != 'auto'
        if starts and by_hand:              # what cannot be cut so is in groups of its own
            starts = sorted({*starts, *(i for i in range(1, len(network)) if (space.edges(way, i) is None) != (space.edges(way, i + 1) is None))})
        found.append(Search(space, sized(way, speeds), tails, starts, recompute, by_hand, layout, parts))
    return found


def smallest_maps(network):
    """The first layer whose output is as small as the smallest: where the tail of few pixels and many weights begins."""
    pixels = [layer.out_shape[1] * layer.out_shape[2] for layer in network.layers]
    return pixels.index(min(pixels))


def first_layers(network, groups, grid):
    """First layers of the groups where they are prescribed, else None. Raises PlanError."""
    if isinstance(groups, str):
        if groups not in ('auto', 'per-layer', 'fused'):
            raise PlanError(f'groups={groups!r}: expected auto, per-layer, fused or first layers')
        if groups == 'auto':
            return None
        groups = per_layer(network) if groups == 'per-layer' else [0]
    wrong = [s for s in groups if not 0 <= s < len(network)]
    if wrong:
        raise PlanError(f'group or cut at layer {wrong[0]}: expected a layer from 0 to {len(network) - 1}')
    return split_small(network, sorted({0, *groups}), grid)


def checked_cuts(network, cuts):
    wrong = [c for c in cuts or () if not isinstance(cuts, str) and not 0 <= c < len(network)]
    if wrong:
        raise PlanError(f'backward cut at layer {wrong[0]}: expected a layer from 0 to {len(network) - 1}')
    heads = [network.layers[c] for c in cuts or () if not isinstance(cuts, str) and network.layers[c].is_head]
    if heads:
        raise PlanError(f'backward cut at {heads[0].name}: expected a layer whose output others read')


def checked(grid, ranks, batch):
    """The Way of a grid (rows, columns) or (samples, rows, columns). Raises PlanError."""
    samples, rows, columns = grid if len(grid) == 3 else (1, *grid)
    words, needed = 'x'.join(map(str, grid)), samples * rows * columns
    if min(samples, rows, columns) < 1 or needed > ranks:
        raise PlanError(f'grid {words} needs {needed} ranks, there are {ranks}')
    if samples > batch:
        raise PlanError(f'grid {words} cuts a batch of {batch} into {samples} parts')
    return Way((samples, 1, rows, columns))
