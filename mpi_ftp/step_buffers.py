"""Every group's buffers on one rank, whether it takes its tile as a whole or in parts."""
from .buffers import Clock, GroupBuffers, sources_of
from .geometry import exported, whole
from .memory import Buffer
from .network import PICTURE
from .region import NOTHING
from .subtiles import part_shares


class PartBuffers(GroupBuffers):
    """Scratch of one part: what only lives while the part is at work. Gradients that come from elsewhere are copied in first, those of the
    group's inputs are added to."""

    def __init__(self, outside, *about):
        self.outside = outside
        super().__init__(*about)

    def export_arrival(self, index):
        return self.clock.backward[self.group.last]

    def read_outside(self, source):
        return source < self.group.start or super().read_outside(source)


class PartedBuffers(GroupBuffers):
    """Whole tiles of a group's inputs, of what others read, and of the gradients of both; one scratch, as large as the largest part needs.

    `parts`: the PartBuffers of each. A whole tile lives as long as parts come and go: over all events of the group.
    """

    def __init__(self, network, group, share, clock, dtype, training, aliased, export_end, direct, shares):
        super().__init__(network, group, share, clock, dtype, training, aliased, export_end, direct)
        self.exports = [index for index in self.layers if exported(network, group.stop, index)]
        self.last_only = [index for index in self.exports if not self.readers(index)]
        outside = frozenset([('y', index, 0) for index in self.exports] + [('d', index) for index in self.last_only]
                            + [('d', group.start, source) for source in self.sources])
        self.parts = [PartBuffers(outside, network, group, part, clock, dtype, training, self.sources, {}) for part in shares]

    def declare(self):
        scratch = {}
        for part in self.parts:
            for buffer in part.declare():
                other = scratch.get(buffer.key, buffer)
                scratch[buffer.key] = Buffer(buffer.key, max(buffer.nbytes, other.nbytes), min(buffer.first, other.first), max(buffer.last, other.last))
        whole = []

        def add(key, index, region, first, last):
            self.regions[key] = (index, region)
            whole.append(Buffer(key, self.nbytes(index, region), first, last))

        self._declare_whole(add)
        return [*scratch.values(), *whole]

    def _declare_whole(self, add):
        start, last, share = self.group.start, self.group.last, self.share
        begun, done = self.clock.forward[start], self.clock.forward[last]
        again, end = (self.clock.again[start], self.clock.backward[start]) if self.training else (0, done)
        for source in self.sources:
            if source not in self.aliased:
                add(('in', start, source), source, share.held[source], begun, end)
            if self.training and source != PICTURE and source not in self.direct:
                add(('d', start, source), source, share.gradient[source], again, end)
        for index in self.exports:
            add(('y', index, 0), index, share.held[index], begun, max(done, self.export_end.get(index, 0)))
            if self.training:
                add(('dy', index), index, share.owned[index], min(again, self.export_arrival(index)), end)


def group_buffers(network, plan, layouts, shares, rank, dtype, training, parts_of=part_shares):
    """Every group's GroupBuffers on one rank; a source whose owned layout is what the group holds, on all ranks, is read in place.

    shares: for each group, every rank's Share; parts_of: gives those of a rank's parts. The run and the planner's memory predictor both ask here.
    """
    clock, ends, found = Clock.of(plan, training), {}, []
    for group, held in zip(plan.groups, shares):
        aliased = []
        for source in sources_of(network, group.start, group.stop):
            readers = [r for r in network.readers[source] if group.start <= r < group.stop]
            end = clock.forward[group.start]
            if source >= 0 and all(s.held[source] == owned for s, owned in zip(held, layouts[source])):
                aliased.append(source)
                end = clock.backward[group.start] if training else clock.forward[group.last] if group.parted else max(clock.forward[r] for r in readers)
            ends[source] = max(ends.get(source, 0), end)
        found.append((group, held[rank], aliased))
    for layer in network.layers:
        if not network.readers[layer.index]:
            ends[layer.index] = clock.end_of_forward
    made = []
    for (group, share, aliased), held in zip(found, shares):
        direct = directly(network, plan, group, layouts, held, rank) if training else ()
        about = network, group, share, clock, dtype, training, aliased, ends, direct
        made.append(PartedBuffers(*about, parts_of(network, group, layouts, rank, training)) if group.parted else GroupBuffers(*about))
    for reader in made:
        for source in reader.sources:
            if source != PICTURE:
                settle_inside(reader, source, next(home for home in made if source in home.layers), layouts[source][rank])
    return made


def settle_inside(reader, source, home, owned):
    """Let what a group gives, and the gradient of it, be a part of the tile with halos in which another group reads it: nothing is copied from one to the other."""
    if owned.empty or home.group.parted or reader.group.parted:
        return
    key, place = ('y', source, 0), ('in', reader.group.start, source)
    if source not in reader.aliased and key not in home.inside and home.share.held[source] in reader.share.held[source]:
        home.inside[key] = reader, place
    others = [r for r in home.network.readers[source] if r not in home.layers and r not in reader.layers]
    back = reader.share.gradient.get(source, NOTHING)
    if reader.training and source not in reader.direct and not others and home.share.gradient[source] == owned and owned in back:
        home.inside['d', source] = reader, ('d', reader.group.start, source)


def directly(network, plan, group, layouts, shares, rank):
    """Sources of a group whose gradient no message brings back, on this rank, and which no other group reads."""
    found = []
    for source in sources_of(network, group.start, group.stop):
        if source == PICTURE:
            continue
        home = next(g for g in plan.groups if g.start <= source < g.stop)
        alone = all(r < home.stop or group.start <= r < group.stop for r in network.readers[source])
        owned, mine = layouts[source][rank], shares[rank]
        stays = mine.gradient.get(source, NOTHING) in owned and mine.held[source] & whole(network, source, mine.held[source]) in owned
        if alone and stays and all((s.held.get(source, NOTHING) & owned).empty for q, s in enumerate(shares) if q != rank):
            found.append(source)
    return found
