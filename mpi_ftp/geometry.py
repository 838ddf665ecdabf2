"""What every rank owns, holds, computes and differentiates in a group of layers: Regions only.

Owned layouts are partitions; the layout of a group's last layer is given and the inner ones follow by mapping its cuts back.
"""
from dataclasses import dataclass

from .region import NOTHING, Layout, Region
from .tile import BLOCK


def owned_layout(network, last, layout, index):
    """The owned layout of tensor `index` inside a group whose last layer is `last`, cut as `layout`.

    Cut points are carried over in proportion to the scale (pixels of the picture per pixel), so that a pool's window is not split.
    """
    if index == last:
        return layout
    shape = (layout.shape[0],) + tuple(network.channels_shape(index))
    ratio = network.scales[last] / network.scales[index]

    def carry(edge, axis):
        if axis == 1:
            return channel(network, last, index, edge)
        if edge >= layout.shape[axis]:
            return shape[axis]
        return edge if axis == 0 else min(shape[axis], int(edge * ratio))

    boxes = []
    for region in layout:
        lo, hi = (tuple(carry(e, axis) for axis, e in enumerate(corner)) for corner in (region.lo, region.hi))
        box = Region(lo, hi)
        boxes.append(NOTHING if region.empty or box.empty else box)
    return Layout(shape, tuple(boxes))


def channel(network, last, index, edge):
    """Where a cut of the channels of a group's last layer lies among those of layer `index`: between whole blocks."""
    if index == last:
        return edge
    size_out, size = (network.channels_shape(i)[0] for i in (last, index))
    return size if edge >= size_out else min(size, edge * size // size_out // BLOCK * BLOCK)


@dataclass(frozen=True)
class Share:
    """One rank's part of one group; dicts from a tensor's index to a Region.

    owned: pixels counted by this rank; computed: pixels it computes (owned and redundant); held: what its tile stores (computed and
    padding), for the group's inputs too; differentiated: pixels whose gradient it carries back; gradient: what its gradient tile stores.
    """
    owned: dict
    computed: dict
    held: dict
    differentiated: dict
    gradient: dict


def exported(network, stop, index):
    """Whether layer `index` of a group that ends before layer `stop` is read outside the group, or is the network's end."""
    readers = network.readers[index]
    return not readers or any(r >= stop for r in readers)


def share(network, start, stop, owned, cuts=(), training=True):
    """The Share of one rank. owned: {layer index: this rank's owned Region}; cuts: layers after which the backward pass is cut."""
    computed, held, needs = {}, {}, {}
    for index in reversed(range(start, stop)):
        layer = network.layers[index]
        wanted = held.get(index, NOTHING)                      # from readers in the group, reaching past the tensor
        real = wanted & whole(network, index, wanted)
        if exported(network, stop, index) or layer.is_head or index in cuts or (training and layer.normalize):
            real = real | owned[index]
        computed[index] = real = all_filters(network, stop - 1, index, real, owned)
        held[index] = wanted | real
        needs[index] = layer.needs(real)
        for source, box in zip(layer.inputs, needs[index]):
            held[source] = held.get(source, NOTHING) | box
    differentiated, gradient = {}, {}
    if training:
        _walk_back(network, start, stop, owned, cuts, differentiated, gradient)
    return Share(owned, computed, held, differentiated, gradient)


def _walk_back(network, start, stop, owned, cuts, differentiated, gradient):
    for index in reversed(range(start, stop)):
        layer = network.layers[index]
        arriving = gradient.get(index, NOTHING)
        real = arriving & whole(network, index, arriving)
        if exported(network, stop, index) or layer.normalize:
            real = real | owned[index]
        if index in cuts or layer.is_head:
            real = owned[index]
        differentiated[index] = real = all_filters(network, stop - 1, index, real, owned)
        gradient[index] = arriving | real
        for source, box in zip(layer.inputs, layer.needs(real)):
            gradient[source] = gradient.get(source, NOTHING) | gradient_box(network, layer, source, box)


def all_filters(network, last, index, region, owned):
    """A region of a layer's output with all channels that its rank has the filters of, though others may read only some: filters are computed together. They
    follow from the channels that it owns of the group's last layer, as of this one it may own no pixel."""
    if not network.layers[index].tensors or region.empty or owned[last].empty:
        return region
    return region | region.replace(1, *(channel(network, last, index, corner[1]) for corner in (owned[last].lo, owned[last].hi)))


def gradient_box(network, layer, source, need):
    """Where a layer writes the gradient of an input: inside the tensor, except a max-pool, whose windows cover the padding too."""
    return need if layer.pad_value else need & whole(network, source, need)


def whole(network, index, region):
    """The tensor's box, over the samples of `region`."""
    c, h, w = network.channels_shape(index)
    return Region((region.lo[0], 0, 0, 0), (region.hi[0], c, h, w))
