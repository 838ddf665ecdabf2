"""Gradients summed over the ranks that share them, while the backward pass goes on.

Buckets in the order of the backward pass; a bucket is summed in pieces, a few of which are under way at a time. Nothing moves by itself:
whoever computes calls poll() between layers. Everything is decided in the constructor.
"""
import time

import numpy as np

from .allreduce import LINE, Sum, by_host, room, stages

PART = 60 << 10             # bytes of a message: MPI sends up to 64 KiB without asking, and TCP moves such messages with the least work
PIECE = 1 << 19             # bytes that are summed at a time inside a host
SCRATCH = 3 << 20           # bytes of what others send, for the pieces under way: what waits in a socket delays halos and norms behind it
SLOTS = 8, 32               # pieces under way: at least, at most; what a link does until somebody looks again must not be less
TAGS = 16000                # of the first piece; exchanges count from 1
TURNS = 1000                # pieces before a tag comes back


def piece_size(hosts, itemsize):
    """Numbers that are summed at a time."""
    if len(hosts) == 1:
        return PIECE // itemsize
    return PART // itemsize // LINE * LINE * len(hosts) * min(map(len, hosts))


class Reduction:
    """Sums of slices of the flat `grads`. buckets: [(layer, first, last, comm)] in backward order, complete once `layer` is differentiated.

    deterministic: add in the order of ranks wherever they run, so that the bits do not depend on their hosts; half: see allreduce.
    """

    def __init__(self, grads, buckets, deterministic=False, half=False):
        self.pieces, numbers = [], {}
        shared = [bucket for bucket in buckets if bucket[3].size > 1]
        ways = {comm: by_host(comm, deterministic) for *_, comm in shared}
        found = {comm: (stages(hosts, comm.rank), piece_size(hosts, grads.itemsize)) for comm, hosts in ways.items()}
        size = max((room(*way) for way in found.values()), default=0)
        self.scratch = np.empty((min(SLOTS[1], max(SLOTS[0], SCRATCH // max(1, size * grads.itemsize))), size), grads.dtype)
        for layer, first, last, comm in shared:
            way, size = found[comm]
            for start in range(first, last, size):
                number = numbers[comm] = numbers.get(comm, -1) + 1
                scratch, tag = self.scratch[len(self.pieces) % len(self.scratch)], TAGS + number % TURNS * 8
                self.pieces.append((layer, Sum(comm, way, grads[start:min(last, start + size)], scratch, tag, half)))
        self.ready = self.begun = 0             # pieces whose gradients are complete, and that were started
        self.active = []                        # (number, Sum) under way, oldest first
        self.seconds = self.waited = 0.0
        self.since = None

    @property
    def bytes_sent(self):
        """What this rank sends for all sums of a step."""
        return sum(piece.bytes_sent for _, piece in self.pieces)

    def start_after(self, layer):
        """Begin what is complete once `layer` has been differentiated, as far as there is room; does not wait."""
        while self.ready < len(self.pieces) and self.pieces[self.ready][0] >= layer:
            self.ready += 1
        self.poll()

    def poll(self):
        """Let the sums under way progress."""
        self._advance()
        self._begin()

    def _begin(self):
        while self.begun < self.ready and (not self.active or self.begun - self.active[0][0] < len(self.scratch)):
            if not self.active and self.since is None:
                self.since = time.perf_counter()
            piece = self.pieces[self.begun][1]
            piece.start()
            self.active.append((self.begun, piece))
            self.begun += 1

    def _advance(self):
        if self.active:
            self.active = [(number, piece) for number, piece in self.active if not piece.advance()]
            if not self.active:
                self.seconds += time.perf_counter() - self.since
                self.since = None

    def wait(self):
        """Until all sums begun in this step are complete."""
        if self.active or self.begun < self.ready:
            asked = time.perf_counter()
            self._begin()
            while self.active:
                self.active[0][1].advance(block=True)
                self.poll()
            self.waited += time.perf_counter() - asked
        self.ready = self.begun = 0

    def take_times(self):
        """(seconds in which sums were under way, seconds of these spent waiting for them) since the last call."""
        taken = self.seconds, self.waited
        self.seconds = self.waited = 0.0
        return taken
