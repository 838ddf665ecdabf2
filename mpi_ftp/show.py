"""The verb `plan`: how a network would be cut among ranks, without training and without MPI."""
import json
import os
from pathlib import Path

from . import job as jobs
from . import kernels
from .comm import Alone
from .errors import JobError, MemoryRefused
from .footprint import Footprint
from .machine import measure, read_machine
from .network import read_network
from .plan_table import plan_table
from .planning import UNLIMITED, given, mini_batch
from .search import find_plan
from .session import load_kernels, losses_of

KEYS = 'cfg', 'batch', 'subdivisions', 'grid', 'groups', 'backward_cuts', 'recompute', 'memory', 'machine', 'threads', 'winograd'


def add_arguments(parser):
    jobs.add_arguments(parser, keys=KEYS)
    parser.add_argument('--ranks', metavar='P', default='1', help='number of ranks (default: 1)')
    parser.add_argument('--json', metavar='FILE', help='write the plan as a run does')
    parser.add_argument('--png', metavar='FILE', help='draw tiles, time and memory')
    parser.add_argument('--compare', metavar='A,B', help='plans side by side, e.g. per-layer,fused,0/4/8,auto')
    parser.add_argument('--sweep', metavar='1..P', help='predicted steps for so many ranks, e.g. ranks=1..16')
    parser.add_argument('--save-machine', metavar='FILE', help='write the constants that were measured, for --machine')


def run(args):
    """Raises CfgError, PlanError, MemoryRefused."""
    ranks = positive(args.ranks)
    args.ranks = None
    job = jobs.from_arguments(args, required=('cfg',))
    network = read_network(job.cfg)
    mini = mini_batch(network, job)[1]
    machine = machine_of(job, network, mini)
    if args.save_machine:
        Path(args.save_machine).write_text(json.dumps(machine.to_json()))

    def find(ranks, **changes):
        fixed = dict(grid=None if job.grid == 'auto' else job.grid, groups=job.groups, cuts=job.backward_cuts, recompute=job.recompute)
        return find_plan(network, ranks, mini, machine, memory=memory_of(job, machine.placed(ranks)), **{**fixed, **changes})

    if not speaks():
        return
    from rich.console import Console
    console = Console()
    console = Console(width=max(console.width, 150))
    if args.sweep:
        console.print(comparison({str(n): (lambda n=n: find(n)) for n in span(args.sweep)}, 'ranks'))
        return
    if args.compare:
        console.print(comparison({name: (lambda g=grouping(name): find(ranks, groups=g)) for name in args.compare.split(',')}, 'groups'))
        return
    plan = find(ranks)
    if args.json:
        Path(args.json).write_text(json.dumps(plan.to_json()))
    if args.png:
        from .plan_picture import draw_plan
        draw_plan(args.png, network, plan, Footprint(network, plan, machine.placed(ranks)))
    console.print(plan_table(network, plan, machine))
    if not job.machine and ranks > 1:
        console.print('Rates were measured here; between ranks 1 Gbit/s Ethernet is assumed. --machine FILE takes others.', style='dim')


def speaks():
    """Whether this process prints: under a launcher every rank plans alike, one tells."""
    return all(os.environ.get(name, '0') == '0' for name in ('OMPI_COMM_WORLD_RANK', 'PMI_RANK', 'PMIX_RANK', 'SLURM_PROCID'))


def comparison(finders, name):
    """A table of plans side by side: seconds by part, memory, and the speed-up over the first."""
    from rich.table import Table
    table, first = Table(box=None, header_style='bold'), None
    for column in (name, 'grid', 'number of groups', 'ms a step', 'times the first', 'forward', 'backward', 'again', 'exchange', 'norm sums', 'gradient sums', 'MiB'):
        table.add_column(column, justify='right')
    for label, find in finders.items():
        try:
            plan = find()
        except MemoryRefused:
            table.add_row(label, '', '', 'does not fit')
            continue
        found = plan.predicted
        first = first or found['seconds']
        parts = [f'{1e3 * found["parts"][part]:.1f}' for part in ('forward', 'backward', 'recompute', 'exchange', 'norm_sums', 'gradient_sums')]
        table.add_row(label, '{}x{}'.format(*found['grid']), str(len(plan.groups)), f'{1e3 * found["seconds"]:.1f}', f'{first / found["seconds"]:.2f}', *parts,
                      f'{found["bytes"] / (1 << 20):.0f}')
    return table


def grouping(text):
    """auto, per-layer, fused, or first layers with slashes between: 0/4/8."""
    if text in ('auto', 'per-layer', 'fused'):
        return text
    if not all(part.isdigit() for part in text.split('/')):
        raise JobError(f'--compare {text}: expected auto, per-layer, fused or first layers such as 0/4/8, with commas between')
    return tuple(map(int, text.split('/')))


def span(text):
    """Rank counts of 'ranks=1..16' or '1..16'."""
    first, dots, last = text.removeprefix('ranks=').partition('..')
    if not (dots and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise JobError(f'--sweep {text}: expected ranks=FIRST..LAST')
    return range(int(first), int(last) + 1)


def memory_of(job, machine):
    """Bytes of the poorest rank, where the job limits them."""
    if not isinstance(job.memory, tuple):
        return job.memory
    hosts = [machine.host(rank) for rank in range(len(machine.hosts))]
    return min(given(job.memory, hosts, [UNLIMITED] * len(hosts)))


def machine_of(job, network, batch):
    """The machine file that the user names, else what is measured here on one rank."""
    if job.machine:
        machine = read_machine(job.machine)
        kernels.set_winograd(job.winograd)
        kernels.set_rates(machine.algorithms)
        return machine
    import h5py  # noqa: F401  (a run has it in memory, too)
    load_kernels(Alone(), job, losses_of(network))
    return measure(Alone(), network, batch)


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise JobError(f'--ranks {text}: expected a whole number of at least 1')
    return int(text)
