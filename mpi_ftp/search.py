"""Finds the plan with the lowest predicted step: grids, groups, layouts of each group, backward cuts, what to recompute under a budget.

For one grid, dynamic programming over cut points: a state is (layers done, how the last output is cut), a step is one group. Memory enters as
a price on bytes that is raised until the plan fits; the final plan is checked exactly, by footprint.py.
"""
from dataclasses import replace
from itertools import pairwise

from .cost import ITEM, CostModel
from .errors import MemoryRefused, PlanError
from .footprint import Footprint
from .plan import GroupPlan, Plan, grid_edges, per_layer, split_small
from .region import balanced

PRICES = 0.0, 1e-11, 1e-10, 1e-9, 1e-6       # seconds that a byte kept from forward to backward is worth
LIMITS = 1, 1 / 2, 1 / 4, 1 / 8                # of the whole tape: the most that one group may recompute at once


def find_plan(network, ranks, batch, machine, grid=None, groups='auto', cuts='auto', recompute='auto', memory=None):
    """The fastest Plan by the cost model, `predicted` filled with seconds, parts, groups and bytes.

    grid: (rows, columns) or None; groups: 'auto', 'per-layer', 'fused' or first layers; cuts: backward cuts, 'auto', 'none' or layers;
    recompute: 'auto', 'all', 'none'; memory: bytes that no rank may exceed. Raises PlanError and MemoryRefused.
    """
    model = CostModel(network, machine, batch, ranks)
    grids = [checked(grid, ranks)] if grid else all_grids(network, ranks)
    searches = [GridSearch(model, g, groups, recompute, by_hand=bool(grid)) for g in grids]
    candidates = sorted((search.best() for search in searches), key=lambda found: found[0])
    for seconds, plan, search in candidates:
        if memory is None or Footprint(network, plan, model.machine).worst()[0] <= memory:
            plan = with_cuts(model, plan, cuts)
            return predicted(model, plan, search)
        break
    return within(model, searches, cuts, memory)


def predicted(model, plan, search=None):
    """The plan with what the model expects of it."""
    price, footprint = model.price(plan), Footprint(model.network, plan, model.machine)
    peak, fullest = footprint.worst()
    record = {**price.to_json(), 'bytes': peak, 'fullest': fullest, 'memory': footprint.parts(fullest)}
    if search:
        record['grid'] = list(search.grid)
    return replace(plan, predicted=plain(record))


def plain(value):
    """Numbers of numpy as Python's, for JSON."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if hasattr(value, 'item') else value


def checked(grid, ranks):
    rows, columns = grid
    if rows < 1 or columns < 1 or rows * columns > ranks:
        raise PlanError(f'grid {rows}x{columns} needs {rows * columns} ranks, there are {ranks}')
    return rows, columns


def all_grids(network, ranks):
    """Grids worth a search: all products equal to the ranks, and of fewer ranks those that no other beats in rows and columns."""
    _, h, w = network.layers[0].out_shape
    found = [(r, ranks // r) for r in range(1, ranks + 1) if ranks % r == 0 and r <= h and ranks // r <= w]
    if len(found) <= 2:                                     # a prime number of ranks: leave one or two idle
        for fewer in (ranks - 1, ranks - 2):
            found += [(r, fewer // r) for r in range(2, fewer) if fewer % r == 0 and r <= h and fewer // r <= w]
    return found or [(1, 1)]


class GridSearch:
    """Dynamic programming for one grid. by_hand: the user chose it, so every map that is large enough is cut on it."""

    def __init__(self, model, grid, groups='auto', recompute='auto', by_hand=False):
        self.model, self.network, self.grid, self.recompute, self.by_hand = model, model.network, grid, recompute, by_hand
        self.allowed = self.starts(groups)
        self.cuts = {}

    def starts(self, groups):
        """First layers of the groups where they are prescribed, else None."""
        count = len(self.network)
        if isinstance(groups, str):
            if groups not in ('auto', 'per-layer', 'fused'):
                raise PlanError(f'groups={groups!r}: expected auto, per-layer, fused or first layers')
            listed = {'auto': None, 'per-layer': per_layer(self.network), 'fused': [0]}[groups]
        else:
            listed = sorted(set(groups) | {0})
            wrong = [s for s in listed if not 0 <= s < count]
            if wrong:
                raise PlanError(f'group or cut at layer {wrong[0]}: expected a layer from 0 to {count - 1}')
        return None if listed is None else split_small(self.network, listed, self.grid) + [count]

    def edges(self, stop, kind):
        """Cut points of the output of layer stop - 1 for a kind of layout; None where it cannot be cut so."""
        if (stop, kind) not in self.cuts:
            self.cuts[stop, kind] = self.find_edges(stop, kind)
        return self.cuts[stop, kind]

    def find_edges(self, stop, kind):
        layer, ranks = self.network.layers[stop - 1], self.model.ranks
        shape = n, c, h, w = self.network.tensor_shape(stop - 1, self.model.batch)
        if kind == 'grid':
            if self.grid == (1, 1) or (layer.is_head and layer.kind == 'softmax'):
                return None
            return grid_edges(shape, self.grid) if h >= self.grid[0] and w >= self.grid[1] else None
        if kind == 'samples':
            return (balanced(n, min(n, ranks)), (0, c), (0, h), (0, w)) if n > 1 and ranks > 1 else None
        if kind == 'filters':
            parts = min(ranks, -(-c // 16))
            good = parts > 1 and not layer.is_head and getattr(layer, 'groups', 1) == 1
            return ((0, n), balanced(c, parts, 16), (0, h), (0, w)) if good else None
        return (0, n), (0, c), (0, h), (0, w)

    def kinds(self, start, stop):
        """Layouts to try for a group's output."""
        if self.allowed is not None:                        # prescribed groups: as written by hand
            _, _, h, w = self.network.tensor_shape(stop - 1, 1)
            first = 'grid' if h >= self.grid[0] and w >= self.grid[1] else 'samples'
            return [k for k in (first, 'whole') if self.edges(stop, k)][:1]
        if self.by_hand and self.edges(stop, 'grid'):
            return ['grid']
        tried = ['grid', 'samples', 'whole'] + ['filters'] * (stop - start <= 3 and self.plain_filters(start, stop))
        return [k for k in tried if self.edges(stop, k)]

    def plain_filters(self, start, stop):
        """Whether a group may be cut along filters: at its last convolution, followed by nothing that mixes channels."""
        layers = self.network.layers[start:stop]
        return bool(layers[0].tensors) and all(layer.kind in ('maxpool', 'dropout', 'avgpool') for layer in layers[1:]) and getattr(layers[0], 'groups', 1) == 1

    def spans(self):
        """(start, stop) of all groups allowed."""
        count = len(self.network)
        if self.allowed is not None:
            return list(pairwise(self.allowed))
        return [(start, stop) for stop in range(1, count + 1) for start in range(stop)]

    def best(self, price=0.0, limit=float('inf')):
        """(predicted seconds, Plan, self) of the cheapest plan when a byte of tape costs `price` seconds and no group recomputes more than
        `limit` bytes; None where there is none."""
        count = len(self.network)
        states = {(0, 'picture'): (0.0, None, None)}
        for start, stop in sorted(self.spans()):
            for kind in self.kinds(start, stop):
                for before in [k for p, k in states if p == start]:
                    total, again = self.step(start, stop, kind, before, price, limit)
                    total += states[start, before][0]
                    if (stop, kind) not in states or total < states[stop, kind][0]:
                        states[stop, kind] = total, (start, before), again
        ends = [k for p, k in states if p == count]
        if not ends or states[count, min(ends, key=lambda k: states[count, k][0])][0] == float('inf'):
            return None
        state, groups = (count, min(ends, key=lambda k: states[count, k][0])), []
        while state[0]:
            _, previous, again = states[state]
            groups.append(GroupPlan(previous[0], state[0], self.edges(*state), (), again))
            state = previous
        plan = Plan(self.model.ranks, self.model.batch, tuple(reversed(groups)))
        return self.model.price(plan).seconds, plan, self

    def step(self, start, stop, kind, before, price=0.0, limit=float('inf')):
        """(seconds, recompute) of one group after an output cut as `before`."""
        group, model = GroupPlan(start, stop, self.edges(stop, kind)), self.model
        key = start, stop, group.edges, before == 'grid' and self.grid, before
        if key not in model.steps:
            row, inner = model.group(group, lambda source: self.owned(source, before)), model.inner(group)
            inputs = sum(int(entry[3].max()) * ITEM for entry in model.entry(group, model.extent(stop, group.edges)))
            base = 2 * model.machine.call + row['forward'] + row['backward'] + row['exchange'] + row['norm_sums'] + inner['weights'][start]
            model.steps[key] = base, inner['again'][start], inner['tape'][start], inputs + inner['held'][start]
        base, extra, tape, inputs = model.steps[key]
        kept = base + price * (tape + inputs), False
        if self.recompute == 'none':
            return kept
        again = (base + extra + price * inputs if tape <= limit else float('inf')), True
        return again if self.recompute == 'all' else min(kept, again)

    def owned(self, source, before):
        """Boxes of an earlier output: of the group just before as it is cut, of others as that kind of cut would have it."""
        edges = self.edges(source + 1, before) or self.edges(source + 1, 'whole')
        return self.model.extent(source + 1, edges).owned[source]


def with_cuts(model, plan, cuts):
    """The plan with backward cuts: those asked for, or each that the model finds worth its round."""
    if cuts in (None, 'none'):
        return plan
    if cuts != 'auto':
        wrong = [c for c in cuts if not 0 <= c < len(model.network)]
        if wrong:
            raise PlanError(f'backward cut at layer {wrong[0]}: expected a layer from 0 to {len(model.network) - 1}')
        return replace(plan, groups=tuple(replace(g, cuts=tuple(c for c in cuts if g.start <= c < g.last)) for g in plan.groups))
    if model.ranks == 1:
        return plan
    for number, group in enumerate(plan.groups):
        inner = [i for i in range(group.start, group.last) if not model.network.layers[i].halo_free]
        if not inner or len(group.edges[2]) + len(group.edges[3]) <= 4:
            continue
        best = model.price(plan).seconds
        for index in inner:
            trial = replace(plan.groups[number], cuts=tuple(sorted({*plan.groups[number].cuts, index})))
            changed = replace(plan, groups=plan.groups[:number] + (trial,) + plan.groups[number + 1:])
            seconds = model.price(changed).seconds
            if seconds < best * .998:
                best, plan = seconds, changed
    return plan


def within(model, searches, cuts, memory):
    """The cheapest plan whose fullest rank holds at most `memory` bytes. Raises MemoryRefused."""
    fitting, least, seen = None, None, {}
    for search in searches:
        for seconds, plan, limit in thrifty(search):
            if fitting and seconds >= fitting[0]:
                continue
            if plan not in seen:
                seen[plan] = Footprint(model.network, plan, model.machine)
            peak, rank = seen[plan].worst()
            if least is None or peak < least[0]:
                least = peak, rank, seen[plan]
            if peak <= memory:
                fitting = seconds, plan, search
    if not fitting:
        raise MemoryRefused(refusal(model, least, memory))
    _, plan, search = fitting
    trial = with_cuts(model, plan, cuts)
    return predicted(model, trial if Footprint(model.network, trial, model.machine).worst()[0] <= memory else plan, search)


def thrifty(search):
    """(seconds, plan, limit) of plans that keep and recompute less and less."""
    whole = sum(search.model.inner(GroupPlan(0, stop, search.edges(stop, 'grid') or search.edges(stop, 'whole')))['tape'][stop - 1]
                for stop in range(1, len(search.network) + 1))
    for share in LIMITS:
        for price in PRICES if share < 1 or search.recompute != 'none' else PRICES[:3]:
            found = search.best(price, share * whole)
            if found:
                yield found[0], found[1], share


def refusal(model, least, memory):
    """One sentence: who lacks how much, where most of it goes, and what would do."""
    peak, rank, footprint = least
    part, nbytes = max(((p, b) for p, b in footprint.parts(rank).items() if p != 'process'), key=lambda item: item[1])
    layer = max(model.network.layers, key=lambda layer: footprint_of(footprint, rank, layer))
    return (f'no plan fits {mib(memory)} on {model.ranks} rank{"s" * (model.ranks > 1)}: rank {rank} lacks {mib(peak - memory)} even with everything recomputed '
            f'(most goes to {part}, {mib(nbytes)}; the largest layer is {layer.name}); --memory {-(-peak >> 20) + 1}M would do{more_ranks(model, memory)}')


def footprint_of(footprint, rank, layer):
    return max(s[rank].held[layer.index].size for s in footprint.shares if layer.index in s[rank].held)


def more_ranks(model, memory):
    """', or N ranks' where more ranks fit the budget."""
    for ranks in range(model.ranks + 1, min(64, 4 * model.ranks + 8) + 1):
        other = CostModel(model.network, model.machine.placed(ranks), model.batch, ranks)
        for grid in all_grids(model.network, ranks)[-1:]:
            search = GridSearch(other, grid, 'auto', 'auto')
            if Footprint(model.network, search.best(PRICES[-1])[1], other.machine).worst()[0] <= memory:
                return f', or {ranks} ranks'
    return ''


def mib(nbytes):
    return f'{nbytes / (1 << 20):.0f} MiB'
