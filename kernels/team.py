"""Threads that wait for work without sleeping at once: a pass lasts some hundred microseconds, and waking a thread takes fifty.

A member that has nothing to do looks at a counter for SPINS rounds, without holding the GIL, and only then sleeps; so does
the caller that waits for its members. Spinning pays only while every thread has a core of its own: a member that finds
itself on the core of a thread before it moves on, for the system may leave two on one for half a second.
"""
import atexit
import ctypes
import functools
import os
import threading

import numpy as np
from .jit import Native, instructions
from .simd import INT

SPINS = 3000            # rounds of about 15 ns
LINE = 8                # 64-bit integers of a cache line: each thread's counters have one of their own


def emit_meet(e, own, value, other, wanted, spins, seen):
    """Set *own = value, then read *other until it is `wanted` or `spins` rounds have passed; *seen = what was read."""
    b = e.b
    own, other, seen = (b.inttoptr(each, INT.as_pointer()) for each in (own, other, seen))
    b.store_atomic(value, own, 'release', 8)

    def read():
        return b.load_atomic(other, 'acquire', 8)
    head, wait, end = (b.append_basic_block(name) for name in ('head', 'wait', 'end'))
    before = b.block
    b.branch(head)
    b.position_at_end(head)
    left = b.phi(INT)
    left.add_incoming(spins, before)
    found = read()
    b.cbranch(b.or_(b.icmp_signed('==', found, wanted), b.icmp_signed('<=', left, INT(0))), end, wait)
    b.position_at_end(wait)
    e.pause()
    left.add_incoming(b.sub(left, INT(1)), wait)
    b.branch(head)
    b.position_at_end(end)
    b.store(found, seen)


_meet = instructions(emit_meet)


@Native
def meet(own, value, other, wanted, spins, seen):
    _meet((own, value, other, wanted, spins, seen))


@functools.cache
def _function():
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)(meet.address)      # releases the GIL while it runs


@functools.cache
def _core():
    """The function that tells the calling thread's core; one that says -1 where the system does not tell."""
    try:
        return ctypes.PyDLL(None).sched_getcpu
    except (AttributeError, OSError):
        return lambda: -1


class Counter:
    """An integer on a cache line of its own, and the place for what a look at another one saw."""

    def __init__(self):
        self.memory = np.zeros(3 * LINE, np.int64)
        start = -self.memory.ctypes.data // 8 % LINE
        self.line = self.memory[start:start + 2 * LINE]
        self.at = self.line.ctypes.data
        self.seen_at = self.at + 8 * LINE

    def meet(self, value, other, wanted, spins):
        """Become `value`, then spin until `other` is `wanted`; whether it came to be."""
        _function()(self.at, value, other.at, wanted, spins, self.seen_at)
        return self.line[LINE] == wanted


class Member:
    """One thread of a team. Job number `turn` is there when `posted` is; it is done when `done` is."""

    def __init__(self, team, place):
        self.place = place              # among the threads of the team, whose caller is at 0
        self.team, self.turn, self.job, self.error = team, 0, None, None
        self.posted, self.done = Counter(), Counter()
        self.finished, self.asleep = 0, False
        self.bed = threading.Lock()
        self.bed.acquire()
        self.thread = threading.Thread(target=self.live, name=f'kernel_{place}', daemon=True)
        self.thread.start()

    def post(self, job):
        """Hand over job (function, first, last), or None to end the thread."""
        with self.team.guard:
            self.turn += 1
            self.job, self.error = job, None
            self.posted.line[0] = self.turn
            if self.asleep:
                self.asleep = False
                self.bed.release()

    def live(self):
        turn = 0
        while True:
            if not self.done.meet(turn, self.posted, turn + 1, self.team.spins):
                self.sleep(turn)
            turn += 1
            if self.job is None:
                return
            work, first, last = self.job
            try:
                if self.team.spins:
                    self.part()
                work(first, last)
            except BaseException as error:              # raised again by the caller
                self.error = error
            self.job = work = None                      # what it holds on to is the caller's
            with self.team.guard:
                self.finished = turn
                if self.team.asleep is self:
                    self.team.asleep = None
                    self.team.bed.release()

    def part(self):
        """Leave a core that a thread before this one works on, if there is another."""
        cores = self.team.cores
        cores[self.place] = core = _core()()
        if core >= 0 and core in cores[:self.place]:
            all_ = os.sched_getaffinity(0)
            if others := all_.difference(cores[:self.place]):
                os.sched_setaffinity(0, others)         # of this thread; it is moved at once
                os.sched_setaffinity(0, all_)
                cores[self.place] = _core()()

    def sleep(self, turn):
        with self.team.guard:
            self.asleep = wait = bool(self.posted.line[0] == turn)
        if wait:                                        # not self.asleep: whoever posts meanwhile has taken that back, and woken
            self.bed.acquire()


class Team:
    """`count` threads beside the caller's."""

    def __init__(self, count, spins=SPINS):
        self.spins, self.guard, self.bed, self.asleep = spins, threading.Lock(), threading.Lock(), None
        self.bed.acquire()
        self.free, self.look = threading.Lock(), Counter()
        self.cores = [-1] * (count + 1)
        self.members = [Member(self, place) for place in range(1, count + 1)]
        atexit.register(self.close)                     # before the interpreter that they call goes

    def run(self, work, cuts):
        """work(cuts[0], cuts[1]) here while members do the others. Raises what any of them raised."""
        if not self.free.acquire(blocking=False):       # called by another thread, or by a member: no second team
            work(cuts[0], cuts[-1])
            return
        try:
            called = self.members[:len(cuts) - 2]
            self.cores[0] = _core()()
            try:
                for member, first, last in zip(called, cuts[1:], cuts[2:]):
                    member.post((work, first, last))
                work(cuts[0], cuts[1])
            finally:
                self.join(called)
        finally:
            self.free.release()
        for member in called:
            if member.error:
                raise member.error

    def join(self, members):
        """Wait until they are done; what the handler of a signal raises meanwhile is raised then, for nobody else may have what they work on."""
        raised = None
        while True:
            try:
                for member in members:
                    self.wait(member)
                break
            except BaseException as error:
                raised = error
        if raised:
            raise raised

    def wait(self, member):
        if self.look.meet(0, member.done, member.turn, self.spins):
            return
        with self.guard:
            wait = member.finished != member.turn
            self.asleep = member if wait else None
            self.bed.acquire(blocking=False)            # woken when nobody waited any more: a wait that was broken off
        if wait:
            self.bed.acquire()

    def leave(self):
        """The threads are another process's."""
        atexit.unregister(self.close)

    def close(self):
        atexit.unregister(self.close)
        for member in self.members:
            member.post(None)
        for member in self.members:
            member.thread.join()
