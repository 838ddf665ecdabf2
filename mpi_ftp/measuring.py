"""A short profile of the ranks at hand: the Machine that the cost model works with, the same on every rank."""
from contextlib import suppress
from dataclasses import replace
from statistics import median

import numpy as np

from .curves import Curve
from .limits import peak, processors, resident, trim
from .machine import Machine
from .shares import ALIKE
from .waiting import cores as usable_cores

MOST_STRAIN = 2.0                       # more is not that of this run but of others


def measure(comm, network, batch=1, seconds=2.0, room=None, progress=lambda share: None, thorough=False):
    """The Machine of the ranks at hand, from a profile of about `seconds` seconds with tiles of `batch` samples; the same on every rank (collective).

    room: bytes that the tiles to measure with may take; progress: called with the share that is done; thorough: measure sums over fewer ranks,
    all-gathers and reduce-scatters too.
    """
    from . import algorithm_times, kernels
    from .collective_times import together
    from .layer_times import ROOM, memory_rates, times, work
    from .link_times import link, pace, strain
    here = comm.host_comm()
    cores = usable_cores()
    threads = kernel_threads()
    # the first rank's choice of algorithms is everybody's: results must not depend on where a tile is computed
    algorithms = comm.broadcast(algorithm_times.times(network, comm.size, batch, room or ROOM) if comm.rank == 0 else None)
    kernels.set_rates(algorithms)
    # ranks that share cores are timed one after the other, as many at a time as there are cores: contention for memory is real, for time is not
    at_once = max(1, cores // threads)
    layers = .6 if thorough and comm.size > 1 else .9         # of the time
    rounds = int(comm.maximum(-(-here.size // at_once)))      # of the host that takes most: all ranks meet before each
    curves, rates = [], {}
    for turn in range(rounds):
        comm.barrier()
        if here.rank // at_once == turn:
            curves = times(network, comm.size, batch, seconds / rounds, room or ROOM, lambda share: progress(layers * (turn + share) / rounds))
            rates = memory_rates()
            run, alone, times_ = work(network, batch, comm.size) if comm.size > 1 else (None, 1.0, 1)
    gathered = comm.gather((comm.host, curves, rates, throttling(min(here.size, cores), threads)))
    pairs = comm.broadcast(_pairs([g[0] for g in gathered]) if gathered else None)
    links = {name: link(comm, pair) for name, pair in pairs.items() if pair}
    before = pace(comm, run) if comm.size > 1 else 0.0
    done, strains = together(comm, thorough, lambda share: progress(layers + (1 - layers) * share)) if comm.size > 1 else {}, []
    if comm.size > 1:
        strains = comm.gather((*strain(comm, run, done['sums'][0][1], before), alone, times_))
    progress(1.0)
    del run
    forget()
    base, most = comm.maximum(resident()), comm.maximum(peak())
    machine = None
    if comm.rank == 0:
        machine = _combine(gathered, {**links, **done}, cores, threads)
        machine = replace(together_at_work(machine, strains, [g[-1] for g in gathered]), base=int(base), peak=int(most), algorithms=tuple(algorithms),
                          signature=signature())
    return comm.broadcast(machine)


def _pairs(hosts):
    """A pair of ranks on one host and one on two hosts, where there are such."""
    found = {'host_link': None, 'net_link': None}
    for b in range(1, len(hosts)):
        found['host_link'] = found['host_link'] or next(((a, b) for a in range(b) if hosts[a] == hosts[b]), None)
        found['net_link'] = found['net_link'] or next(((a, b) for a in range(b) if hosts[a] != hosts[b]), None)
    return found


def _combine(gathered, found, cores, threads):
    """Curves of the median rank; the speed of each rank relative to it."""
    hosts, curves, rates, throttled = zip(*gathered)
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
    speeds = [speed * longer for speed, longer in zip(speeds, throttled)]
    number = {host: i for i, host in enumerate(dict.fromkeys(hosts))}
    means = {name: median(r[name] for r in rates) for name in rates[0]}
    return Machine(tuple(merged), **means, **found, hosts=tuple(number[h] for h in hosts), names=tuple(number), speeds=tuple(speeds),
                   cores=cores, threads=threads, note=f'measured on {hosts[0]}')


def together_at_work(machine, strains, throttled):
    """The machine with what ranks lose when all compute. strains: of each rank what link_times.strain found, the seconds of its work when alone, and how many
    times this does the same; throttled: of each rank, see `throttling`.

    Where control groups give ranks different shares of their processors, speeds lie between these shares and the pace at which ranks did the same work side
    by side (the geometric mean): a rank that stands still most of the time finds its caches cold, so that half of the share is less than half of
    the speed, but by how much is a matter of moments.
    """
    if not strains:
        return machine
    paces, lost, alone, times_ = map(np.array, zip(*strains))
    machine = replace(machine, meeting=float(np.median(lost)))
    if max(throttled) > ALIKE * min(throttled):
        return replace(machine, speeds=tuple(np.sqrt(paces / times_ / np.median(alone / times_) * throttled).tolist()))
    beside = np.median(paces / alone / throttled) / machine.slowdown
    return replace(machine, strain=float(min(MOST_STRAIN, max(1.0, beside))))


def throttling(ranks, threads):
    """How many times longer than its own time tells computing takes a rank whose control group has less of the processors than so many ranks could use."""
    allowed = processors()
    return max(1.0, ranks / allowed) if allowed and threads == 1 else 1.0        # times of several threads are a clock's, and tell it


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


def kernel_threads():
    from . import kernels
    return kernels.get_threads()


def forget():
    """Give back what kernels and measurements have left behind."""
    from .kernels import threads
    threads.forget()
    trim()
