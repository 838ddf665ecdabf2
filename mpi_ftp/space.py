"""Prices of all groups that a search may choose: for every way to cut, tables over all ends, asked one beginning at a time."""
from dataclasses import dataclass

import numpy as np

from .extents import Extents
from .layer_cost import ITEM
from .part_cost import PartCosts, fits
from .subtiles import obstacle
from .ways import Way

PASSES = 'forward', 'backward'
INNER = 'forward', 'backward', 'norm_sums', 'weights'
WHOLE = Way((1, 1, 1, 1))


@dataclass(frozen=True)
class Mix:
    """How sums of gradients count that go on beside the backward pass: `shown` of them, and of the backward pass what is not `hidden` behind them.

    No single group knows which of the two ends last; a search tries several.
    """
    shown: float
    hidden: float

    def of(self, seconds, behind, sums):
        return seconds - self.hidden * behind + self.shown * sums


@dataclass(frozen=True)
class Table:
    """Groups whose outputs are cut in one way: the stops where it is possible, their edges, and what the layers inside cost."""
    stops: np.ndarray
    edges: dict
    extents: object
    sums: dict
    inputs: dict


@dataclass(frozen=True)
class Steps:
    """Groups [start, stop) for all `stops` after an output cut in a given way: arrays of seconds, of these what sums of gradients may hide behind, seconds of
    those sums, more seconds where groups recompute, bytes of tape that this saves, and bytes that are held in any case."""
    stops: np.ndarray
    seconds: np.ndarray
    behind: np.ndarray
    sums: np.ndarray
    again: np.ndarray
    tape: np.ndarray
    held: np.ndarray


class Space:
    """Tables of a CostModel. priced: how many groups were priced, entered one way or the other."""

    def __init__(self, model):
        self.model, self.network = model, model.network
        self.tables, self.found, self.parts, self.priced = {}, {}, {}, 0

    def edges(self, way, stop):
        """Cut points of the output of layer stop - 1; None where it cannot be cut so."""
        layer = self.network.layers[stop - 1]
        if way.filters and (layer.is_head or getattr(layer, 'groups', 1) > 1 or layer.out_shape[0] <= 16):
            return None
        if way.grid != (1, 1) and layer.is_head and layer.kind == 'softmax':
            return None
        return way.edges(self.network.tensor_shape(stop - 1, self.model.batch))

    def table(self, way):
        """The Table of a way; None where no layer can be cut so."""
        if way not in self.tables:
            edges = {stop: self.edges(way, stop) for stop in range(1, len(self.network) + 1)}
            edges = {stop: e for stop, e in edges.items() if e}
            extents = edges and Extents(self.network, list(edges), list(edges.values()), self.model.batch, training=self.model.training)
            self.tables[way] = Table(extents.stops, edges, extents, self.model.layers.sums(extents), {}) if edges else None
        return self.tables[way]

    def steps(self, start, way, before, stops):
        """The Steps from `start`, whose inputs are cut as `before` (None: there are none), to at least the given ends (a slice of the table's rows)."""
        known = self.found.get((start, way, before))
        if known is None or known[0].start > stops.start or known[0].stop < stops.stop:
            self.found[start, way, before] = known = stops, self.price(start, way, before, stops)
        return known[1]

    def price(self, start, way, before, rows):
        """Prices from the tables; nothing is asked rank by rank."""
        table, model = self.table(way), self.model
        if (start, rows.start, rows.stop) not in table.inputs:
            table.inputs[start, rows.start, rows.stop] = model.messages.inputs(table.extents, start, rows)
        entries = table.inputs[start, rows.start, rows.stop]
        sums = {part: values[rows, start] for part, values in table.sums.items()}
        enter = model.messages.enter(entries, sums['ahead'], sums['behind'], sums['pieces'], lambda source: self.owned(source, before))
        self.priced += len(entries[0].sizes)
        seconds = sum(sums[part] for part in INNER) + enter['forward'] + enter['backward'] + enter['exchange']
        held = sums['held'] + sum(each.sizes.max(1) for each in entries) * ITEM
        return Steps(table.stops[rows], seconds + 2 * model.machine.call, sums['backward'], sums['sums'], sums['again'], sums['tape'], held)

    def parted(self, way, start, parts):
        """(seconds that groups from `start` take more when every rank takes its tile in parts, again included; bytes of tape of a part): arrays over all
        stops of the way, infinite where a group cannot be taken so."""
        if (way, start, parts) not in self.parts:
            table, count = self.table(way), len(self.network)
            sums, rows = self.part_sums(way, parts)
            free = next((stop for stop in range(start + 1, count + 1) if obstacle(self.network, start, stop)), count + 1)
            more, tape = np.full(len(table.stops), np.inf), np.zeros(len(table.stops))
            if sums:
                possible = (table.stops[rows] > start) & (table.stops[rows] < free)
                whole = sum(table.sums[part][rows, start] for part in PASSES)
                more[rows] = np.where(possible, sum(sums[part][:, start] for part in (*PASSES, 'again') if part in sums) - whole, np.inf)
                tape[rows] = sums['tape'][:, start]
            self.parts[way, start, parts] = more, tape
        return self.parts[way, start, parts]

    def part_sums(self, way, parts):
        """(PartCosts' sums, rows of the way's table that they stand for)."""
        if (way, parts) not in self.parts:
            table = self.table(way)
            rows = [row for row, stop in enumerate(table.stops.tolist()) if fits(table.edges[stop], parts)]
            stops = table.stops[rows].tolist()
            found = PartCosts(self.model.layers, stops, [table.edges[stop] for stop in stops], self.model.batch, parts).sums if stops else None
            self.parts[way, parts] = found, rows
        return self.parts[way, parts]

    def inner(self, way, start, rows, mix):
        """Seconds of the layers inside groups from `start` to some ends; mix: see Mix."""
        sums = self.table(way).sums
        return mix.of(sum(sums[part][rows, start] for part in INNER), sums['backward'][rows, start], sums['sums'][rows, start])

    def owned(self, source, before):
        """Boxes of an earlier output: of the group just before as it is cut, of others as that way would cut them."""
        table = self.table(before)
        if source + 1 not in table.edges:
            table = self.table(WHOLE)
        return table.extents.one(table.extents.owned[source], source + 1)
