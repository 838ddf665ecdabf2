"""Plans that take turns: training steps of several contestants in one run, so that whatever else the machine does befalls all of them alike.

Only one is at work at a time: they share the memory of their tiles, and weights that are cut alike. Pictures and truths are random.
"""
import gc
import time
from dataclasses import dataclass
from statistics import median

import numpy as np

from . import comm
from .footprint import Footprint
from .memory import Pages
from .model import Model, holders
from .mute import Mute
from .network import PICTURE
from .plan import Plan
from .region import NOTHING
from .session import losses_of
from .watching import Stopwatch

STEPS = 2                   # of a turn; one rank takes one


@dataclass(frozen=True)
class Entry:
    """A plan for the first ranks of a run. everywhere: for all ranks, each by itself; mute: without messages."""
    plan: Plan
    everywhere: bool = False
    mute: bool = False


@dataclass(frozen=True)
class Figures:
    """Of a contestant's steps: medians of seconds, and of seconds waited for halos, in batch norm's sums, for sums of gradients, of sums of gradients under
    way, the worst rank's of each (of one rank alone: the first's); seconds of all ranks' processors; bytes of halos and of gradients on the rank with the most;
    operations of each rank. rounds: mean seconds of a step in each turn; each: seconds of a step on each rank that took such steps.
    """
    seconds: float
    halos: float
    norms: float
    sums: float
    reductions: float
    processor: float
    sent: tuple
    flops: tuple
    rounds: tuple
    each: tuple

    def to_json(self):
        """As they are; of the rounds, how many."""
        return {**self.__dict__, 'rounds': len(self.rounds)}


class Room:
    """What contestants of one network share on a rank: memory for tiles, as much as the largest of these entries needs, and weights by who holds what."""

    def __init__(self, world, network, entries, machine):
        sizes = [Footprint(network, entry.plan, machine).arena(0 if entry.everywhere else world.rank, True) for entry in entries
                 if world.rank < entry.plan.ranks or entry.everywhere]
        self.pages, self.weights = Pages(max(sizes, default=0)), {}

    def model(self, network, plan, comm, job):
        """A Model of this room; weights are only made where no other has such."""
        layouts = plan.layouts(network)
        shares = [[plan.share(network, layouts, group, rank) for rank in range(comm.size)] for group in plan.groups]
        key = type(comm), comm.size, tuple(holders(network, plan, shares).items())
        model = Model(network, plan, comm, overlap=job.overlap, losses=losses_of(network), deterministic=job.deterministic, halos=job.halos,
                      gradients=job.gradients, parameters=self.weights.get(key), pages=self.pages)
        if key not in self.weights:
            model.parameters.initialise(1)
            self.weights[key] = model.parameters
        return model


class Contestant:
    """The ranks of an entry with its plan. Building one is collective."""

    def __init__(self, world, network, entry, job, room):
        self.world, self.network, self.plan, self.turns = world, network, entry.plan, []
        ranks = self.plan.ranks
        self.takes_part, self.steps = world.rank < ranks or entry.everywhere, 1 if ranks == 1 else STEPS
        some = world.split(0 if self.takes_part else None) if ranks < world.size else world
        self.comm, self.meeting = comm.Alone() if ranks == 1 else Mute(some) if entry.mute and some else some, world if entry.everywhere else some
        if self.takes_part:
            self.model = room.model(network, self.plan, self.comm, job)
            shape = self.model.picture.shape
            self.picture = np.random.default_rng(self.comm.rank).random((shape[0], 1, shape[2], shape[3], shape[1]), np.float32)
            boxes = np.array([[0, .5, .5, .2, .3], [0, .3, .4, .1, .1]])
            self.truths = [0 if network.heads[-1].kind == 'softmax' else boxes for _ in range(self.plan.batch)]

    def turn(self, steps):
        """So many steps; the ranks beyond sleep. Where gradients of a step travel during the next one, a step before them does not count."""
        taken, first = [], self.plan.ranks > 1
        for _ in range(first + steps if self.takes_part else 0):
            self.meeting.barrier()
            taken.append(self.step())
        taken = taken[first:]
        if self.takes_part:
            self.model.optimizer.settle()
        self.turns.append(taken)
        self.world.rest()

    def step(self):
        """One step as in training: (seconds, waited for halos, in norms, for sums of gradients, sums under way, the processor's seconds)."""
        model, stopwatch, busy = self.model, Stopwatch(), time.process_time()
        value = model.forward(self.picture, self.truths, seen=1 << 20)
        model.backward()
        stopwatch.computed()
        self.comm.sum(np.array([value]), meanwhile=model.poll)
        stopwatch.summed(model.reduction.take_times()[0])
        batch = self.plan.batch
        model.optimizer.step(1e-6 / batch, .9, 5e-4 * batch)
        seconds, _, halos, norms, reductions, sums = stopwatch.read().values()
        return seconds, halos, norms, sums, reductions, time.process_time() - busy

    def figures(self):
        """The Figures of all turns but the first, on rank 0, else None (collective)."""
        mine = None
        if self.takes_part:
            turns = self.turns[1:] or self.turns
            middle = [median(column) for column in zip(*(step for turn in turns for step in turn))]
            means = [sum(step[0] for step in turn) / len(turn) for turn in turns]
            mine = middle, self.model.bytes_moved, self.model.reduction.bytes_sent, operations(self.network, self.plan, self.comm.rank), means
        gathered = self.world.gather(mine)
        if gathered is None:
            return None
        middles, halos, sums, flops, means = zip(*(g for g in gathered if g))
        columns, rounds = list(zip(*middles)), tuple(map(max, zip(*means)))
        if self.plan.ranks == 1:
            return Figures(*middles[0], (0, 0), flops[:1], rounds, columns[0])
        return Figures(*(max(column) for column in columns[:-1]), sum(columns[-1]), (max(halos), max(sums)), flops, rounds, columns[0])


def contest(world, network, entries, machine, job, seconds, least=1, ready=lambda: None, final=None):
    """{entry: Figures} on rank 0, else None (collective). All take turns A B C A B C … for about so many seconds, at least `least` times, after a first
    step of each that does not count; ready: called before it; final: a function of what was found when half of the time is over, on rank 0: the entries
    that go on."""
    room = Room(world, network, entries, machine)
    contestants = {entry: Contestant(world, network, entry, job, room) for entry in entries}
    ready()
    for contestant in contestants.values():
        contestant.turn(1)
    begun, going = time.perf_counter(), entries
    for share in (.5, 1) if final else (1,):
        turns = 0
        while world.broadcast(turns < least or time.perf_counter() - begun < share * seconds):
            for entry in going:
                contestants[entry].turn(contestants[entry].steps)
            turns += 1
        found = {entry: contestant.figures() for entry, contestant in contestants.items()}
        if share < 1:
            going = world.broadcast(final(found) if world.rank == 0 else None)
    del contestants, contestant, room
    gc.collect()                                    # models hold themselves: without this the next contest's memory comes on top
    return found if world.rank == 0 else None


def operations(network, plan, rank):
    """Floating-point operations of a rank's step: forward, and twice as many for what it differentiates (once where a layer reads the picture)."""
    layouts, total = plan.layouts(network), 0
    for group in plan.groups:
        share = plan.share(network, layouts, group, rank)
        for index in range(group.start, group.stop):
            layer = network.layers[index]
            again = group.recompute and index < group.last
            total += layer.flops(share.computed.get(index, NOTHING)) * (1 + again)
            total += layer.flops(share.differentiated.get(index, NOTHING)) * (1 if layer.inputs[0] == PICTURE else 2)
    return total
