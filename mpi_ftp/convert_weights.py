"""The verb `weights`: lists, cuts off and converts weights between Darknet's .weights, checkpoints (.h5) and numpy's .npz.

In checkpoints and .npz files a tensor is called LAYER/NAME, such as 0/filters, in plain order: filters (F, C/groups, K, K).
What is cut off has seen no pictures, as after Darknet's `partial`: Darknet goes on with its learning rate where that number says, and would find its
max_batches long done.
"""
from pathlib import Path

import numpy as np

from . import comm, weights
from .checkpoint import Checkpoint
from .errors import UsageError, WeightsError
from .files import UNREADABLE, check_apart, check_writable, reason, replacing
from .parameters import cut_rows


class Named:
    """Tensors by name, with the verbs of WeightsFile. Raises WeightsError when a layer's tensors are missing in part or of another shape."""

    def __init__(self, path, network, shapes, read, seen):
        self.path, self.seen, self._read = path, seen, read
        self.layers = set()
        for layer in network.layers:
            found = [name for name, _ in layer.tensors if f'{layer.index}/{name}' in shapes]
            if not found:
                continue
            for name, shape in layer.tensors:
                key = f'{layer.index}/{name}'
                if shapes.get(key) != tuple(shape):
                    raise WeightsError(f'{path}: tensor {key} of {layer.name} has shape {shapes.get(key, "none")}, expected {tuple(shape)}; '
                                       'is it of another network?')
            self.layers.add(layer.index)
        if not self.layers:
            raise WeightsError(f'{path} holds no tensor of this network; expected names such as 0/filters')

    def __contains__(self, layer):
        return layer in self.layers

    def read(self, layer, name, first=None, last=None):
        return self._read(f'{layer}/{name}', first, last)


def open_weights(path, network):
    """The tensors of a .weights, .h5 or .npz file: `.seen`, `layer in it`, `.read(layer, name, first, last)`."""
    suffix = Path(path).suffix
    if suffix == '.h5':
        saved = Checkpoint(path)
        return Named(path, network, saved.shapes, saved.read, saved.meta.get('seen', 0))
    if suffix == '.npz':
        try:
            with open(path, 'rb') as file:
                arrays = dict(np.load(file))
            seen = int(arrays.get('seen', 0))
        except UNREADABLE as error:
            raise WeightsError(f'{path} is not a readable .npz file: {reason(error)}') from None
        return Named(path, network, {key: a.shape for key, a in arrays.items()}, lambda key, first, last: arrays[key][first:last], seen)
    return weights.WeightsFile(path, network)


def add_arguments(parser):
    parser.add_argument('--cfg', required=True, metavar='F', help='network, a Darknet .cfg')
    parser.add_argument('source', metavar='SOURCE', help='a .weights, checkpoint .h5 or .npz file')
    parser.add_argument('out', nargs='?', metavar='OUT', help='the .weights or .npz file to write (default: only list what is there)')
    parser.add_argument('--layers', type=int, metavar='K', help='keep only the first K layers, as in darknet19_448.conv.23')


def run(args):
    """List `source`, or write what it holds to `out`. Of several ranks one does it and the others wait."""
    world = comm.world()
    if world.rank == 0:
        _convert(args)
    world.rest()


def _convert(args):
    from .network import read_network
    network = read_network(args.cfg)
    if args.layers is not None and not 1 <= args.layers <= len(network.layers):
        raise UsageError(f'--layers {args.layers}: expected a number from 1 to {len(network.layers)}')
    if args.out is not None:
        suffix = Path(args.out).suffix
        if suffix not in ('.weights', '.npz'):
            more = '; checkpoints are written by `mpi-ftp train` alone' if suffix == '.h5' else ''
            raise UsageError(f'{args.out}: expected a name that ends in .weights or .npz{more}')
        check_writable(args.out)
        check_apart(args.out, args.source)
    source = open_weights(args.source, network)
    layers = [layer for layer in network.layers[:args.layers] if layer.index in source and layer.tensors]
    if args.out is None:
        listing(source, layers)
        return
    last = layers[-1].index + 1 if layers else 0
    seen = source.seen if args.layers is None else 0
    missing = [layer.name for layer in network.layers[:last] if layer.tensors and layer.index not in source]
    if missing:
        raise WeightsError(f'{args.source} has no tensors of {missing[0]}, but of later layers; a {suffix} file cannot say so')
    if suffix == '.npz':
        arrays = {f'{layer.index}/{name}': source.read(layer.index, name) for layer in layers for name, _ in layer.tensors}
        with replacing(args.out) as temporary, open(temporary, 'wb') as file:
            np.savez(file, seen=seen, **arrays)
    else:
        weights.write(args.out, network, seen, slices_of(network, source), args.layers if args.layers is not None else last)
    print(f'{args.out}: {sum(weights.numbers(layer.tensors) for layer in layers)} numbers of {len(layers)} layers, {seen} pictures seen')


def slices_of(network, source):
    """What weights.write asks for, from an opened source."""
    def pieces(layer, name):
        shape = dict(network.layers[layer].tensors)[name]
        for first, last in cut_rows(0, shape[0], shape, np.float32):
            yield first, source.read(layer, name, first, last)
    return pieces


def listing(source, layers):
    """A line for each tensor: shape, mean and spread."""
    print(f'{source.path}: {source.seen} pictures seen')
    for layer in layers:
        for name, shape in layer.tensors:
            array = source.read(layer.index, name)
            print(f'{layer.index:4} {layer.kind:14} {name:9} {"x".join(map(str, shape)):>18}   mean {array.mean():12.5g}   deviation {array.std():12.5g}')
