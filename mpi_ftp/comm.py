"""The only door to MPI. `world()` gives the ranks of this run; without a launcher one rank works alone, without an MPI library.

What the rest of the program uses: rank, size, host, small sums over ranks, small objects, prepared messages.
"""
import time
from functools import partial

from .alone import Alone
from .errors import LauncherError
from .hosts import host_names, this_machine
from .launcher import asked_ranks, launched
from .waiting import Messages, cores, do_nothing, exact_pauses, until, waited

DIRECT, FEW = 64 << 10, 16      # bytes and ranks up to which a sum takes one round of messages
FAREWELL = 32767         # tag of a failing rank's note to the others: the largest that every MPI allows

_world = None


def world(ranks=None):
    """The communicator of all ranks of this run.

    `ranks`: how many the user expects (`--ranks`). Raises LauncherError when the launcher, or the user, asked for another number of
    ranks than MPI formed: else every process would silently train alone.
    """
    global _world
    if _world is None:
        _world = World.start() if launched() else Alone()
    asked = asked_ranks()
    if asked and asked != _world.size:
        raise LauncherError(f'the launcher was asked for {asked} ranks but MPI formed {_world.size} '
                            f'(on {_world.host}); mpirun and the MPI library of this Python are not of one kind, use the mpirun beside {_python()}')
    if ranks and ranks != _world.size:
        raise LauncherError(f'expected {ranks} ranks, as --ranks or the job file says, found {_world.size}: mpirun -n {ranks} starts so many')
    return _world


def _python():
    import sys
    return sys.executable


class World:
    """Ranks of an MPI communicator. in_order: add in the order of ranks, wherever they run."""

    def __init__(self, comm, mpi, in_order=False, patient=None):
        self.comm, self.mpi, self.in_order = comm, mpi, in_order
        self.rank, self.size = comm.rank, comm.size
        machines, usable = zip(*comm.allgather((this_machine(), cores())))
        self.host_names = host_names(machines)
        self.host = self.host_names[self.rank]
        # where messages take long, or ranks share cores, whoever waits leaves the core to others: all ranks or none, as they sum in one way
        shared = any(self.host_names.count(host) > count for host, count in zip(self.host_names, usable))
        self.patient = (len(set(self.host_names)) > 1 or shared) if patient is None else patient
        self._on_host, self._small_sums = None, {}

    @staticmethod
    def start():
        """Initialise MPI. With several threads in the process (the prefetching one) only the main thread calls MPI."""
        import warnings

        import mpi4py
        mpi4py.rc.thread_level = 'funneled'
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'suspicious MPI execution environment')      # world() looks itself, and refuses
            try:
                from mpi4py import MPI
            except (ImportError, RuntimeError) as error:
                raise LauncherError(f'a launcher started this rank, but Python finds no MPI library: {" ".join(str(error).split())}') from None
        exact_pauses()
        return World(MPI.COMM_WORLD, MPI)

    def sum(self, array, meanwhile=do_nothing):
        """Add `array` over all ranks, in place. meanwhile: called now and then by a rank that waits patiently."""
        if self.size > 1:
            if self.patient or self.in_order:
                self.begin_sum(array, meanwhile)()
            else:
                begun = time.perf_counter()
                self.comm.Allreduce(self.mpi.IN_PLACE, array)
                waited['sums'] += time.perf_counter() - begun
        return array

    def begin_sum(self, array, meanwhile=do_nothing):
        """Start to add `array` over all ranks, in place; returns a function that waits for the total. One sum at a time for each shape."""
        if self.size == 1:
            return do_nothing
        if self.in_order or self.patient and array.nbytes <= DIRECT and self.size <= FEW:
            small = self._small_sum(array.shape, array.dtype)
            small.start(array)
            return partial(small.finish, array, meanwhile)
        return partial(self._finish, self.comm.Iallreduce(self.mpi.IN_PLACE, array), meanwhile)

    def _finish(self, request, meanwhile):
        begun = time.perf_counter()
        self._wait(request, meanwhile)
        waited['sums'] += time.perf_counter() - begun

    def _wait(self, request, meanwhile=do_nothing):
        if self.patient:
            until(request.Test, meanwhile)
        else:
            request.Wait()

    def _small_sum(self, shape, dtype):
        if (shape, dtype) not in self._small_sums:
            from .small_sum import SmallSum         # here: the command line asks this module for ranks before numpy is loaded
            self._small_sums[shape, dtype] = SmallSum(self, shape, dtype)
        return self._small_sums[shape, dtype]

    def broadcast(self, value, root=0):
        return self.comm.bcast(value, root)

    def from_first(self, find):
        """What find() gives on rank 0, on every rank; they sleep meanwhile, as they may share its cores. If it raises there, all do."""
        found, refused = None, None
        if self.rank == 0:
            try:
                found = find()
            except Exception as error:          # or the others would wait
                refused = error
        self.rest()
        found, refused = self.broadcast((found, refused))
        if refused:
            raise refused
        return found

    def gather(self, value):
        """Every rank's value on rank 0, None elsewhere."""
        return self.comm.gather(value, 0)

    def hand_out(self, values):
        """One of rank 0's values to each rank."""
        return self.comm.scatter(values, 0)

    def maximum(self, value):
        return self.comm.allreduce(value, self.mpi.MAX)

    def barrier(self):
        self.comm.Barrier()

    def rest(self, seconds=.005):
        """A barrier for ranks with nothing to do: they sleep, and look whether all have come only every so many seconds."""
        request = self.comm.Ibarrier()
        while not request.Test():
            time.sleep(seconds)

    def split(self, colour, key=0):
        """The ranks that give the same colour (None: no communicator)."""
        comm = self.comm.Split(self.mpi.UNDEFINED if colour is None else colour, key)
        return None if colour is None else World(comm, self.mpi, self.in_order, self.patient)

    def same_host(self, peer):
        """Whether a rank runs on this host."""
        return self.host_names[peer] == self.host

    def host_comm(self):
        """The ranks of this host."""
        if self._on_host is None:
            self._on_host = World(self.comm.Split_type(self.mpi.COMM_TYPE_SHARED, self.rank), self.mpi, self.in_order, self.patient)
        return self._on_host

    def messages(self, sends, receives, tag):
        """Prepared messages: lists of (peer, contiguous array)."""
        return Messages([self.comm.Send_init(a, peer, tag) for peer, a in sends],
                        [self.comm.Recv_init(a, peer, tag) for peer, a in receives], self.mpi, (sends, receives), self.patient)

    def send(self, array, peer, tag):
        """Send a contiguous array; blocks until the peer receives it: what is sent before it is asked for would lie in the peer's memory."""
        self._wait(self.comm.Issend(array, peer, tag))

    def receive(self, array, peer, tag):
        """Fill a contiguous array from a peer's send."""
        self.comm.Recv(array, peer, tag)

    def abort(self, code):
        """End all ranks of the run at once."""
        self.comm.Abort(code)

    def fail(self, say, code, grace=1.0):
        """For every rank that cannot go on: the lowest of them calls say(), then all ranks end with exit code `code`.

        Returns only if all ranks failed within `grace` seconds (each then exits by itself): ranks that wait in MPI are aborted.
        """
        note, status, heard = bytearray(1), self.mpi.Status(), set()
        requests = [self.comm.Isend([note, self.mpi.BYTE], peer, FAREWELL) for peer in range(self.size) if peer != self.rank]
        deadline = time.monotonic() + grace
        while len(heard) < len(requests) and time.monotonic() < deadline:
            if self.comm.Iprobe(self.mpi.ANY_SOURCE, FAREWELL, status):
                self.comm.Recv([bytearray(1), self.mpi.BYTE], status.Get_source(), FAREWELL)
                heard.add(status.Get_source())
            time.sleep(.001)
        if not heard or self.rank < min(heard):
            say()
            time.sleep(.2)                          # let the launcher pass it on before it reports the abort
        elif len(heard) < len(requests):
            time.sleep(grace)                       # the speaker comes first; it ends the job
        if len(heard) < len(requests):
            self.abort(code)
