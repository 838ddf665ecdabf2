"""Gradients summed over the ranks that share them, while the backward pass goes on, and the next forward pass after it.

Buckets in the order of the backward pass; a bucket is summed in pieces. Those whose sums are needed at about the same time make a lane, in which a
few pieces are under way at a time: what a late layer waits for does not stand before what an early one needs sooner. Nothing moves by itself:
whoever computes calls poll() between layers, and in the midst of long kernels. Everything is decided in the constructor.
"""
import time

import numpy as np

from .allreduce import LINE, Sum, by_host, room, stages

PART = 60 << 10             # bytes of a message: MPI sends up to 64 KiB without asking, and TCP moves such messages with the least work
PIECE = 1 << 19             # bytes that are summed at a time inside a host
SCRATCH = 9 << 17           # bytes of what others send, for a lane's pieces under way: what waits in a socket delays halos and norms behind it
SLOTS = 3, 6                # pieces of a lane under way: at least, or a link waits until somebody looks again; at most, or small messages wait on a slow one
TAGS = 16000                # of the first piece; exchanges count from 1
TURNS = 1000                # tags, an equal share for each lane: pieces of two lanes may start in another order on another rank


def piece_size(hosts, itemsize):
    """Numbers that are summed at a time."""
    if len(hosts) == 1:
        return PIECE // itemsize
    return PART // itemsize // LINE * LINE * len(hosts) * min(map(len, hosts))


class Lane:
    """Sums that go one after the other, as many at a time as there is scratch for. pieces: [(layer, Sum)] in backward order."""

    def __init__(self, count, size, dtype):
        slots = min(count, SLOTS[1], max(SLOTS[0], SCRATCH // max(1, size * dtype.itemsize))) or 1
        self.scratch, self.pieces = np.empty((slots, size), dtype), []
        self.ready = self.begun = 0             # pieces whose gradients are complete, and that were started
        self.active = []                        # (number, Sum) under way, oldest first

    @property
    def open(self):
        """Whether any sum of this step is not complete."""
        return self.active or self.begun < self.ready

    def add(self, layer, comm, way, array, tag, half):
        """One more piece, behind the others."""
        self.pieces.append((layer, Sum(comm, way, array, self.scratch[len(self.pieces) % len(self.scratch)], tag, half)))

    def complete(self, layer):
        """The gradients of `layer` and of those behind it are there."""
        while self.ready < len(self.pieces) and self.pieces[self.ready][0] >= layer:
            self.ready += 1

    def begin(self):
        """Start what is complete, as far as there is room."""
        while self.begun < self.ready and (not self.active or self.begun - self.active[0][0] < len(self.scratch)):
            piece = self.pieces[self.begun][1]
            piece.start()
            self.active.append((self.begun, piece))
            self.begun += 1

    def advance(self):
        """Go on with what is under way. Messages arrive in the order of pieces: where one waits, those behind it in the same round need not be asked."""
        waiting, left = set(), []
        for number, piece in self.active:
            if (piece.comm, piece.at) in waiting or not piece.advance():
                waiting.add((piece.comm, piece.at))
                left.append((number, piece))
        self.active = left


class Reduction:
    """Sums of slices of the flat `grads`. buckets: [(layer, first, last, comm)] in backward order, complete once `layer` is differentiated.

    lanes: {layer: the lane of a bucket that is complete with it}, 0 is needed first; deterministic: add in the order of ranks wherever they run, so that
    the bits do not depend on their hosts; half: see allreduce.
    """

    def __init__(self, grads, buckets, deterministic=False, half=False, lanes=None):
        shared = [bucket for bucket in buckets if bucket[3].size > 1]
        ways = {comm: by_host(comm, deterministic) for *_, comm in shared}
        found = {comm: (stages(hosts, comm.rank), piece_size(hosts, grads.itemsize)) for comm, hosts in ways.items()}
        size = max((room(*way) for way in found.values()), default=0)
        pieces, numbers = [[] for _ in range(1 + max((lanes or {0: 0}).values()))], {}
        turns = TURNS // len(pieces)
        for layer, first, last, comm in shared:
            way, step = found[comm]
            for start in range(first, last, step):
                lane = lanes[layer] if lanes else 0
                number = numbers[comm, lane] = numbers.get((comm, lane), -1) + 1
                tag = TAGS + (lane * turns + number % turns) * 8
                pieces[lane].append((layer, comm, way, grads[start:min(last, start + step)], tag, half))
        self.lanes = [Lane(len(own), size, grads.dtype) for own in pieces]
        for lane, own in zip(self.lanes, pieces):
            for piece in own:
                lane.add(*piece)
        self.seconds = self.waited = 0.0
        self.since = None

    @property
    def bytes_sent(self):
        """What this rank sends for all sums of a step."""
        return sum(piece.bytes_sent for lane in self.lanes for _, piece in lane.pieces)

    def start_after(self, layer):
        """Begin what is complete once `layer` has been differentiated, as far as there is room; does not wait."""
        for lane in self.lanes:
            lane.complete(layer)
        self.poll()

    def poll(self):
        """Let the sums under way progress."""
        under_way = False
        for lane in self.lanes:
            if lane.active:
                lane.advance()
            if lane.begun < lane.ready:
                lane.begin()
            under_way = under_way or bool(lane.active)
        if under_way and self.since is None:
            self.since = time.perf_counter()
        elif not under_way and self.since is not None:
            self.seconds += time.perf_counter() - self.since
            self.since = None

    def wait(self, count=None):
        """Until all sums begun in this step are complete, or those of the first `count` lanes."""
        lanes = self.lanes[:count]
        if any(lane.open for lane in lanes):
            asked = time.perf_counter()
            for lane in lanes:
                self.poll()
                while lane.open:
                    lane.active[0][1].advance(block=True)
                    self.poll()
            self.waited += time.perf_counter() - asked
        for lane in lanes:
            lane.ready = lane.begun = 0

    def take_times(self):
        """(seconds in which sums were under way, seconds of these spent waiting for them) since the last call."""
        taken = self.seconds, self.waited
        self.seconds = self.waited = 0.0
        return taken
