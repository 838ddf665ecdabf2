"""The verb `profile`: measure the hosts and links at hand, under mpirun, and write what `--machine` reads."""
from contextlib import contextmanager
from dataclasses import replace

from . import comm
from . import job as jobs
from .machine import write_machine
from .measuring import measure
from .network import read_network
from .planning import mini_batch, picture_seconds
from .runfolder import terminal
from .session import load_kernels

KEYS = 'cfg', 'batch', 'subdivisions', 'threads', 'winograd', 'ranks'


def add_arguments(parser):
    jobs.add_arguments(parser, keys=KEYS)
    parser.add_argument('output', metavar='OUT.json', help='machine file to write')
    parser.add_argument('--seconds', metavar='S', type=float, default=10.0, help='time for the layers (default: 10)')


def run(args):
    job = jobs.from_arguments(args, required=('cfg',))
    world = comm.world(job.ranks)
    network = read_network(job.cfg)
    load_kernels(world, job, {})
    with bar(world.rank) as progress:
        machine = measure(world, network, mini_batch(network, job)[1], args.seconds, progress=progress, thorough=True)
    machine = replace(machine, picture=world.maximum(picture_seconds()))
    if world.rank == 0:
        write_machine(args.output, machine)
        show(machine)


@contextmanager
def bar(rank):
    """A function of the share that is done: a bar where somebody watches rank 0."""
    screen = terminal() if rank == 0 else None
    if screen is None:
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import Progress
    with Progress(console=Console(file=screen, force_terminal=True), transient=True) as shown:
        task = shown.add_task('measuring layers and links', total=1.0)
        yield lambda share: shown.update(task, completed=share)


def show(machine):
    """What was found, as two tables."""
    from rich.console import Console
    from rich.table import Table
    console = Console(highlight=False, width=110)
    table = Table(title=f'{machine.note}: GFLOP/s of convolutions, largest tile', box=None)
    for name in ('window', 'channels', 'forward', 'input gradient', 'weight gradient'):
        table.add_column(name, justify='right')
    rates = {}
    for curve in machine.curves:
        if curve.layer.filters and curve.pass_ in ('forward', 'backward_data', 'backward_weights'):
            flops = 2 * curve.layer.inputs * curve.layer.outputs * curve.layer.size ** 2 / curve.layer.groups * curve.pixels[-1]
            rates.setdefault(curve.layer, {})[curve.pass_] = f'{flops / curve.seconds[-1] / 1e9:.0f}'
    for layer, row in rates.items():
        table.add_row(f'{layer.size}x{layer.size}/{layer.stride}', f'{layer.inputs} to {layer.outputs}',
                      *(row.get(name, '') for name in ('forward', 'backward_data', 'backward_weights')))
    console.print(table)
    algorithms(console, machine)
    links = [('copying memory', f'{1e-9 / machine.copy:.1f} GB/s'), ('process without a model', f'{machine.base >> 20} MiB')]
    hosts = len(set(machine.hosts))
    if len(machine.hosts) > hosts:
        links.append(('link inside a host', f'{1e6 * machine.host_link[0]:.1f} us, {machine.host_link[1] / 1e9:.2f} GB/s'))
    if hosts > 1:
        links.append(('link between hosts', f'{1e6 * machine.net_link[0]:.0f} us, {machine.net_link[1] / 1e6:.1f} MB/s'))
    links += [(f'sum of {nbytes} bytes', f'{1e3 * seconds:.3f} ms') for nbytes, seconds in machine.sums]
    links += [('slowest rank', f'{max(machine.speeds):.2f} times the typical one')] if len(machine.speeds) > 1 else []
    for name, value in links:
        console.print(f'{name:26} {value}')


def algorithms(console, machine):
    """Times of the algorithms among which a layer may choose, the chosen one first in its row."""
    from rich.table import Table
    found = {}
    for pass_, channels, filters, h, w, algorithm, seconds in machine.algorithms:
        found.setdefault((pass_, channels, filters, h, w), []).append((seconds, algorithm))
    if not found:
        return
    table = Table(title='convolutions of 3x3: milliseconds of each algorithm on a typical tile', box=None)
    for name in ('pass', 'channels', 'map', 'quickest', 'others'):
        table.add_column(name, justify='right')
    for (pass_, channels, filters, h, w), times in found.items():
        quickest, *others = (f'{algorithm} {1e3 * seconds:.2f}' for seconds, algorithm in sorted(times))
        table.add_row(pass_.replace('_', ' '), f'{channels} to {filters}', f'{h}x{w}', quickest, ', '.join(others))
    console.print(table)
