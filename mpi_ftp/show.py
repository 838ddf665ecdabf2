"""The verb `plan`: how a network would be cut among ranks, without training."""
import json
from dataclasses import replace
from pathlib import Path

from . import comm
from . import job as jobs
from . import kernels
from .arguments import numbers
from .comm import Alone
from .compare import alternative, attempt, choices, comparison, verdict
from .errors import JobError, MemoryRefused, UsageError
from .files import check_writable, replacing
from .footprint import Course, Footprint
from .machine import read_machine, write_machine
from .network import read_network
from .plan_table import plan_table
from .planning import UNLIMITED, fitting, given, measured, mini_batch
from .screen import terminal
from .session import load_kernels, losses_of
from .telling import telling

KEYS = 'cfg', 'batch', 'subdivisions', 'grid', 'groups', 'layout', 'backward_cuts', 'recompute', 'memory', 'machine', 'threads', 'winograd', 'halos', 'gradients'
SUFFIXES = '.png', '.svg', '.pdf'
HEADERS = .94               # of a link's bits that are not headers


def add_arguments(parser):
    jobs.add_arguments(parser, keys=KEYS)
    parser.add_argument('--ranks', metavar='P', default='1', help='number of ranks (default: 1)')
    parser.add_argument('--json', metavar='FILE', help='write the plan as a run does')
    parser.add_argument('--png', metavar='FILE', help='draw tiles, time and memory; with --sweep the scaling')
    parser.add_argument('--compare', metavar='A,B', help='plans side by side, e.g. "tail,samples,spatial per-layer,0/4/8 cuts 2/6,auto"')
    parser.add_argument('--sweep', metavar='1..P', help='predicted steps for so many ranks, e.g. ranks=1..16')
    parser.add_argument('--table', metavar='P,Q', type=numbers, help='what is chosen for these numbers of ranks, e.g. 2,4,6,16')
    parser.add_argument('--also', metavar='CFG,…', help='further networks for --table')
    parser.add_argument('--links', metavar='M,N', type=numbers, help='Mbit/s between hosts for --table, e.g. 100,1000')
    parser.add_argument('--save-machine', metavar='FILE', help='write the constants that were measured, for --machine')


def run(args):
    """Of several ranks one plans and the others wait. Raises CfgError, PlanError, MemoryRefused."""
    world = comm.world()
    if world.rank == 0:
        show(args)
    world.rest()


def show(args):
    ranks = positive(args.ranks)
    args.ranks = None
    asked = [f'--{name}' for name in ('sweep', 'compare', 'table') if getattr(args, name)]
    if len(asked) > 1:
        raise UsageError(f'{" and ".join(asked)}: expected one of them')
    for option, unfit in ('--png', ('--compare', '--table')), ('--json', ('--sweep', '--compare', '--table')):
        if getattr(args, option[2:]) and asked and asked[0] in unfit:
            raise UsageError(f'{option} is of one plan{" or of --sweep" * (option == "--png")}, not of {asked[0]}')
    if args.compare is not None and not all(name.strip() for name in args.compare.split(',')):
        raise UsageError(f'--compare {args.compare!r}: expected names of plans with commas between')
    if args.links and not args.table:
        raise UsageError('--links is for --table')
    if args.png and Path(args.png).suffix not in SUFFIXES:
        raise UsageError(f'--png {args.png}: expected a name that ends in {", ".join(SUFFIXES)}')
    for path in filter(None, (args.json, args.png, args.save_machine)):
        check_writable(path)
    job = jobs.from_arguments(args, required=('cfg',))
    if job.layout == 'samples' and job.grid != 'auto':
        raise UsageError(f'--layout samples cuts no rows and columns, --grid {"x".join(map(str, job.grid))} does: expected one of them')
    network = read_network(job.cfg)
    mini = mini_batch(network, job)[1]
    machine = machine_of(job, network, mini)
    if args.save_machine:
        write_machine(args.save_machine, machine)

    def find(ranks, network=network, machine=machine, cuts=job.backward_cuts, **changes):
        here = machine.placed(ranks)
        with telling(f'planning {ranks} ranks'):
            return fitting(network, ranks, mini, here, replace(job, backward_cuts=cuts, **changes), memory_of(job, here))

    from rich.console import Console
    watched = terminal() is not None
    console = Console(width=max(Console().width, 150), force_terminal=watched, no_color=not watched)
    if args.sweep:
        tried = {n: attempt(find, n) for n in span(args.sweep)}
        plans = {n: plan for n, plan in tried.items() if not isinstance(plan, Exception)}
        if not plans:
            raise tried[max(tried)]
        console.print(comparison({str(n): plan for n, plan in tried.items()}, 'ranks'))
        console.print(verdict(plans), highlight=False, soft_wrap=True)
        if args.png:
            from .scaling_picture import draw_scaling
            draw_scaling(args.png, plans, f'{job.cfg.name}, batch {mini}: predicted scaling')
        return
    if args.compare:
        named = {name.strip(): alternative(name) for name in args.compare.split(',')}
        console.print(comparison({name: attempt(find, ranks, **options) for name, options in named.items()}, 'plan'))
        return
    if args.table:
        networks = [network, *(read_network(path) for path in (args.also or '').split(',') if path)]
        console.print(choices(chosen(networks, machine, args.table, args.links, find)))
        return
    plan = find(ranks)
    if args.json:
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(plan.to_json()))
    if args.png:
        from .plan_picture import draw_plan
        draw_plan(args.png, network, plan, Footprint(network, plan, machine.placed(ranks), course=Course(ahead=plan.predicted['ahead'])))
    console.print(plan_table(network, plan))
    if not job.machine and ranks > 1:
        console.print('Rates were measured here; between ranks 1 Gbit/s Ethernet is assumed. --machine FILE takes others.', style='dim')


def span(text):
    """Rank counts of 'ranks=1..16' or '1..16'; beyond 16 in growing steps."""
    first, dots, last = text.removeprefix('ranks=').partition('..')
    if not (dots and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise JobError(f'--sweep {text}: expected ranks=FIRST..LAST')
    first, last = int(first), int(last)
    found = [n for n in range(first, last + 1) if n <= 16 or n % (1 << (n - 1).bit_length() - 4) == 0]
    return found if found and found[-1] == last else [*found, last]


def chosen(networks, machine, counts, links, find):
    """(network's name, link, ranks, Plan, that of one rank; None where nothing fits) of each."""
    def fitting_one(*args):
        try:
            return find(*args)
        except MemoryRefused:
            return None
    for network in networks:
        alone = fitting_one(1, network)
        for link in links or [None]:
            between = replace(machine, net_link=(machine.net_link[0], link * 1e6 / 8 * HEADERS), sums=(), fewer=()) if link else machine
            for ranks in counts:
                yield (Path(network.path).stem, f'{(link or machine.net_link[1] * 8e-6 / HEADERS):.0f} Mbit/s', ranks, fitting_one(ranks, network, between), alone)


def memory_of(job, machine):
    """Bytes that each rank may hold, as far as the job limits them."""
    hosts = [machine.host(rank) for rank in range(len(machine.hosts))]
    return given(job.memory, hosts, [UNLIMITED] * len(hosts))


def machine_of(job, network, batch):
    """The machine file that the user names, else what is measured here on one rank."""
    if job.machine:
        machine = read_machine(job.machine)
        kernels.set_winograd(job.winograd)
        kernels.set_rates(machine.algorithms)
        return machine.sending(job.halos, job.gradients)
    import h5py  # noqa: F401  (a run has it in memory, too)
    load_kernels(Alone(), job, losses_of(network))
    return measured(Alone(), network, batch).sending(job.halos, job.gradients)


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise JobError(f'--ranks {text}: expected a whole number of at least 1')
    return int(text)
