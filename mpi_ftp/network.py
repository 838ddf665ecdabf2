"""A network: its layers in order, their shapes, who reads whom. Built from a Darknet .cfg; knows nothing of ranks or arrays."""
from fractions import Fraction

from .cfg import read_cfg
from .errors import CfgError
from .layers import convolution, pooling, routing, sampling
from .layers.head import Head
from .tile import BLOCK

ONE_INPUT = {
    'convolutional': convolution.from_section, 'connected': convolution.connected_from_section, 'maxpool': pooling.maxpool_from_section,
    'avgpool': pooling.AveragePool, 'reorg': routing.reorg_from_section, 'upsample': routing.upsample_from_section,
    'dropout': sampling.dropout_from_section, 'crop': sampling.crop_from_section,
}
HEADS = 'region', 'yolo', 'softmax'
PICTURE = -1


class Network:
    """`layers[i]` reads the outputs of `layers[i].inputs`; index -1 is the picture of shape `shape` (C, H, W)."""

    def __init__(self, shape, layers, net=None, path=None):
        self.shape, self.layers, self.net, self.path = tuple(shape), layers, net, path
        self.scales = {PICTURE: Fraction(1)}
        self.readers = {i: [] for i in range(-1, len(layers))}
        self.blocks = {PICTURE: shape[0] if shape[0] < BLOCK else BLOCK}
        for layer in layers:
            self.scales[layer.index] = layer.scale(self.scales[layer.inputs[0]])
            self.blocks[layer.index] = self.blocks[layer.inputs[0]] if layer.keeps_block else BLOCK
            if layer.tensors:
                layer.block = self.blocks[layer.inputs[0]]
            if layer.kind == 'shortcut' and {self.blocks[i] for i in layer.inputs} != {BLOCK}:
                raise CfgError(f'{path}, line {layer.section.line}: {layer.name} adds to the picture itself: expected a convolutional layer before it')
            for source in layer.inputs:
                self.readers[source].append(layer.index)

    def __len__(self):
        return len(self.layers)

    @property
    def heads(self):
        return [layer for layer in self.layers if layer.is_head]

    def channels_shape(self, index):
        """(C, H, W) of tensor `index`; -1 is the picture."""
        return self.shape if index == PICTURE else self.layers[index].out_shape

    def tensor_shape(self, index, batch):
        return (batch,) + tuple(self.channels_shape(index))

    def block(self, index):
        """Channels to a storage block of tensor `index`: the picture, and what only moves its pixels, is stored interleaved."""
        return self.blocks[index]

    @property
    def parameters(self):
        """Number of trained numbers."""
        total = 0
        for layer in self.layers:
            for name, shape in layer.tensors:
                if name not in ('mean', 'variance'):
                    size = 1
                    for n in shape:
                        size *= n
                    total += size
        return total


def read_network(path, width=None, height=None):
    """The Network of a Darknet .cfg file; width and height override those of [net].

    Raises CfgError with file, line and what was expected.
    """
    sections = read_cfg(path)
    net = sections[0]
    shape = (net.int('channels', 3), height or net.int('height', None), width or net.int('width', None))
    layers = []
    for index, section in enumerate(sections[1:]):
        if section.kind == 'cost' and index == len(sections) - 2 and layers and layers[-1].is_head:
            section.choice('type', ('sse',), 'sse')
            break                                   # from when [softmax] had no gradient of its own; Darknet now adds both, twice the same
        try:
            layer = build(index, section, layers, shape)
        except CfgError as error:
            where = f'{path}, line {section.line}: '
            raise CfgError(str(error) if str(path) in str(error) else where + str(error)) from None
        if min(layer.out_shape) < 1:
            raise CfgError(f'{path}, line {section.line}: {layer.name} has an empty output '
                           f'{"x".join(map(str, layer.out_shape))}; expected a larger picture than {shape[2]}x{shape[1]}')
        layers.append(layer)
    if not layers:
        raise CfgError(f'{path}: expected at least one layer after [net]')
    return Network(shape, layers, net, path)


def build(index, section, layers, picture):
    """The layer of one section; sources are earlier layers."""
    def shape_of(source):
        return picture if source == PICTURE else layers[source].out_shape

    kind, previous = section.kind, index - 1
    if kind in HEADS:
        return Head(kind, index, previous, shape_of(previous), section)
    if kind in ONE_INPUT:
        return ONE_INPUT[kind](index, previous, shape_of(previous), section=section)
    if kind == 'route':
        sources = [source(index, number) for number in section.ints('layers')]
        return routing.Route(index, sources, [shape_of(s) for s in sources], section.int('groups', 1, least=1), section.int('group_id', 0, least=0), section)
    if kind == 'shortcut':
        sources = [previous, source(index, section.int('from', None))]
        return routing.shortcut_from_section(index, sources, [shape_of(s) for s in sources], section)
    raise CfgError(f'layer {index} is [{kind}], a kind that mpi_ftp does not train')


def source(index, number):
    """Darknet's layer reference: negative numbers count back from the layer that refers."""
    absolute = index + number if number < 0 else number
    if not 0 <= absolute < index:
        raise CfgError(f'layer {index} refers to layer {number}, expected an earlier one (0 to {index - 1}, or -1 to -{index})')
    return absolute
