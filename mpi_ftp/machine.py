"""The measured constants of a run's hosts and links: what the cost model knows of the world.

`measure` takes a short profile, the same result on every rank; a Machine goes to JSON and back (`--machine FILE`).
"""
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from .curves import Curve, class_of, find
from .errors import PlanError
from .files import replacing
from .limits import peak, resident, trim

MOST_STRAIN = 2.0                       # more is not that of this run but of others
DEFAULT_LINK = 60e-6, 117e6             # seconds, bytes a second: 1 Gbit/s Ethernet, assumed where no second host was there to measure


@dataclass(frozen=True)
class Machine:
    """curves: times of layers, see curves.py. copy, add: seconds per byte; sgd: seconds per weight; call: seconds of a step's small Python acts; head: seconds of a loss per cell.

    host_link, net_link: (seconds, bytes a second) between ranks of one host and of two; sums: ((bytes, seconds), …) over all ranks that
    measured. hosts: host number of each rank; names: of the hosts that were measured, by number; speeds: seconds of each rank relative to
    the curves. base: bytes of a process before its model; peak: the most it took until then (to measure this); cores: of a host; threads:
    of a rank. strain: how many times longer computing takes when all ranks of this many compute at once and wait for each other, beyond
    what cores and speeds say; picture: seconds to prepare a pixel of the input. note: where the figures come from.
    algorithms: rows for kernels.set_rates. signature: of what was measured, see `signature`; empty for figures that nobody measured.
    sources: ((constant, where it comes from), …) of such figures.
    """
    curves: tuple
    copy: float = 5e-11
    add: float = 5e-11
    sgd: float = 5e-10
    call: float = 2e-5
    head: float = 2e-6
    host_link: tuple = (2e-6, 5e9)
    net_link: tuple = DEFAULT_LINK
    sums: tuple = ()
    hosts: tuple = (0,)
    names: tuple = ()
    speeds: tuple = (1.0,)
    strain: float = 1.0
    picture: float = 0.0
    base: int = 120 << 20
    peak: int = 0
    cores: int = 1
    threads: int = 1
    note: str = ''
    algorithms: tuple = ()
    signature: str = ''
    sources: tuple = ()

    def curve(self, layer, pass_):
        """Seconds of a pass of a network's layer against output pixels, or None where the layer has no such pass."""
        return find(self.curves, class_of(layer), pass_)

    def placed(self, ranks):
        """This machine with `ranks` ranks: those measured, else one to a host, all alike."""
        if len(self.hosts) == ranks:
            return self
        return replace(self, hosts=tuple(range(ranks)), speeds=(median(self.speeds),) * ranks, sums=(), strain=1.0)

    def host(self, rank):
        """The name of a rank's host, or its number where names are not known."""
        number = self.hosts[rank]
        return self.names[number] if number < len(self.names) else f'host {number}'

    @cached_property
    def slowdown(self):
        """How much slower a rank computes beside the others of its host than alone: by cores that are shared, and by the strain of all else."""
        return max(1.0, self.crowd * self.threads / self.cores) * self.strain

    @cached_property
    def crowd(self):
        """Ranks on the fullest host."""
        return max(self.hosts.count(host) for host in set(self.hosts))

    @cached_property
    def link(self):
        """(latency, bytes a second) of the slowest link in use; ranks of one host share its way out."""
        if len(set(self.hosts)) == 1:
            return self.host_link
        return self.net_link[0], self.net_link[1] / self.crowd

    def sum_seconds(self, nbytes, ranks=None):
        """Seconds to add an array of so many bytes over ranks (default all): measured, else a tree for small and a ring for large ones."""
        ranks = len(self.hosts) if ranks is None else ranks
        if ranks <= 1 or not nbytes:
            return 0.0
        if self.sums and ranks == len(self.hosts):
            (x0, y0), (x1, y1) = self.sums[0], self.sums[-1]
            for (x0, y0), (x1, y1) in zip(self.sums, self.sums[1:]):
                if nbytes <= x1:
                    break
            if nbytes <= x0 or x1 == x0:
                return y0 * max(1.0, nbytes / x0)
            return max(0.0, y0 + (y1 - y0) * (nbytes - x0) / (x1 - x0))
        latency, bandwidth = self.link
        tree = 2 * (ranks - 1).bit_length() * (latency + nbytes / bandwidth)
        ring = 2 * (ranks - 1) * (latency + nbytes / ranks / bandwidth)
        return min(tree, ring)

    def to_json(self):
        return {**{name: getattr(self, name) for name in Machine.__dataclass_fields__}, 'curves': [curve.to_json() for curve in self.curves]}

    @staticmethod
    def from_json(record):
        unknown = set(record) - set(Machine.__dataclass_fields__)
        if unknown or 'curves' not in record:
            raise PlanError(f'a machine file has no key {min(unknown)!r}' if unknown else 'a machine file needs the key curves')
        tuples = {name: tuple(map(tuple, value)) if name in ('sums', 'algorithms', 'sources') else tuple(value) for name, value in record.items()
                  if isinstance(value, (list, tuple)) and name != 'curves'}
        return Machine(**{**record, **tuples, 'curves': tuple(map(Curve.from_json, record['curves']))})


def measure(comm, network, batch=1, seconds=2.0, room=None, progress=lambda share: None):
    """The Machine of the ranks at hand, from a profile of about `seconds` seconds with tiles of `batch` samples; the same on every rank (collective).

    room: bytes that the tiles to measure with may take; progress: called with the share that is done.
    """
    from . import algorithm_times, kernels
    from .layer_times import ROOM, memory_rates, times, work
    from .link_times import link, strain, sums
    here = comm.host_comm()
    cores = usable_cores()
    threads = kernel_threads()
    # the first rank's choice of algorithms is everybody's: results must not depend on where a tile is computed
    algorithms = comm.broadcast(algorithm_times.times(network, comm.size, batch, room or ROOM) if comm.rank == 0 else None)
    kernels.set_rates(algorithms)
    # ranks that share cores are timed one after the other, as many at a time as there are cores: contention for memory is real, for time is not
    together = max(1, cores // threads)
    rounds = -(-int(comm.maximum(here.size)) // together)
    curves, rates = [], {}
    for turn in range(rounds):
        comm.barrier()
        if here.rank // together == turn:
            curves = times(network, comm.size, batch, seconds / rounds, room or ROOM, lambda share: progress(.9 * (turn + share) / rounds))
            rates = memory_rates()
            run, alone = work(network, batch, comm.size) if comm.size > 1 else (None, 1.0)
    gathered = comm.gather((comm.host, curves, rates))
    pairs = comm.broadcast(_pairs([g[0] for g in gathered]) if gathered else None)
    links = {name: link(comm, pair) for name, pair in pairs.items() if pair}
    points, strains = (), [1.0]
    if comm.size > 1:
        points = sums(comm)
        strains = comm.gather(strain(comm, run, alone, points[0][1]))
    progress(1.0)
    del run
    forget()
    base, most = comm.maximum(resident()), comm.maximum(peak())
    machine = None
    if comm.rank == 0:
        machine = _combine(gathered, links, points, cores, threads)
        beside = (median if len(set(machine.speeds)) == 1 else min)(strains) / machine.slowdown      # quick ranks wait for slow ones
        machine = replace(machine, strain=min(MOST_STRAIN, max(1.0, beside)), base=int(base), peak=int(most), algorithms=tuple(algorithms),
                          signature=signature())
    return comm.broadcast(machine)


def _pairs(hosts):
    """A pair of ranks on one host and one on two hosts, where there are such."""
    found = {'host_link': None, 'net_link': None}
    for b in range(1, len(hosts)):
        found['host_link'] = found['host_link'] or next(((a, b) for a in range(b) if hosts[a] == hosts[b]), None)
        found['net_link'] = found['net_link'] or next(((a, b) for a in range(b) if hosts[a] != hosts[b]), None)
    return found


def _combine(gathered, links, points, cores, threads):
    """Curves of the median rank; the speed of each rank relative to it."""
    hosts, curves, rates = zip(*gathered)
    by_key = [{(c.layer, c.pass_): c for c in rank} for rank in curves]
    merged = []
    for key, curve in by_key[0].items():
        same = [k[key] for k in by_key if key in k and k[key].pixels == curve.pixels]
        merged.append(Curve(curve.layer, curve.pass_, curve.pixels, tuple(median(s) for s in zip(*(c.seconds for c in same)))))
    speeds = []
    for rank in by_key:
        ratios = [rank[c.layer, c.pass_].seconds[-1] / c.seconds[-1] for c in merged
                  if (c.layer, c.pass_) in rank and rank[c.layer, c.pass_].pixels == c.pixels]
        speeds.append(median(ratios) if ratios else 1.0)
    if len(speeds) > 1 and max(speeds) / min(speeds) < 1.15:           # a difference that is noise
        speeds = [1.0] * len(speeds)
    number = {host: i for i, host in enumerate(dict.fromkeys(hosts))}
    means = {name: median(r[name] for r in rates) for name in rates[0]}
    return Machine(tuple(merged), **means, **links, sums=points, hosts=tuple(number[h] for h in hosts), names=tuple(number), speeds=tuple(speeds),
                   cores=cores, threads=threads, note=f'measured on {hosts[0]}')


def signature():
    """What measured times belong to: processor, cores, threads of a rank, versions of libraries and of the kernels."""
    import platform
    from importlib.metadata import version

    from .kernels.cache import convolution_hash
    model = platform.processor()
    with suppress(OSError, StopIteration):
        with open('/proc/cpuinfo') as file:
            model = next(line.partition(':')[2].strip() for line in file if line.startswith(('model name', 'Model')))
    libraries = ', '.join(f'{name} {version(name)}' for name in ('numpy', 'numba'))
    return f'{platform.machine()} {model}, {usable_cores()} cores, {kernel_threads()} threads a rank, {libraries}, kernels {convolution_hash()}'


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def kernel_threads():
    from . import kernels
    return kernels.get_threads()


def forget():
    """Give back what kernels and measurements have left behind."""
    from .kernels import threads
    threads.forget()
    trim()


def write_machine(path, machine):
    """Write a Machine as JSON, whole or not at all. Raises JobError where nothing can be written."""
    import json
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(machine.to_json(), indent=1))


def read_machine(path):
    """The Machine of a JSON file. Raises PlanError."""
    import json
    from pathlib import Path
    try:
        return Machine.from_json(json.loads(Path(path).read_text()))
    except OSError as error:
        raise PlanError(f'cannot read the machine file {path}: {error.strerror}') from None
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f'{path} is not a machine file: {error}') from None
