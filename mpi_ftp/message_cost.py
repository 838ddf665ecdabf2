"""What it costs to bring inputs into groups and their gradients back: copies, messages, and how far they hide behind computing.

Works on Extents, for many groups that begin at the same layer at once.
"""
from math import prod
from typing import NamedTuple

import numpy as np

from .buffers import sources_of
from .extents import cells, clip, lengths, product
from .instalments import COUNT, sums_over
from .layer_cost import HIDDEN, ITEM, SHOWN
from .network import PICTURE
from .tile import BLOCK


class Input(NamedTuple):
    """What groups read of a tensor. summed: the first layer only sums over its channels; boxes as they are stored, inside the tensor, and of the gradient;
    numbers in these."""
    source: int
    summed: bool
    stored: tuple
    held: tuple
    sizes: np.ndarray
    returns: tuple
    sizes_back: np.ndarray


class MessageCosts:
    """Prices messages between `ranks` ranks of a Machine. pace: seconds of each rank relative to the measured ones."""

    def __init__(self, network, machine, batch, pace, training=True):
        self.network, self.machine, self.batch, self.pace, self.training = network, machine, batch, pace, training
        self.ranks, self.one_host = len(pace), len(set(machine.hosts)) == 1

    def inputs(self, extents, start, rows):
        """The Inputs of the groups [start, stop) for a slice of the stops."""
        found, first = [], self.network.layers[start]
        for source in sources_of(self.network, start, int(extents.stops[rows][-1])):
            shape = self.network.tensor_shape(source, self.batch)
            stored = some_rows(extents.held(start, source), rows)
            held, back, returned = clip(stored, shape), None, None
            if self.training and source != PICTURE:
                back = clip(some_rows(extents.held(start, source, back=True), rows), shape)
                returned = product(lengths(back))
            found.append(Input(source, sums_over(first, source), stored, held, product(lengths(held)), back, returned))
        return found

    def enter(self, entries, ahead, behind, pieces, owned):
        """{part: arrays (rows,)} of entering groups with these `inputs` and of returning gradients: seconds `forward`, `backward` (copies) and `exchange`;
        of the latter those spared where a rank begins `early`, negative where it had better not, and does not; seconds that gradients are on their way `back`,
        hidden or not; `halo_bytes` that the busiest rank receives, in so many `messages`. ahead, behind: seconds that messages each way can hide behind; pieces:
        what it costs to begin early; owned(source): one row of boxes of an earlier group's tensor."""
        rows = len(entries[0].sizes)
        copied, came, near, parts = np.zeros((rows, 1)), np.zeros(rows, bool), np.ones(rows), np.ones(rows)
        there, back, halo, messages = (np.zeros(rows) for _ in range(4))
        for source, summed, stored, held, sizes, returns, sizes_back in entries:
            if source == PICTURE:
                copied = copied + sizes
                continue
            mine = owned(source)
            moved = ~same(stored, mine)
            here = overlap(held, mine)
            arriving = (sizes - here) * moved[:, None]
            near = np.minimum(near, own_part(here, sizes, mine))
            copied = copied + 2 * np.where(lies_inside(here, mine), arriving, sizes) * moved[:, None]
            owners = max(1, prod(int((side > 0).sum()) for side in lengths(mine)))
            peers = messages_to(held, arriving, mine)
            if summed and not self.one_host:
                parts = in_parts(here, sizes, mine)
                peers = peers * parts
            there += self.wire(arriving, owners, peers)
            if self.training:
                back += self.wire((sizes_back - overlap(returns, mine)) * moved[:, None], owners, peers) * (arriving.max(1) > 0)
            came |= arriving.max(1) > 0
            halo, messages = halo + arriving.max(1) * (ITEM * self.machine.halos), np.maximum(messages, peers * (arriving.max(1) > 0))
        seconds = (copied * self.pace[:copied.shape[1]]).max(1) * (ITEM * self.machine.copy)
        if not self.one_host:
            seconds = seconds + halo * (self.machine.labour * self.pace.max())
        hides = 0.0 if self.one_host else HIDDEN
        apart = parts > 1                                                                   # in instalments: see instalments.py
        near, shown = np.where(apart, 1 - 1 / parts, near), np.where(apart, 1 / parts, SHOWN)
        behind = behind + np.where(apart, ahead * (1 - 1 / parts), 0)                       # gradients of inputs take about as long as the forward pass
        hidden = np.maximum(there - hides * ahead * near, there * shown)
        early = np.where(apart, 0.0, there - hidden - pieces * came)
        exchange = np.where(apart, hidden, there - np.maximum(0, early)) + np.maximum(back - hides * behind, back * SHOWN)
        return {'forward': seconds, 'backward': seconds * came * self.training, 'exchange': exchange, 'early': early, 'back': back, 'halo_bytes': halo,
                'messages': messages}

    def cut(self, extents, index):
        """Seconds to add up the copies of a layer's gradient where the backward pass is cut after it: arrays (rows,)."""
        returned, shape = extents.held(index + 1, index, back=True), self.network.tensor_shape(index, self.batch)
        if returned is None:                # nobody in the group reads it
            return np.zeros(len(extents.stops))
        grown = product(lengths(clip(returned, shape)))
        mine = product(lengths(extents.owned[index]))
        return self.wire(np.maximum(0, grown - mine), self.ranks, 2)

    def wire(self, came, owners, peers):
        """Seconds until the busiest rank has sent and received; came: numbers that each rank receives, (rows, ranks)."""
        busiest = np.maximum(came.max(1), came.sum(1) // owners)
        latency, bandwidth = self.machine.link
        packing = 2 * busiest * (ITEM * self.machine.copy * self.pace.max())
        seconds = latency + self.machine.meeting + peers * self.machine.overhead + busiest * (ITEM * self.machine.halos / bandwidth) + packing + 2 * self.machine.call
        return np.where(busiest > 0, seconds, 0.0)


def some_rows(boxes, rows):
    return tuple(axis[:, rows] for axis in boxes)


def parts_of(boxes):
    return tuple(axis.shape[2] for axis in boxes)


def same(stored, mine):
    """Rows in which every rank stores just what it owns."""
    if parts_of(stored) != parts_of(mine):
        return np.zeros(stored[0].shape[1], bool)
    return np.logical_and.reduce([((a == b).all((0, 2))) for a, b in zip(stored, mine)])


def own_part(here, sizes, mine):
    """The part of what a layer reads that is there before messages come, and with which it can begin, of the rank with the least: arrays (rows,). Nothing where
    others own channels, as every output reads them all."""
    if parts_of(mine)[1] > 1:
        return np.zeros(len(sizes))
    return np.where(sizes > 0, here / np.maximum(1, sizes), 1.0).min(1)


def in_parts(here, sizes, mine):
    """In how many instalments channels come, as instalments.parted parts them: arrays (rows,)."""
    lo, hi = mine[1]
    blocks = np.maximum(1, -(-(hi - lo).max(-1) // BLOCK))
    return np.where((2 * here <= sizes).all(1), np.minimum(COUNT, blocks), 1)


def overlap(held, mine):
    """Numbers that each rank both holds and owns: (rows, cells of `held`)."""
    parts, other = parts_of(held), parts_of(mine)
    if parts == other:
        return product([np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0) for a, b in zip(held, mine)])
    count = min(prod(parts), prod(other))
    found = np.zeros((held[0].shape[1], prod(parts)), int)
    sides = []
    for a, b, i, j in zip(held, mine, cells(parts), cells(other)):
        a = a if a.shape[2] == 1 else a[:, :, i[:count]]
        b = b if b.shape[2] == 1 else b[:, :, j[:count]]
        sides.append(np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0))
    found[:, :count] = prod(sides)
    return found


def lies_inside(here, mine):
    """Whether a rank holds all that it owns, and so need not copy it; see step_buffers.settle_inside. here: numbers both held and owned."""
    owned = product(lengths(mine))
    count = min(here.shape[1], owned.shape[1])
    found = np.zeros(here.shape, bool)
    found[:, :count] = here[:, :count] == owned[:, :count]
    return found


def messages_to(held, came, mine):
    """Messages that the busiest rank receives: arrays (rows,)."""
    busy, rows = came.argmax(1), np.arange(len(came))
    all_of, own = 1, busy < prod(parts_of(mine))
    for a, b, i, j in zip(held, mine, cells(parts_of(held)), cells(parts_of(mine))):
        lo, hi = (side[rows, i[busy]][:, None] for side in a)
        meets = (np.minimum(hi, b[1]) > np.maximum(lo, b[0]))
        all_of = all_of * meets.sum(1)
        own = own & meets[rows, np.minimum(j[np.minimum(busy, len(j) - 1)], meets.shape[1] - 1)]
    return all_of - own
