"""Weights on their way to and from files, slice by slice: no rank ever holds a tensor of which it computes only a part.

Each rank reads its own rows. Rank 0 writes; it receives from the owners of other rows one slice at a time. Knows ranks and parameters, not
what a file looks like.
"""
import numpy as np

from . import checkpoint, weights
from .errors import WeightsError
from .parameters import TRAINED, cut_rows

TAG = 32000                 # of slices; exchanges count from 1


def owners(spans):
    """[(rank, (first, last))] in the order of rows: who sends which rows, the lowest rank where several hold them."""
    found = {}
    for rank, span in enumerate(spans):
        if span:
            found.setdefault(span, rank)
    return [(rank, span) for span, rank in sorted(found.items())]


def pieces(world, parameters, layer, name, flat=None):
    """(first row, rows) of a tensor, in order, on rank 0; the other ranks send theirs and yield nothing (collective)."""
    shape = dict(parameters.network.layers[layer].tensors)[name]
    for rank, span in owners(parameters.sharing[layer]):
        for first, last in cut_rows(*span, shape, parameters.dtype):
            if rank == world.rank:
                rows = parameters.get(layer, name, flat, (first, last))
                if rank:
                    world.send(rows, 0, TAG)
            elif world.rank == 0:
                rows = np.empty((last - first,) + tuple(shape[1:]), parameters.dtype)
                world.receive(rows, rank, TAG)
            if world.rank == 0:
                yield first, rows


def tensors(world, parameters):
    """(name, shape, pieces) of all weights and their momentum; a name is LAYER/NAME, its momentum is momentum/LAYER/NAME."""
    for layer in parameters.network.layers:
        for name, shape in layer.tensors:
            yield f'{layer.index}/{name}', shape, pieces(world, parameters, layer.index, name)
            if name in TRAINED:
                yield f'momentum/{layer.index}/{name}', shape, pieces(world, parameters, layer.index, name, parameters.momentum)


def save_weights(path, world, parameters, seen):
    """Write Darknet weights on rank 0 (collective)."""
    def get(layer, name):
        return pieces(world, parameters, layer, name)

    if world.rank == 0:
        weights.write(path, parameters.network, seen, get)
    else:
        for layer, held in weights.stored(parameters.network, 'dontsave'):
            for name, _ in held:
                send(get(layer.index, name))


def save_checkpoint(path, world, parameters, meta):
    """Write weights, statistics and momentum with `meta` on rank 0 (collective)."""
    if world.rank == 0:
        checkpoint.save(path, tensors(world, parameters), meta)
    else:
        for _, _, mine in tensors(world, parameters):
            send(mine)


def send(mine):
    """Walk through the slices of a rank that does not write."""
    for _ in mine:
        raise RuntimeError('only rank 0 receives slices')


def load_checkpoint(path, parameters):
    """Fill this rank's rows of weights, statistics and momentum; returns the checkpoint's meta. WeightsError where it is of another network."""
    with checkpoint.Checkpoint(path) as saved:
        for index in parameters.channels:
            layer = parameters.network.layers[index]
            for name, shape in layer.tensors:
                for prefix, flat in (('', None), ('momentum/', parameters.momentum))[:2 if name in TRAINED else 1]:
                    found = saved.shapes.get(f'{prefix}{index}/{name}', tuple(shape))          # of a missing one tells `read`
                    if found != tuple(shape):
                        raise WeightsError(f'{path}: tensor {index}/{name} of {layer.name} has shape {found}, expected {tuple(shape)}; is it of another network?')
                    for first, last in parameters.pieces(index, name):
                        parameters.set(index, name, saved.read(f'{prefix}{index}/{name}', first, last), flat, first)
        return saved.meta
