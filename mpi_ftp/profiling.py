"""The verb `profile`: measure the hosts and links at hand, under mpirun, and write what `--machine` reads."""
from dataclasses import replace

from . import comm
from . import job as jobs
from .arguments import duration
from .files import check_writable
from .machine import write_machine
from .network import read_network
from .planning import measured, mini_batch, picture_seconds
from .profile_table import show
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
    machine = measured(world, network, mini_batch(network, job)[1], seconds=args.seconds, thorough=True)
    machine = replace(machine, picture=world.maximum(picture_seconds()))
    if world.rank == 0:
        write_machine(args.output, machine)
        show(machine)
