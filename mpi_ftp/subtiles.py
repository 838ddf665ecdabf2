"""Sub-tiles: a rank takes its tile of a group in parts, one after the other, so that what is inside the group never exists as a whole.

Memory-aware fusing and tiling (Farley and Gerstlauer, arXiv 2107.06960), extended to training: a part is a rank of its own as far as geometry
goes, its copies of pixels are differentiated like those of ranks, and the backward pass computes each part again. Regions only.

Live batch norm takes its moments over the whole tensor: all parts run up to that layer, the sums are settled, and all parts run again; the
same on the way back. So each such layer in a group costs a walk through the parts more, both ways (`walks`).
"""
from dataclasses import replace

from .errors import PlanError
from .geometry import owned_layout, share
from .region import Layout, Region, balanced


def obstacle(network, start, stop, cuts=()):
    """Why layers [start, stop) cannot be taken in parts, as part of a sentence; None where they can."""
    heads = [layer for layer in network.layers[start:stop] if layer.is_head]
    if heads:
        return f'{heads[0].name} takes the loss of its whole tile'
    return f'the backward pass is cut after layer {cuts[0]}' if cuts else None


def walks(network, start, stop, live=True):
    """{layer: how often a step of a parted group runs it: (z forward, y forward, z and y again, gradients of z and of inputs)}.

    live: batch norm takes moments; their sums and the gradients of weights are taken once.
    """
    norms = [index for index in range(start, stop) if live and network.layers[index].normalize]
    last = stop - 1 in norms
    return {index: (1 - last + sum(norm >= index for norm in norms), 1 - (last and index < stop - 1) + sum(norm > index for norm in norms),
                    1 + len(norms), 1 + sum(norm < index for norm in norms))
            for index in range(start, stop)}


def check(network, plan):
    """Raise PlanError where a group cannot be taken in parts."""
    for group in plan.groups:
        why = group.parted and obstacle(network, group.start, group.stop, group.cuts)
        if why:
            raise PlanError(f'layers {group.start} to {group.last} cannot be taken in {"x".join(map(str, group.parts))} parts: {why}')


def with_parts(network, plan, parts, training=True):
    """The plan with every group in `parts` that can be; in training those that are computed again."""
    def parted(group):
        fits = not obstacle(network, group.start, group.stop, group.cuts)
        return replace(group, parts=parts) if fits and (group.recompute or not training) else group

    return replace(plan, groups=tuple(map(parted, plan.groups)))


def part_shares(network, group, layouts, rank, training=True):
    """The Shares of a rank's parts; those that own nothing are left out, save one."""
    last = layouts[group.last]
    (n0, c0, y0, x0), (n1, c1, y1, x1) = last[rank].lo, last[rank].hi
    rows, columns = ([size + lo for size in balanced(hi - lo, count)] for lo, hi, count in ((y0, y1, group.parts[0]), (x0, x1, group.parts[1])))
    boxes = [Region((n0, c0, a, c), (n1, c1, b, d)) for a, b in zip(rows, rows[1:]) for c, d in zip(columns, columns[1:])]
    boxes = [box for box in boxes if not box.empty] or [last[rank]]
    layers = range(group.start, group.stop)
    owned = {index: owned_layout(network, group.last, Layout(last.shape, tuple(boxes)), index) for index in layers}
    return [share(network, group.start, group.stop, {index: owned[index][part] for index in layers}, (), training) for part in range(len(boxes))]
