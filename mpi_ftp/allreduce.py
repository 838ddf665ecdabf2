"""The sum of one flat array over the ranks of a communicator, in steps that wait for messages: first inside each host, then between hosts.

A hop is a reduce-scatter and its all-gather by direct messages: every owner receives its part from all others, adds them in the order of
ranks, and later sends the total back. It carries as many bytes as a ring and needs two rounds instead of 2 (p - 1): each round waits for
somebody to call MPI. The order of adding does not depend on timing.

    host A: ranks 0 1     hop 1: parts to the leaders of the host     hop 2: parts of these to their peers on other hosts
    host B: ranks 2 3            0 <-> 1,  2 <-> 3                            0 <-> 2,  1 <-> 3,  and all the way back

A host has as many leaders as the host with the fewest ranks. Knows ranks and hosts, not what is summed.
"""
from dataclasses import dataclass
from functools import partial

import numpy as np

from . import kernels
from .kernels.prepared import one_by_one
from .region import balanced

LINE = 16                   # numbers: parts begin at whole cache lines


def by_host(comm, flat=False):
    """Tuples of the ranks of each host; all ranks in one tuple where `flat`: a sum in the order of ranks, wherever they run."""
    hosts = {}
    for rank in range(comm.size):
        hosts.setdefault(None if flat else comm.host_names[rank], []).append(rank)
    return tuple(map(tuple, hosts.values()))


@dataclass(frozen=True)
class Stage:
    """The ranks that meet in a hop; how many of them, the first ones, own a part; whether no larger one follows anywhere."""
    members: tuple
    owners: int
    outermost: bool


def stages(hosts, rank):
    """The hops that a rank takes part in, in order."""
    mine = next(host for host in hosts if rank in host)
    leaders = min(map(len, hosts))
    found = [Stage(mine, leaders, len(hosts) == 1)] if len(mine) > 1 else []
    place = mine.index(rank)
    if len(hosts) > 1 and place < leaders:
        found.append(Stage(tuple(host[place] for host in hosts), len(hosts), True))
    return found


class Hop:
    """One stage for the array[first:last] of this rank. scratch: flat room for what the others send."""

    def __init__(self, comm, stage, array, scratch, tag):
        count = len(stage.members)
        edges = balanced(array.size, stage.owners, LINE) + (array.size,) * (count - stage.owners)
        self.parts = [array[a:b] for a, b in zip(edges, edges[1:])]
        me = self.place = stage.members.index(comm.rank)
        self.mine = self.parts[me]
        others = [(i + me) % count for i in range(1, count)]       # nobody is everyone's first
        send, into, total = self._buffers(scratch, others)
        self.add = self._adding()               # this rank's part = the sum of all members', in their order

        def addressed(buffers):
            return [(stage.members[i], buffers[i]) for i in others if i in buffers]

        self.collect = comm.messages(addressed(send), addressed(into), tag)
        self.share = comm.messages(addressed(total), addressed(send), tag + 1)     # others' totals arrive where parts left from

    def _buffers(self, scratch, others):
        """{member: what it is sent}, {member: where its part arrives}, {member: the total for it}; nothing where a part is empty."""
        size = self.mine.size
        self.terms = {i: scratch[k * size:(k + 1) * size] for k, i in enumerate(sorted(others))} if size else {}
        return {i: self.parts[i] for i in others if self.parts[i].size}, self.terms, dict.fromkeys(self.terms, self.mine)

    def start_collect(self):
        self.collect.start()

    def _adding(self):
        """The call that adds what has arrived."""
        mine, terms = as_map(self.mine), [as_map(self.terms[i]) for i in sorted(self.terms)]
        before, after = terms[:self.place], terms[self.place:]
        return kernels.move.ready(*((before[0], term, True) for term in before[1:]), *((mine, term, True) for term in before[:1] + after))

    def start_share(self):
        self.share.start()

    def finish_share(self):
        """Totals lie in their places already."""


class HalfHop(Hop):
    """A hop whose messages are half as large; what rounding took away is added to the same part of the next sum."""

    def _buffers(self, scratch, others):
        self.out = {i: kernels.message(part.size) for i, part in enumerate(self.parts) if part.size}
        self.terms = {i: kernels.message(self.mine.size) for i in others if self.mine.size}
        self.narrows = {i: kernels.narrow_with_error.ready(message, self.parts[i], np.zeros_like(self.parts[i])) for i, message in self.out.items()}
        self.widens = [kernels.widen.ready(as_map(self.parts[i]), message) for i, message in self.out.items()]
        return self.out, self.terms, {i: self.out[self.place] for i in self.terms}

    def start_collect(self):
        for i, narrow in self.narrows.items():
            if i != self.place:
                narrow()
        self.collect.start()

    def _adding(self):
        return partial(one_by_one, [kernels.widen.ready(as_map(self.mine), self.terms[i], add=True) for i in sorted(self.terms)])

    def start_share(self):
        if self.place in self.out:
            self.narrows[self.place]()
        self.share.start()

    def finish_share(self):
        for widen in self.widens:                                # its owner, too, goes on with what the others can know
            widen()


def as_map(flat):
    """A flat array as the map that kernels take."""
    return flat.reshape(1, 1, 1, flat.size, 1)


def room(found, size):
    """Numbers of scratch that a rank's hops need for an array of `size`, one hop after the other."""
    most = 0
    for stage in found:
        part = -(-size // stage.owners // LINE) * LINE + LINE
        most, size = max(most, (len(stage.members) - 1) * part), part
    return most


class Sum:
    """An array's sum over a communicator, one round of messages after the other: start(), then advance() until it says True.

    half: between hosts (inside the host where there is one) messages are half-precision.
    """

    def __init__(self, comm, found, array, scratch, tag, half=False):
        self.hops, self.comm = [], comm
        for stage in found:
            hop = (HalfHop if half and stage.outermost else Hop)(comm, stage, array, scratch, tag + 2 * stage.outermost)
            array = hop.mine
            self.hops.append(hop)
        self.rounds = [(hop.start_collect, hop.collect, hop.add) for hop in self.hops] + \
                      [(hop.start_share, hop.share, hop.finish_share) for hop in reversed(self.hops)]
        self.at = 0

    @property
    def bytes_sent(self):
        return sum(messages.bytes_sent for _, messages, _ in self.rounds)

    def start(self):
        self.at = 0
        self.rounds[0][0]()

    def advance(self, block=False):
        """Go on as far as the messages that have arrived allow, at least one round with `block`; whether the sum is complete."""
        while self.at < len(self.rounds):
            _, messages, finish = self.rounds[self.at]
            if block:
                messages.wait(kind='gradients')
            elif not messages.poll():
                return False
            finish()
            self.at, block = self.at + 1, False
            if self.at < len(self.rounds):
                self.rounds[self.at][0]()
        return True
