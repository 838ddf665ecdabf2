"""What every verb that runs a network sets up: losses of its heads, compiled kernels, a model with its weights, the stream of tiles."""
import os

import numpy as np

from . import checkpoint, kernels, weights
from .convert_weights import open_weights
from .errors import DataError
from .loader import Loader
from .loss import RegionLoss, SoftmaxLoss, YoloLoss, prepare
from .pictures import Pictures

LOSSES = {'region': RegionLoss, 'yolo': YoloLoss, 'softmax': SoftmaxLoss}


def losses_of(network):
    """{head's layer: its loss}. Raises CfgError for options that are wrong."""
    return {head.index: LOSSES[head.kind](head.section.options, head.in_shapes[0], network.shape) for head in network.heads}


def load_kernels(world, job, losses):
    """Compile, or load from the disk cache, what a run needs: the first rank of each host compiles while its others wait.

    The command line has put the number of threads, given or fair, into NUMBA_NUM_THREADS.
    """
    host, dtype = world.host_comm(), np.dtype(job.dtype)
    for turn in (host.rank == 0, host.rank > 0):
        if turn:
            kernels.load(dtype)
            prepare(list(losses.values()), dtype)
        host.barrier()
    kernels.set_threads(int(os.environ.get('NUMBA_NUM_THREADS', 1)))
    kernels.set_winograd(job.winograd)


def load_weights(path, parameters):
    """Fill the layers that a weights file covers; returns (pictures seen, number of layers with weights that it covers)."""
    file = open_weights(path, parameters.network)
    fill(file, parameters)
    return file.seen, sum(layer.index in file for layer in parameters.network.layers if layer.tensors)


def fill(file, parameters):
    """Read this rank's rows of every layer that an opened weights file covers."""
    for index, (first, last) in parameters.channels.items():
        if index in file:
            for name, _ in parameters.network.layers[index].tensors:
                parameters.set(index, name, file.read(index, name, first, last))


def whole_tensor(world, parameters, layer, name, flat=None):
    """A tensor in its plain shape on rank 0 (collective); where all ranks share it, on every rank without a message."""
    if len(set(parameters.sharing[layer])) == 1:
        return parameters.get(layer, name, flat)
    mine = layer in parameters.channels
    parts = world.gather((parameters.channels[layer], parameters.get(layer, name, flat)) if mine else None)
    if world.rank:
        return None
    found = {span: rows for span, rows in (p for p in parts if p)}
    return np.concatenate([found[span] for span in sorted(found)])


def tensors(world, parameters, momentum):
    """(name, whole array) of all weights, one at a time; a name is LAYER/NAME, its momentum is momentum/LAYER/NAME (collective)."""
    for layer in parameters.network.layers:
        for name, _ in layer.tensors:
            yield f'{layer.index}/{name}', whole_tensor(world, parameters, layer.index, name)
            if momentum and name in ('filters', 'bias', 'scale'):
                yield f'momentum/{layer.index}/{name}', whole_tensor(world, parameters, layer.index, name, parameters.momentum)


def save_weights(path, world, parameters, seen):
    """Write Darknet weights on rank 0 (collective)."""
    def get(layer, name):
        return whole_tensor(world, parameters, layer, name)

    if world.rank == 0:
        weights.write(path, parameters.network, seen, get)
    else:
        for layer, held in weights.stored(parameters.network, 'dontsave'):
            for name, _ in held:
                get(layer.index, name)


def save_checkpoint(path, world, parameters, meta):
    """Write weights, statistics and momentum with `meta` on rank 0 (collective)."""
    stream = tensors(world, parameters, momentum=True)
    if world.rank == 0:
        checkpoint.save(path, stream, meta)
    else:
        for _ in stream:
            pass


def load_checkpoint(path, parameters):
    """Fill this rank's rows of weights, statistics and momentum; returns the checkpoint's meta."""
    with checkpoint.Checkpoint(path) as saved:
        for index, (first, last) in parameters.channels.items():
            for name, _ in parameters.network.layers[index].tensors:
                parameters.set(index, name, saved.read(f'{index}/{name}', first, last))
                if name in ('filters', 'bias', 'scale'):
                    parameters.set(index, name, saved.read(f'momentum/{index}/{name}', first, last), parameters.momentum)
        return saved.meta


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


def check_classes(path, classes, network):
    """Refuse a data set with more classes than the network's heads tell apart."""
    for head in network.heads:
        known = head.section.int('classes', 20) if head.kind in ('region', 'yolo') else head.in_shapes[0][0]
        if len(classes) > known:
            raise DataError(f'{path} has {len(classes)} classes, but {head.name} of {network.path} tells {known} apart')
