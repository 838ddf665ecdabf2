"""The verb `profile`: measure the hosts and links at hand, under mpirun, and write what `--machine` reads."""
from contextlib import contextmanager
from dataclasses import replace

from . import comm
from . import job as jobs
from .arguments import duration
from .files import check_writable
from .machine import write_machine
from .measuring import measure
from .network import read_network
from .planning import mini_batch, picture_seconds
from .profile_table import show
from .runfolder import terminal
from .session import load_kernels

KEYS = 'cfg', 'batch', 'subdivisions', 'threads', 'winograd', 'ranks'


def add_arguments(parser):
    jobs.add_arguments(parser, keys=KEYS)
    parser.add_argument('output', metavar='OUT.json', help='machine file to write')
    parser.add_argument('--seconds', metavar='S', type=duration, default=10.0, help='time for the layers (default: 10)')


def run(args):
    job = jobs.from_arguments(args, required=('cfg',))
    world = comm.world(job.ranks)
    if world.rank == 0:
        check_writable(args.output)
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
