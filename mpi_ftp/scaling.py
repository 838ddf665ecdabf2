"""The verb `scaling`: training steps on the first 1, 2, 4, … ranks of a run, taking turns, beside what bytes and operations allow; and of named plans
on all ranks beside what the planner expects of them.

Start it with one rank on each host, as the cluster will be used. Ranks that have nothing to do sleep meanwhile. Pictures and truths are random.
"""
import json
from dataclasses import dataclass, replace
from pathlib import Path

from . import comm
from . import job as jobs
from . import manual, rivals
from .arguments import duration, numbers, whole
from .contest import Entry, Figures, contest
from .errors import UsageError
from .files import check_writable, replacing
from .machine import read_machine, write_machine
from .network import read_network
from .plan import Plan
from .plan_table import brief
from .planning import measured
from .search import find_plan
from .session import load_kernels, losses_of
from .telling import telling

KEYS = 'cfg', 'threads', 'winograd', 'machine', 'overlap', 'halos', 'gradients', 'deterministic'
ROUNDS = 3                  # that plans take at least, however long they last


def add_arguments(parser):
    jobs.add_arguments(parser, keys=KEYS)
    parser.add_argument('--batches', metavar='N,…', type=numbers, default='4', help='pictures in a step (default: 4)')
    parser.add_argument('--counts', metavar='N,…', type=numbers, help='ranks to train on; 1 is always among them (default: 1, 2, 4, … and all; none where plans are named)')
    parser.add_argument('--plans', metavar='A,B', help='plans on all ranks that take turns, in the words of `plan --compare` and grids, e.g. '
                        '"samples,tail,spatial 0/4/8,2x3 per-layer"; auto is always among them')
    parser.add_argument('--sweep', action='store_true', help='plans that a manual search would try take turns: grids times groups, and auto')
    parser.add_argument('--finalists', metavar='N', type=int, help='when half of the time is over only auto and the best others go on, so many plans in all')
    parser.add_argument('--side', metavar='N', type=whole(1), help='height and width of the picture (default: as in the .cfg)')
    parser.add_argument('--seconds', metavar='S', type=duration, default=10.0, help=f'time for the steps of each batch (default: 10; plans take at least {ROUNDS} turns)')
    parser.add_argument('--busy', action='store_true', help='time the steps of one rank while every other takes such steps for itself: for hosts that are '
                        'emulated on one machine and share its caches and memory')
    parser.add_argument('--mute', action='store_true', help='take turns with the same steps without their messages, whose numbers are wrong: what a network '
                        'without delay and without work would bring')
    parser.add_argument('--profile', metavar='OUT.json', help='keep what was measured of hosts and links, for --machine')
    parser.add_argument('--json', metavar='OUT.json', help='write the figures as well')
    parser.add_argument('--png', metavar='OUT.png', help='draw plans, measured beside predicted')


def run(args):
    job = jobs.from_arguments(args, required=('cfg',))
    world = comm.world()
    world.in_order = job.deterministic
    counts, names = asked(args, world.size)
    if world.rank == 0:
        for path in filter(None, (args.profile, args.json, args.png)):
            check_writable(path)
    sides = {'width': args.side, 'height': args.side} if args.side else {}
    network = read_network(job.cfg, **sides)
    load_kernels(world, job, losses_of(network))
    if world.rank == 0:
        print(f'{world.size} ranks, kernels are loaded', flush=True)
    machine = world.from_first(lambda: read_machine(job.machine)) if job.machine else measured(world, network, max(args.batches), seconds=4.0)
    if args.profile and world.rank == 0:
        write_machine(args.profile, machine)
    machine = machine.sending(job.halos, job.gradients)
    planned = [plans_of(world, network, batch, counts, names, args.sweep, machine) for batch in args.batches]
    rows, plans = [], []
    for batch, (by_count, by_name) in zip(args.batches, planned):
        entries = [Entry(plan, everywhere=args.busy and plan.ranks == 1) for plan in by_count]
        counted = entries + [replace(entry, mute=True) for entry in entries if args.mute and entry.plan.ranks > 1]
        rivalling = [Entry(plan) for plan in by_name.values() if not isinstance(plan, str)]

        def ready(batch=batch):
            if world.rank == 0:
                print(f'batch {batch}: plans are made', flush=True)

        def final(figures, by_name=by_name, counted=counted):
            return list(dict.fromkeys(counted + rivals.finalists(by_name, figures, args.finalists)))

        with telling(f'batch {batch}: plans take turns', world.rank == 0):
            figures = contest(world, network, list(dict.fromkeys(counted + rivalling)), machine, job, args.seconds, ROUNDS if rivalling else 1, ready,
                              final if args.finalists else None)
        if world.rank == 0:
            rows += count_rows(entries, figures, machine) if entries else []
            plans += rivals.plan_rows(by_name, figures) if by_name else []
    if world.rank == 0:
        tell(args, rows, plans, machine)


def asked(args, size):
    """(numbers of ranks, names of plans) that are to be measured."""
    names = [' '.join(name.split()) for name in (args.plans or '').split(',') if name.strip()]
    for name in names:
        manual.alternative(name)                    # what is misspelt is told before anything is measured
    some = bool(names or args.sweep)
    if (args.png or args.finalists) and not some:
        raise UsageError('scaling: --png and --finalists are for plans: give --plans or --sweep as well')
    if args.finalists is not None and args.finalists < 2:
        raise UsageError(f'scaling: --finalists {args.finalists}: expected at least 2, auto and the best of the others')
    for option, steps in (('busy', 'one rank'), ('mute', 'so many ranks')):
        if getattr(args, option) and some and not args.counts:
            raise UsageError(f'scaling: --{option} is for steps of {steps}, which --plans and --sweep leave out: give --counts as well')
    if some and not args.counts:
        return [], names
    counts = args.counts or [1 << i for i in range(16) if 1 << i < size] + [size]
    if max(counts) > size:
        raise UsageError(f'scaling: --counts {max(counts)}: expected numbers from 1 to {size}, the ranks of this run')
    return sorted({1, *counts}), names


def plans_of(world, network, batch, counts, names, sweep, machine):
    """([Plan of each number of ranks], {name: Plan on all ranks, or why there is none}): found by rank 0, for all."""
    def find():
        wanted = [*names, *(manual.sweep(network, world.size, batch) if sweep else [])]
        by_name = manual.named(network, world.size, batch, few(machine, world.size), dict.fromkeys([*wanted, rivals.AUTO])) if wanted else {}
        return [find_plan(network, ranks, batch, few(machine, ranks)) for ranks in counts], by_name
    with telling(f'batch {batch}: planning', world.rank == 0):
        return world.from_first(find)


def few(machine, ranks):
    """The machine with its first ranks alone."""
    if ranks == len(machine.hosts):
        return machine
    return replace(machine.placed(ranks), hosts=machine.hosts[:ranks], speeds=machine.speeds[:ranks])


def tell(args, rows, plans, machine):
    """Tables, sentences, files."""
    from .screen import show as show_table
    if rows:
        show(rows, machine)
    if plans:
        show_table(rivals.plan_table(plans, machine.link), 170)
        for row in plans:
            if not row.reason and not row.same:
                print(f'batch {row.batch}, {row.name}: {brief(row.plan)}')
        for batch in dict.fromkeys(row.batch for row in plans):
            print(rivals.verdict([row for row in plans if row.batch == batch]))
    if args.json:
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps([row.to_json() for row in rows + plans], indent=1))
    if args.png:
        from .rivals_picture import draw_rivals
        draw_rivals(args.png, plans, f'{Path(args.cfg).name}, {plans[0].ranks} ranks')


@dataclass(frozen=True)
class Row:
    """Figures of a plan's steps beside what is due. serial: seconds of a step on the first rank alone; ideal: seconds of a step if every rank contributed what it
    does alone; bound: seconds that operations (of each rank at the pace it has alone) and bytes (the most that a rank sends or receives) allow if one hides
    behind the other; labour: seconds that operations and what the processor works for those bytes allow, which nothing hides; muted: seconds of the same steps
    without messages, None where not measured.
    """
    plan: Plan
    figures: Figures
    serial: float
    ideal: float
    bound: float
    labour: float
    muted: float | None = None

    @property
    def efficiency(self):
        return self.ideal / self.figures.seconds

    @property
    def hidden(self):
        """The part of the time of gradients' sums that nobody waited for, None without any."""
        return max(0.0, 1 - self.figures.sums / self.figures.reductions) if self.figures.reductions else None

    def to_json(self):
        """Flat; plan: its groups in a line."""
        return {'batch': self.plan.batch, 'ranks': self.plan.ranks, **self.figures.to_json(), 'serial': self.serial, 'ideal': self.ideal,
                'predicted': self.plan.predicted['seconds'], 'bound': self.bound, 'labour': self.labour, 'muted': self.muted,
                'plan': brief(self.plan)}


def count_rows(entries, figures, machine):
    """Rows of one batch. entries: of each number of ranks, one rank first; figures: {Entry: Figures}, of muted entries, too. What ranks take alone is known of the
    first one at least; the others then differ from it by the speeds of the Machine."""
    rows, one = [], figures[entries[0]]
    alone = one.each if len(one.each) > 1 else [one.seconds * speed / machine.speeds[0] for speed in machine.speeds]
    for entry in entries:
        found, muted, ranks = figures[entry], figures.get(replace(entry, mute=True)), entry.plan.ranks
        computed = [seconds * flops / one.flops[0] for seconds, flops in zip(alone, found.flops)]
        sent = sum(found.sent) if ranks > 1 else 0
        labour = max(seconds + sent * machine.labour * speed for seconds, speed in zip(computed, machine.speeds))
        ideal, bound = 1 / sum(1 / seconds for seconds in alone[:ranks]), max(*computed, sent / machine.link[1])
        rows.append(Row(entry.plan, found, one.seconds, ideal, bound, labour, muted and muted.seconds))
    return rows


def show(rows, machine):
    from rich.table import Table

    from .screen import show as show_table
    latency, bandwidth = machine.link
    table = Table(title=f'training steps; links {bandwidth * 8e-6:.0f} Mbit/s, {1e6 * latency:.0f} us', box=None)
    for name in ('batch', 'ranks', 'ms', 'predicted', 'faster', 'efficiency', 'bound', 'with work', 'mute', 'MB halos', 'MB sums', 'ms processors', 'wait halos',
                 'norms', 'sums', 'of', 'hidden'):
        table.add_column(name, justify='right')
    for row in rows:
        plan, found = row.plan, row.figures
        cells = [str(plan.batch), str(plan.ranks), f'{1e3 * found.seconds:.1f}', f'{1e3 * plan.predicted["seconds"]:.1f}', f'{row.serial / found.seconds:.2f}x',
                 f'{row.efficiency:.1%}', f'{row.ideal / row.bound:.1%}', f'{row.ideal / row.labour:.1%}', f'{row.ideal / row.muted:.1%}' if row.muted else '']
        if plan.ranks > 1:
            cells += [f'{nbytes / 1e6:.2f}' for nbytes in found.sent]
            cells += [f'{1e3 * value:.1f}' for value in (found.processor, found.halos, found.norms, found.sums, found.reductions)]
            cells.append('' if row.hidden is None else f'{row.hidden:.0%}')
        table.add_row(*cells)
    show_table(table, 160)
    for row in rows:
        print(f'batch {row.plan.batch}, {row.plan.ranks} ranks: {brief(row.plan)}')
