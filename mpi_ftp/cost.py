"""What a plan costs: seconds of a step from Regions and a Machine alone, part by part.

The step is a chain of stages, each as long as its slowest rank needs: layers of a group (batch norm and halos let no rank run ahead),
exchanges where they are not hidden, sums of gradients as far as they outlast the backward pass and what runs of the next forward pass before they are needed.
"""
from dataclasses import dataclass
from math import prod

from .buffers import sources_of
from .extents import Extents
from .footprint import Course
from .layer_cost import ITEM, LayerCosts
from .message_cost import MessageCosts
from .network import PICTURE
from .optimizer import LANES, lanes
from .part_cost import PartCosts

BUCKET = 1 << 20            # bytes of gradient summed at a time
PARTS = 'forward', 'backward', 'recompute', 'exchange', 'norm_sums', 'gradient_sums', 'optimizer', 'input'


@dataclass(frozen=True)
class Price:
    """Seconds of a step: in all, by part, and by group (a dict of parts for each, with the bytes that the busiest rank receives)."""
    seconds: float
    parts: dict
    groups: list

    def to_json(self):
        return {'seconds': self.seconds, 'parts': self.parts, 'groups': self.groups}


def at_work(plan):
    """How many ranks have a tile of some group."""
    return max(prod(len(edges) - 1 for edges in group.edges) for group in plan.groups)


class CostModel:
    """Prices plans for one network, batch and number of ranks on a Machine. training: not only a forward pass;
    course: see footprint.py; order: that of its plans; idle: ranks that get no tile: those at work are the first in that order. `machine` is of these, by tile,
    `everyone` of all. A plan that leaves others idle is priced by the model of those that it leaves at work.
    """

    def __init__(self, network, machine, batch, ranks, training=True, course=Course(), order=(), idle=0):
        self.everyone, self.workers = machine.placed(ranks), ranks - idle
        self.machine = self.everyone.among((order or range(ranks))[:self.workers])
        self.network, self.batch, self.ranks, self.training, self.order = network, batch, ranks, training, order
        self.layers = LayerCosts(network, self.machine, self.workers, course.frozen, training)
        self.messages = MessageCosts(network, self.machine, batch, self.layers.pace, training)
        self.course, self.extents, self.rows, self.lanes, self.others = course, {}, {}, lanes(network), {self.workers: self}

    def among(self, workers):
        """The model of plans that leave so many ranks at work."""
        if workers not in self.others:
            self.others[workers] = CostModel(self.network, self.everyone, self.batch, self.ranks, self.training, self.course, self.order,
                                             self.ranks - workers)
        return self.others[workers]

    def price(self, plan):
        """The Price of a step of a Plan."""
        workers = at_work(plan)
        if workers != self.workers:
            return self.among(workers).price(plan)
        made = {index: group for group in plan.groups for index in range(group.start, group.stop)}
        rows = []
        for group in plan.groups:
            makers = tuple(made[s] for s in sources_of(self.network, group.start, group.stop) if s != PICTURE)
            if (group, makers) not in self.rows:
                self.rows[group, makers] = self.row(group, made)
            rows.append(self.rows[group, makers])
        tail = {**(self.after(plan, rows) if self.training else {}), 'input': self.input()}
        parts = {part: sum(row.get(part, 0.0) for row in rows) + tail.get(part, 0.0) for part in PARTS}
        return Price(sum(parts.values()), parts, rows)

    def input(self):
        """Seconds that preparing the next pictures takes from computing: none where a host has a core to spare for it."""
        machine, (_, h, w) = self.machine, self.network.shape
        if machine.crowd * machine.threads < machine.cores:
            return 0.0
        return self.batch * h * w * machine.crowd / self.workers * machine.picture / machine.cores

    def extent(self, group):
        """(Extents, sums of layers) of one group."""
        key = group.start, group.stop, group.edges, group.cuts
        if key not in self.extents:
            extents = Extents(self.network, [group.stop], [group.edges], self.batch, group.cuts, group.start, self.training)
            self.extents[key] = extents, self.layers.sums(extents)
        return self.extents[key]

    def parts(self, group):
        """Sums of a group that is taken in parts."""
        key = group.start, group.stop, group.edges, group.parts
        if key not in self.extents:
            self.extents[key] = PartCosts(self.layers, [group.stop], [group.edges], self.batch, group.parts, group.start).sums
        return self.extents[key]

    def row(self, group, made):
        """Seconds of one group by part. made: {tensor: group that makes it}."""
        (extents, sums), start = self.extent(group), group.start
        row = {part: float(sums[part][0, start]) for part in ('forward', 'backward', 'norm_sums')}
        row['recompute'] = float(sums['again'][0, start]) if group.recompute else 0.0
        if group.parted:
            parts = self.parts(group)
            row.update(forward=float(parts['forward'][0, start]))
            if self.training:
                row.update(backward=float(parts['backward'][0, start]), recompute=float(parts['again'][0, start]))
        entries = self.messages.inputs(extents, start, slice(0, 1))
        aside = (sums[part][:, start] for part in ('ahead', 'behind', 'pieces'))
        enter = self.messages.enter(entries, *aside, lambda source: self.extent(made[source])[0].owned[source])
        for part in ('forward', 'backward'):
            row[part] += float(enter[part][0])
        row['exchange'] = float(enter['exchange'][0]) + sum(float(self.messages.cut(extents, cut)[0]) for cut in group.cuts if start <= cut < group.last)
        begins = group.early and not group.parted
        row['exchange'] += abs(float(enter['early'][0])) * (begins != (enter['early'][0] >= 0))
        return {**row, **{part: float(enter[part][0]) for part in ('early', 'back')}, **{part: int(enter[part][0]) for part in ('halo_bytes', 'messages')}}

    def after(self, plan, rows):
        """{part: seconds} of what is left when the backward pass ends: sums of gradients that the next forward pass waits for (on one host they take the
        cores' time), and the optimizer. What brings gradients back to other groups takes its time on the links, too."""
        clock, free, took, waiting, total, sent = 0.0, 0.0, [0.0] * LANES, 0, 0, 0.0
        weighted = [layer.index for layer in self.network.layers if layer.tensors]
        for group, row in zip(reversed(plan.groups), reversed(rows)):
            extents = self.extent(group)[0]
            each = (row['backward'] + row['recompute'] + row['exchange'] / 2 + row['norm_sums'] / 2) / (group.stop - group.start)
            for index in reversed(range(group.start, group.stop)):
                clock += each
                if self.network.layers[index].tensors:
                    count, ranks = self.layers.held_weights(extents, self.network.layers[index])
                    total, waiting = total + float(count[0]), waiting + float(count[0]) * ITEM
                    sent += 2 * (1 - 1 / float(ranks[0])) * float(count[0]) * ITEM * self.machine.gradients
                    if waiting >= BUCKET or index == weighted[0]:
                        seconds = self.machine.sum_seconds(waiting * self.machine.gradients, int(ranks[0]))
                        free, waiting = max(free, clock) + seconds, 0
                        took[self.lanes[index]] += seconds
            free = max(free, clock) + row['back']
        busy, exposed = sum(took), self.exposed(plan, rows, took, free - clock)
        labour = sent * self.machine.labour * self.layers.pace.max() * max(0.0, 1 - exposed / busy) if busy else 0.0        # of what computing hides
        return {'gradient_sums': busy if self.layers.one_host else exposed + labour, 'optimizer': float(self.layers.update(total))}

    def exposed(self, plan, rows, took, left):
        """Seconds that the next forward pass waits for sums of gradients, which take `left` when it begins. took: seconds of each lane's sums; what is left is of
        the first lanes, which begin last, and goes on in the order in which it is needed, as do the halos of groups."""
        clock, done, lane, waited = 0.0, 0.0, 0, 0.0
        for group, row in zip(plan.groups, rows):
            while lane <= self.lanes[group.last]:
                part = max(0.0, min(took[lane], left))
                done, left, lane = done + part, left - part, lane + 1
            if done > clock:
                waited, clock = waited + done - clock, done
            clock += row['forward'] + (row['exchange'] + row['norm_sums']) / 2
            done += row['back']
        return waited
