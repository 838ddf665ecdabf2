"""Momentum SGD on one rank's weights, each layer's as late as it may be: before the layer runs forward again.

Until then its gradients may still be added up. What a network's late layers weigh, most of it all, thus travels during the next forward pass, too.
"""
import numpy as np

from . import kernels
from .region import Region

LANES = 2
PART = 1 << 15              # numbers that one thread takes at a time
BETWEEN = 32                # such parts between two looks at sums under way


def lanes(network, count=LANES):
    """{layer: lane}: in which part of the forward pass, of `count` that take as many operations, a layer begins."""
    flops = [layer.flops(Region.whole((1, *layer.out_shape))) for layer in network.layers]
    total, done, found = max(1, sum(flops)), 0, {}
    for layer, own in zip(network.layers, flops):
        found[layer.index] = min(count - 1, count * done // total)
        done += own
    return found


class Optimizer:
    """Steps of the weights of Parameters, whose gradients a Reduction adds up. lanes: its lanes; late: see above, else a step is complete at once.

    A step leaves zeros for gradients.
    """

    def __init__(self, parameters, reduction, lanes, late=True):
        self.reduction, self.of_layer, self.late = reduction, lanes, late
        own, shared = [], [[] for _ in reduction.lanes]
        for layer, first, last, comm in parameters.buckets:
            segments = [s for s in parameters.segments if first <= s.first < last]
            (own if comm.size == 1 else shared[lanes[layer]]).extend(segments)
        flat = parameters.flat, parameters.momentum, parameters.grads
        rows = parts(own)
        self.own = [kernels.sgd(*flat, rows[i:i + BETWEEN]) for i in range(0, len(rows), BETWEEN)]
        self.lanes = [kernels.sgd(*flat, parts(segments)) for segments in shared]
        self.done = len(self.lanes)             # lanes that have taken their step

    def step(self, rate, momentum, decay):
        """Begin a step: what no other rank shares takes it now. Decay pulls on filters only, as in Darknet."""
        self.rates, self.done = (rate, momentum, decay), 0
        for take in self.own:
            take(*self.rates)
            self.reduction.poll()
        if not self.late:
            self.settle()

    def settle(self, layers=None):
        """Complete the step of all layers, or at least of these."""
        count = len(self.lanes) if layers is None else 1 + max(self.of_layer[layer] for layer in layers)
        while self.done < count:
            self.reduction.wait(self.done + 1)
            self.lanes[self.done](*self.rates)
            self.done += 1


def parts(segments):
    """Rows (first, last, whether decay pulls) of what a step takes at a time, for kernels.sgd: segments side by side that it treats alike as one."""
    joined = []
    for s in segments:
        pulled = s.name == 'filters'
        if joined and joined[-1][1:] == [s.first, pulled]:
            joined[-1][1] = s.last
        else:
            joined.append([s.first, s.last, pulled])
    rows = [(a, min(last, a + PART), pulled) for first, last, pulled in joined for a in range(first, last, PART)]
    return np.array(rows, np.int64).reshape(-1, 3)
