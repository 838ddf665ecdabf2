"""The verb `scaling`: training steps on the first 1, 2, 4, … ranks of a run, taking turns, beside what bytes and operations allow.

Start it with one rank on each host, as the cluster will be used. Ranks that have nothing to do sleep meanwhile. Pictures and truths are random.
"""
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from . import comm
from . import job as jobs
from .bench import numbers
from .errors import UsageError
from .machine import read_machine
from .measuring import measure
from .model import Model
from .network import PICTURE, read_network
from .region import NOTHING
from .search import find_plan
from .session import load_kernels, losses_of

KEYS = 'cfg', 'threads', 'winograd', 'machine', 'overlap', 'halos', 'gradients', 'deterministic'


def add_arguments(parser):
    jobs.add_arguments(parser, keys=KEYS)
    parser.add_argument('--batches', metavar='N,…', default='4', help='pictures in a step (default: 4)')
    parser.add_argument('--counts', metavar='N,…', help='ranks to train on; 1 is always among them (default: 1, 2, 4, … and all)')
    parser.add_argument('--side', metavar='N', type=int, help='height and width of the picture (default: as in the .cfg)')
    parser.add_argument('--seconds', metavar='S', type=float, default=10.0, help='time for the steps of each batch (default: 10)')
    parser.add_argument('--busy', action='store_true', help='time the steps of one rank while every other takes such steps for itself: for hosts that are '
                        'emulated on one machine and share its caches and memory')
    parser.add_argument('--profile', metavar='OUT.json', help='keep what was measured of hosts and links, for --machine')
    parser.add_argument('--json', metavar='OUT.json', help='write the figures as well')


def run(args):
    job = jobs.from_arguments(args, required=('cfg',))
    world = comm.world()
    world.in_order = job.deterministic
    counts = numbers('counts', args.counts) if args.counts else [1 << i for i in range(16) if 1 << i < world.size] + [world.size]
    if max(counts) > world.size:
        raise UsageError(f'scaling: --counts {args.counts}: expected numbers from 1 to {world.size}, the ranks of this run')
    sides = {'width': args.side, 'height': args.side} if args.side else {}
    network = read_network(job.cfg, **sides)
    load_kernels(world, job, losses_of(network))
    if world.rank == 0:
        print(f'{world.size} ranks, kernels are loaded', flush=True)
    batches = numbers('batches', args.batches)
    machine = read_machine(job.machine) if job.machine else measure(world, network, max(batches), 4.0)
    if args.profile and world.rank == 0:
        Path(args.profile).write_text(json.dumps(machine.to_json(), indent=1))
    found = [row for batch in batches for row in measured(world, network, batch, sorted({1, *counts}), machine, job, args.seconds, args.busy)]
    if world.rank == 0:
        show(found, machine)
        if args.json:
            Path(args.json).write_text(json.dumps([row.__dict__ for row in found], indent=1))


@dataclass(frozen=True)
class Row:
    """Seconds of a step on `ranks` ranks, and what became of them, the worst rank's: waited for halos, in batch norm's sums, for sums of gradients,
    and how long these were under way. predicted: by the cost model; bound: seconds that operations (of the rank with the most, at the
    serial run's pace) and bytes (the most that a rank sends or receives) allow if one hides behind the other; processor: seconds of all ranks'
    processors; sent: bytes of halos and gradients.
    """
    batch: int
    ranks: int
    seconds: float
    serial: float
    predicted: float
    bound: float
    halos: float
    norms: float
    sums: float
    reductions: float
    processor: float
    sent: tuple
    plan: str

    @property
    def efficiency(self):
        return self.serial / self.ranks / self.seconds

    @property
    def hidden(self):
        """The part of the time of gradients' sums that nobody waited for, None without any."""
        return max(0.0, 1 - self.sums / self.reductions) if self.reductions else None


class Contestant:
    """The first `ranks` ranks with a plan of their own. everywhere: all ranks, each for itself."""

    def __init__(self, world, network, batch, ranks, machine, job, everywhere=False):
        self.world, self.ranks, self.batch = world, ranks, batch
        self.takes_part = world.rank < ranks or everywhere
        some = world.split(0 if self.takes_part else None) if ranks < world.size else world
        self.comm, self.meeting = comm.Alone() if ranks == 1 else some, world if everywhere else some
        few = machine if ranks == len(machine.hosts) else replace(machine.placed(ranks), hosts=machine.hosts[:ranks], speeds=machine.speeds[:ranks])
        self.plan = world.broadcast(find_plan(network, ranks, batch, few) if world.rank == 0 else None)
        self.times = []
        if self.takes_part:
            self.model = Model(network, self.plan, self.comm, overlap=job.overlap, losses=losses_of(network), deterministic=job.deterministic,
                               halos=job.halos, gradients=job.gradients)
            self.model.parameters.initialise(1)
            shape = self.model.picture.shape
            self.picture = np.random.default_rng(self.comm.rank).random((shape[0], 1, shape[2], shape[3], shape[1]), np.float32)
            boxes = np.array([[0, .5, .5, .2, .3], [0, .3, .4, .1, .1]])
            self.truths = [0 if network.heads[-1].kind == 'softmax' else boxes for _ in range(batch)]

    def turn(self, steps):
        """So many steps; the ranks beyond sleep."""
        if self.takes_part:
            for _ in range(steps):
                self.meeting.barrier()
                self.times.append(self.step())
        self.world.rest()

    def step(self):
        """One step as in training: (seconds, waited for halos, in norms, for sums of gradients, sums under way, the processor's seconds)."""
        model, before, begun, busy = self.model, dict(comm.waited), time.perf_counter(), time.process_time()
        model.parameters.zero_gradients()
        value = model.forward(self.picture, self.truths, seen=1 << 20)
        model.backward()
        halos, norms = (comm.waited[name] - before[name] for name in ('messages', 'sums'))
        asked = time.perf_counter()
        model.reduction.wait()
        self.comm.sum(np.array([value]))
        sums = time.perf_counter() - asked
        model.parameters.step(1e-6 / self.batch, .9, 5e-4 * self.batch)
        return time.perf_counter() - begun, halos, norms, sums, model.reduction.take_times()[0], time.process_time() - busy

    def figures(self, network):
        """Gathered on rank 0: medians of the steps' figures, the worst rank's (all ranks' of the processor); (bytes of halos, of gradients) of the
        busiest rank; operations."""
        mine = None
        if self.takes_part:
            middle = [median(column) for column in zip(*self.times[1:] or self.times)]
            mine = middle, self.model.bytes_moved, self.model.reduction.bytes_sent, operations(network, self.plan, self.comm.rank)
        gathered = self.world.gather(mine)
        if gathered is None:
            return None
        figures, halos, sums, flops = zip(*(g for g in gathered if g))
        columns = list(zip(*figures))
        if self.ranks == 1:
            return [median(column) for column in columns], (0, 0), max(flops)
        return [max(column) for column in columns[:-1]] + [sum(columns[-1])], (max(halos), max(sums)), max(flops)


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


def measured(world, network, batch, counts, machine, job, seconds, busy=False):
    """Rows of one batch on rank 0, else nothing (collective). All take turns for about so many seconds."""
    contestants = [Contestant(world, network, batch, ranks, machine, job, everywhere=busy and ranks == 1) for ranks in counts]
    if world.rank == 0:
        print(f'batch {batch}: plans are made', flush=True)
    for contestant in contestants:
        contestant.turn(1)
    begun = time.perf_counter()
    while True:
        for contestant in contestants:
            contestant.turn(1 if contestant.ranks == 1 else 2)
        if world.broadcast(time.perf_counter() - begun > seconds):
            break
    rows, found = [], [contestant.figures(network) for contestant in contestants]
    for contestant, figures in zip(contestants, found if world.rank == 0 else ()):
        (took, halos, norms, sums, reductions, processor), sent, flops = figures
        serial, all_flops = found[0][0][0], found[0][2]
        bound = max(serial * flops / all_flops, sum(sent) / machine.link[1] if contestant.ranks > 1 else 0.0)
        rows.append(Row(batch, contestant.ranks, took, serial, contestant.plan.predicted['seconds'], bound, halos, norms, sums, reductions, processor, sent,
                        brief(contestant.plan)))
    return rows


def brief(plan):
    """A plan's groups in a line: first layer and cut along N, C, H, W."""
    return ' '.join(f'{g.start}:' + 'x'.join(f'{len(edges) - 1}{axis}' for axis, edges in zip('NCHW', g.edges) if len(edges) > 2 or axis == 'N')
                    .replace('1Nx', '').replace('1N', 'whole') for g in plan.groups)


def show(rows, machine):
    from rich.table import Table

    from .runfolder import show as show_table
    latency, bandwidth = machine.link
    table = Table(title=f'training steps; links {bandwidth * 8e-6:.0f} Mbit/s, {1e6 * latency:.0f} us', box=None)
    for name in ('batch', 'ranks', 'ms', 'predicted', 'faster', 'efficiency', 'bound', 'MB halos', 'MB sums', 'ms processors', 'wait halos', 'norms', 'sums', 'of', 'hidden'):
        table.add_column(name, justify='right')
    for row in rows:
        cells = [str(row.batch), str(row.ranks), f'{1e3 * row.seconds:.1f}', f'{1e3 * row.predicted:.1f}', f'{row.serial / row.seconds:.2f}x',
                 f'{row.efficiency:.1%}', f'{row.serial / row.ranks / row.bound:.1%}']
        if row.ranks > 1:
            cells += [f'{nbytes / 1e6:.2f}' for nbytes in row.sent] + [f'{1e3 * value:.1f}' for value in (row.processor, row.halos, row.norms, row.sums, row.reductions)]
            cells.append('' if row.hidden is None else f'{row.hidden:.0%}')
        table.add_row(*cells)
    show_table(table, 140)
    for row in rows:
        print(f'batch {row.batch}, {row.ranks} ranks: {row.plan}')
