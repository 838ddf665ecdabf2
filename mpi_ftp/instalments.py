"""Inputs that arrive in instalments: where a layer reads channels that others own, it begins with the first of them while the rest travels.

A convolution is a sum over input channels. So every owner sends some of its channels first, then some more; the reader sums over what is there, and adds
the rest later. Gradients go back in the same parts: those of the first channels leave while those of others are computed. What travels is the same, and so
are the multiplications.
"""
import numpy as np

from .region import NOTHING, Layout, Region
from .tile import BLOCK

COUNT = 3                   # instalments, where owners have so many blocks of channels


class Instalments:
    """Exchanges between the same two tiles, each with a part of what travels: takes the place of one Exchange. taken: for each, the input blocks that are there
    once it is finished, and were not before."""

    def __init__(self, exchanges, taken):
        self.exchanges, self.taken, self.open = exchanges, taken, []

    def all_of(self, name):
        return [each for exchange in self.exchanges for each in getattr(exchange, name)]

    sends, receives, out, into = (property(lambda self, name=name: self.all_of(name)) for name in ('sends', 'receives', 'out', 'into'))

    @property
    def bytes_sent(self):
        return sum(exchange.bytes_sent for exchange in self.exchanges)

    def start_forward(self, x, y):
        self.open = list(self.exchanges)
        for exchange in self.exchanges:
            exchange.start_forward(x, y)

    def start_backward(self, dx, dy, add=False):
        for k in range(len(self.exchanges)):
            self.return_part(k, dx, dy, add)

    def return_part(self, k, dx, dy, add=False):
        """Begin to send the gradients of the k-th instalment back, the first one first; see Exchange.start_backward."""
        self.exchanges[k].start_backward(dx, dy, add or k > 0)
        self.open = [*self.open, self.exchanges[k]] if k else [self.exchanges[0]]

    def finish_next(self, meanwhile):
        """Wait for the next instalment."""
        self.open.pop(0).finish(meanwhile)

    def finish(self, meanwhile):
        """Wait for all that are left."""
        while self.open:
            self.finish_next(meanwhile)


def sums_over(layer, source):
    """Whether a layer's output is a sum over the channels of `source`, and of nothing else."""
    return layer.sums_channels and layer.inputs == (source,)


def parted(layout, held, count=COUNT):
    """[(Layout of the channels that owners send then, their blocks)]: at most `count` instalments in which a tensor comes to those who hold all its channels.
    Nothing where that is one, or where a rank has more than half of what it holds (it had better begin there). held: for each rank, of the tensor."""
    inside = [box & Region.whole(layout.shape) for box in held]
    if any(2 * (mine & box).size > box.size for mine, box in zip(layout, inside) if not box.empty):
        return []
    found = []
    for k in range(count):
        part = Layout(layout.shape, tuple(some_channels(box, k, count) for box in layout))
        spans = {(box.lo[1] // BLOCK, -(-box.hi[1] // BLOCK)) for box in part if not box.empty}
        if spans:
            found.append((part, np.concatenate([np.arange(*span) for span in sorted(spans)])))
    return found if len(found) > 1 else []


def some_channels(box, k, count):
    """The k-th of `count` parts of a box along its channels, whole blocks each but the last."""
    lo, hi = box.lo[1], box.hi[1]
    blocks = -(-(hi - lo) // BLOCK)
    first, last = (min(hi, lo + blocks * i // count * BLOCK) for i in (k, k + 1))
    return box.replace(1, first, last) if first < last else NOTHING
