"""What every verb that runs a network sets up: losses of its heads, compiled kernels, a model with its weights, the stream of tiles."""
import os

import numpy as np

from . import kernels
from .errors import CfgError, DataError
from .limits import trim
from .loader import Loader
from .loss import RegionLoss, SoftmaxLoss, YoloLoss, prepare
from .network import read_network
from .pictures import Pictures
from .telling import telling

LOSSES = {'region': RegionLoss, 'yolo': YoloLoss, 'softmax': SoftmaxLoss}


def read_headed(cfg, purpose):
    """The Network of a .cfg that has a head. Raises CfgError."""
    network = read_network(cfg)
    if not network.heads:
        raise CfgError(f'{cfg} ends in [{network.layers[-1].kind}]: expected a [region], [yolo] or [softmax] layer to {purpose}')
    return network


def losses_of(network):
    """{head's layer: its loss}. Raises CfgError for options that are wrong."""
    losses = {}
    for head in network.heads:
        try:
            losses[head.index] = LOSSES[head.kind](head.section.options, head.in_shapes[0], network.shape)
        except CfgError as error:
            raise CfgError(f'{head.section.path}:{head.section.line}: {error}') from None
    return losses


def load_kernels(world, job, losses):
    """Compile, or load from the disk cache, what a run needs: the first rank of each host compiles while its others sleep.

    The command line has put the number of threads, given or fair, into NUMBA_NUM_THREADS.
    """
    host, dtype = world.host_comm(), np.dtype(job.dtype)
    with telling('preparing kernels, which each machine compiles once', world.rank == 0) as tell:
        for turn in (host.rank == 0, host.rank > 0):
            if turn:
                kernels.load(dtype, lambda done, total: tell(done / total))
                prepare(list(losses.values()), dtype)
            host.rest()
        world.rest()
    trim()
    kernels.set_threads(int(os.environ.get('NUMBA_NUM_THREADS', 1)), host.size)
    kernels.set_winograd(job.winograd)


class Feed:
    """Mini-batches of this rank's tile. reader 'all': every rank reads its hyperslab; 'one': rank 0 reads and hands tiles out."""

    def __init__(self, world, path, split, net_shape, region, reader='all', **options):
        self.world, self.one = world, reader == 'one' and world.size > 1
        self.dtype = options.get('dtype', np.float32)
        regions = world.gather(region) if self.one else region
        self.loader = None
        if not self.one or world.rank == 0:
            self.pictures = Pictures(path)
            self.loader = Loader(self.pictures, split, net_shape, regions, **options)
            about = (len(self.loader), self.pictures.classes)
        else:
            about = None
        self.samples, self.classes = world.broadcast(about) if self.one else about

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        if self.loader is not None:
            self.loader.close()
            self.pictures.close()

    def next(self):
        """(tile, truths, ids, draws, state) of the next mini-batch; None at the end of a single pass."""
        if not self.one:
            batch = self.loader.next()
            return batch and (batch.tiles, batch.truths, batch.ids, batch.draws, batch.state)
        batch = self.loader.next() if self.loader else None
        parts = [batch and (tile, batch.truths, batch.ids, batch.draws, batch.state) for tile in
                 (batch.tiles if batch else [None] * self.world.size)] if self.loader else None
        return self.world.hand_out(parts)


def splits_of(world, job, split, network):
    """The splits of the job's data, on ranks that read them, else None. Raises DataError where `split`, or the job's val_split, is not among them,
    where pictures are not labelled as the network's heads learn, or with more classes than these tell apart."""
    if job.reader == 'one' and world.rank > 0:
        return None
    with Pictures(job.data) as pictures:
        pictures.indices(split)
        if job.val_split not in (None, 'none'):
            pictures.indices(job.val_split)
        for head in network.heads:
            if pictures.labelled != (head.kind == 'softmax'):
                has, wants = ('one class a picture', 'boxes')[::1 if pictures.labelled else -1]
                raise DataError(f'{job.data} holds {has}, but {head.name} of {network.path} learns {wants}')
            if len(pictures.classes) > classes_of(head):
                raise DataError(f'{job.data} has {len(pictures.classes)} classes, but {head.name} of {network.path} tells {classes_of(head)} apart')
        return pictures.splits


def classes_of(head):
    """How many classes a head tells apart."""
    return head.section.int('classes', 20) if head.kind in ('region', 'yolo') else head.in_shapes[0][0]
