"""Momentum SGD on one rank's weights, each layer's as late as it may be: before the layer runs forward again.

Until then its gradients may still be added up. What a network's late layers weigh, most of it all, thus travels during the next forward pass, too.
"""
from . import kernels
from .region import Region

LANES = 2


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
        self.parameters, self.reduction, self.of_layer, self.late = parameters, reduction, lanes, late
        self.own, self.lanes = [], [[] for _ in reduction.lanes]
        for layer, first, last, comm in parameters.buckets:
            segments = [s for s in parameters.segments if first <= s.first < last]
            (self.own if comm.size == 1 else self.lanes[lanes[layer]]).extend(segments)
        self.done = len(self.lanes)             # lanes that have taken their step

    def step(self, rate, momentum, decay):
        """Begin a step: what no other rank shares takes it now. Decay pulls on filters only, as in Darknet."""
        self.rates, self.done = (rate, momentum, decay), 0
        for segment in self.own:
            self._take(segment)
            self.reduction.poll()
        if not self.late:
            self.settle()

    def settle(self, layers=None):
        """Complete the step of all layers, or at least of these."""
        count = len(self.lanes) if layers is None else 1 + max(self.of_layer[layer] for layer in layers)
        while self.done < count:
            self.reduction.wait(self.done + 1)
            for segment in self.lanes[self.done]:
                self._take(segment)
            self.done += 1

    def _take(self, s):
        rate, momentum, decay = self.rates
        own = self.parameters
        kernels.sgd(own.flat[s.first:s.last], own.momentum[s.first:s.last], own.grads[s.first:s.last], rate, momentum, decay if s.name == 'filters' else 0.0)
