"""How a rank waits for messages: as MPI does where every rank has a core of its own, else with pauses. Works on requests; comm.py makes them."""
import os
import threading
import time
from contextlib import suppress

# Seconds that this process has waited for others so far: for prepared messages, in small sums, and for gradients to be added.
waited = {'messages': 0.0, 'sums': 0.0, 'gradients': 0.0}
HASTE = 3e-5                # seconds of asking without a pause
PAUSES = 2e-5, 5e-4         # seconds between two questions, at first and at most


def do_nothing():
    """There is nothing to wait for, or nothing to do meanwhile."""


def until(done, meanwhile=do_nothing):
    """Ask until done(): MPI's own waiting never sleeps, so that it takes the core, or a container's share of it, from those who compute. meanwhile: what
    else a rank looks after, called before each pause; it must not wait itself."""
    begun, pause = time.perf_counter(), PAUSES[0]
    while not done():
        if time.perf_counter() - begun > HASTE:
            meanwhile()
            time.sleep(pause)
            pause = min(1.2 * pause, PAUSES[1])


def exact_pauses():
    """Ask Linux to end a pause of microseconds on time: by default it may add 50."""
    import ctypes
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(29, 1000, 0, 0, 0)          # PR_SET_TIMERSLACK, nanoseconds


def cores():
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class Messages:
    """Persistent requests, started together and completed together. Keeps its buffers alive. left: how many are not known to be complete: the first ones."""

    def __init__(self, sends, receives, mpi=None, buffers=None, patient=False):
        self.requests, self.mpi, self.buffers, self.patient, self.left = receives + sends, mpi, buffers, patient, 0

    def __del__(self):
        """Give prepared requests back to MPI, which only the main thread may call."""
        if self.requests and not self.left and threading.current_thread() is threading.main_thread() and not self.mpi.Is_finalized():
            for request in self.requests:
                request.Free()

    @property
    def bytes_sent(self):
        return sum(a.nbytes for _, a in self.buffers[0]) if self.buffers else 0

    def start(self):
        if self.requests:
            self.mpi.Prequest.Startall(self.requests)
            self.left = len(self.requests)

    def poll(self):
        """Let all messages progress, MPI moves them only when it is called; whether these are complete. Asks for one request at a time, as most
        questions are asked too early, and asking for all takes the longer the more they are."""
        while self.left:
            if not self.requests[self.left - 1].Test():
                return False
            self.left -= 1
        return True

    def wait(self, kind='messages', meanwhile=do_nothing):
        """kind: what the time counts as; meanwhile: see `until`."""
        if self.requests:
            begun = time.perf_counter()
            if self.patient:
                until(self.poll, meanwhile)
            else:
                self.mpi.Request.Waitall(self.requests)
                self.left = 0
            waited[kind] += time.perf_counter() - begun
