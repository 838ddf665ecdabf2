"""The verb `warmup`: compiles all kernels ahead, so that the first run on a machine starts at once."""
import time

import numpy as np

from . import comm, kernels
from .job import add_arguments as add_keys
from .job import from_arguments
from .loss import RegionLoss, SoftmaxLoss, YoloLoss, prepare
from .network import read_network
from .session import losses_of
from .telling import telling


def add_arguments(parser):
    add_keys(parser, keys=('cfg', 'dtype', 'ranks'))


def any_losses():
    """One loss of each kind: their compiled loops are those of every network."""
    picture = 3, 32, 32
    return [RegionLoss({'classes': '1'}, (6, 1, 1), picture), YoloLoss({'classes': '1'}, (6, 1, 1), picture), SoftmaxLoss({}, (2, 1, 1), picture)]


def run(args):
    """Each host compiles once, on its first rank; under mpirun all hosts at the same time."""
    job = from_arguments(args)
    world = comm.world(job.ranks)
    losses = list(losses_of(read_network(job.cfg)).values()) if job.cfg else any_losses()
    host, begun = world.host_comm(), time.perf_counter()
    if host.rank == 0:
        with telling('compiling kernels', world.rank == 0) as tell:
            kernels.load(np.dtype(job.dtype), lambda done, total: tell(done / total))
            prepare(losses, np.dtype(job.dtype))
    host.rest()                     # whoever waits in MPI itself takes a core from who compiles
    world.rest()
    times = world.gather((host.rank, world.host, time.perf_counter() - begun))
    if world.rank == 0:
        for rank, name, seconds in times:
            if rank == 0:
                print(f'{name}: {job.dtype} kernels are ready after {seconds:.1f} s', flush=True)
