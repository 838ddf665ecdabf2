"""Weights on their way to and from files, slice by slice: no rank ever holds a tensor of which it computes only a part.

Rank 0 reads and writes, so that a file need only be on its host: it sends slices to those who hold their rows, and receives them from their owners.
Knows ranks and parameters, not what a file looks like.
"""
import json

import numpy as np

from . import checkpoint, weights
from .convert_weights import open_weights
from .errors import WeightsError
from .parameters import TRAINED, cut_rows

TAG = 32000                 # of slices; exchanges count from 1
PLACE = {'iteration': int, 'seen': int, 'seed': int, 'loader': list}        # where a run stood, in the meta of its checkpoint


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
    """(name, shape, pieces) of all weights, statistics and momentum; a name is LAYER/NAME, its momentum is momentum/LAYER/NAME."""
    for layer, name, shape, key, flat in states(parameters):
        yield key, shape, pieces(world, parameters, layer.index, name, flat)


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


def load_checkpoint(path, world, parameters):
    """Fill weights, statistics and momentum on all ranks from a file that rank 0 reads; returns the checkpoint's meta (collective). Raises WeightsError where
    it is of another network or does not say where its run stood."""
    saved = None

    def look():
        nonlocal saved
        saved = checkpoint.Checkpoint(path)
        for name, kind in PLACE.items():
            found = saved.meta.get(name)
            if type(found) is not kind or kind is int and found < 0 or kind is list and [type(number) for number in found] != [int, int]:
                raise WeightsError(f'{path} does not say where its run stood: {name} is {json.dumps(found)}')
        for layer, name, shape, key, _ in states(parameters):
            found = saved.shapes.get(key, tuple(shape))          # of a missing one tells `read`
            if found != tuple(shape):
                raise WeightsError(f'{path}: tensor {layer.index}/{name} of {layer.name} has shape {found}, expected {tuple(shape)}; is it of another network?')
        return saved.meta
    meta = world.from_first(look)
    for layer, name, _, key, flat in states(parameters):
        hand_out(world, parameters, layer.index, name, lambda *rows, key=key: saved.read(key, *rows), flat)
    if saved:
        saved.close()
    return meta


def states(parameters):
    """(layer, name, shape, name in a checkpoint, flat array) of all weights, statistics and momentum."""
    for layer in parameters.network.layers:
        for name, shape in layer.tensors:
            yield layer, name, shape, f'{layer.index}/{name}', None
            if name in TRAINED:
                yield layer, name, shape, f'momentum/{layer.index}/{name}', parameters.momentum


def hand_out(world, parameters, layer, name, read, flat=None):
    """Fill a tensor's rows wherever they are held with what read(first, last) gives on rank 0 (collective)."""
    shape, spans = dict(parameters.network.layers[layer].tensors)[name], parameters.sharing[layer]
    for _, span in owners(spans):
        holders = [rank for rank, held in enumerate(spans) if held == span]
        for first, last in cut_rows(*span, shape, parameters.dtype):
            rows = np.ascontiguousarray(read(first, last), parameters.dtype) if world.rank == 0 else None
            if len(holders) == world.size:
                rows = world.broadcast(rows)
            elif world.rank == 0:
                for rank in holders:
                    if rank:
                        world.send(rows, rank, TAG)
            elif world.rank in holders:
                rows = np.empty((last - first,) + tuple(shape[1:]), parameters.dtype)
                world.receive(rows, 0, TAG)
            if world.rank in holders:
                parameters.set(layer, name, rows, flat, first)
                parameters.release([layer])


class WeightsSource:
    """A file of weights that rank 0 reads for all ranks. seen: pictures that it was trained on; covered: layers whose weights it holds. Made collectively;
    raises WeightsError."""

    def __init__(self, path, world, network):
        self.world, self.file = world, None
        self.seen, self.covered = world.from_first(lambda: self._open(path, network))

    def _open(self, path, network):
        self.file = open_weights(path, network)
        return self.file.seen, {layer.index for layer in network.layers if layer.tensors and layer.index in self.file}

    def fill(self, parameters):
        """Fill what the file covers of the parameters' layers (collective)."""
        for layer in parameters.network.layers:
            if layer.index in self.covered:
                for name, _ in layer.tensors:
                    hand_out(self.world, parameters, layer.index, name, lambda *rows, at=(layer.index, name): self.file.read(*at, *rows))
