"""The verb `plan`: how a network would be cut among ranks, without training and without MPI."""
import json
import os
from pathlib import Path

from . import job as jobs
from .comm import Alone
from .errors import JobError
from .footprint import Footprint
from .machine import measure, read_machine
from .network import read_network
from .plan_table import plan_table
from .planning import mini_batch
from .search import find_plan

KEYS = 'cfg', 'batch', 'subdivisions', 'grid', 'groups', 'backward_cuts', 'recompute', 'memory', 'machine', 'threads', 'winograd'


def add_arguments(parser):
    jobs.add_arguments(parser, keys=KEYS)
    parser.add_argument('--ranks', metavar='P', default='1', help='number of ranks (default: 1)')
    parser.add_argument('--json', metavar='FILE', help='write the plan as a run does')
    parser.add_argument('--png', metavar='FILE', help='draw tiles, time and memory')
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
    plan = find_plan(network, ranks, mini, machine, grid=None if job.grid == 'auto' else job.grid, groups=job.groups,
                     cuts=job.backward_cuts, recompute=job.recompute, memory=job.memory)
    if os.environ.get('OMPI_COMM_WORLD_RANK', os.environ.get('PMI_RANK', '0')) != '0':
        return
    if args.json:
        Path(args.json).write_text(json.dumps(plan.to_json()))
    if args.png:
        from .plan_picture import draw_plan
        draw_plan(args.png, network, plan, Footprint(network, plan, machine.placed(ranks)))
    from rich.console import Console
    console = Console()
    console = Console(width=max(console.width, 150))
    console.print(plan_table(network, plan, machine))
    if not job.machine and ranks > 1:
        console.print('Rates were measured here; between ranks 1 Gbit/s Ethernet is assumed. --machine FILE takes others.', style='dim')


def machine_of(job, network, batch):
    """The machine file that the user names, else what is measured here on one rank."""
    if job.machine:
        return read_machine(job.machine)
    import numpy as np

    from . import kernels
    kernels.set_winograd(job.winograd)
    kernels.set_threads(int(job.threads or 1))
    kernels.load(np.dtype(np.float32))
    return measure(Alone(), network, batch)


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise JobError(f'--ranks {text}: expected a whole number of at least 1')
    return int(text)
