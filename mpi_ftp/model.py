"""A plan compiled to stages: the network as one rank runs it. Everything is decided in the constructor.

Training is: run the groups forwards, take the loss at the heads, run them backwards, while gradients are being summed.
"""
from functools import partial

import numpy as np

from . import kernels
from .exchange import Exchange
from .group import GroupRun
from .layers.base import State
from .layers.convolution import algorithms
from .limits import trim
from .memory import Arena
from .optimizer import Optimizer, lanes
from .parameters import Parameters, holders
from .parted import PartedRun
from .reduction import Reduction
from .region import Layout, Region
from .step_buffers import group_buffers
from .subtiles import check
from .tile import BLOCK, Tile


class Model:
    """One rank's part of a network under a plan.

    training: keep tapes and gradients; frozen: batch norm uses running statistics even in training; overlap: compute while halos and channels travel between
    hosts ('always': within a host too, where parting the work costs more than the wait), look after sums in the midst of kernels, and take late layers' steps in the next forward pass.
    deterministic: sums of gradients do not depend on where ranks run; halos, gradients: 'half' sends them in half precision.
    losses: {head's layer: loss}, see loss.py; without one a head can only run forward. parameters: of another Model with the same `holders`, to
    share its weights; pages: memory for its tiles, shared with Models that never work at the same time. paged: weights live in a file, in memory
    are those of the group at work (inference).
    """

    def __init__(self, network, plan, comm, dtype=np.float32, training=True, frozen=False, overlap=True, losses=None, parameters=None,
                 deterministic=False, halos='full', gradients='full', paged=False, pages=None):
        self.network, self.plan, self.comm, self.dtype = network, plan, comm, np.dtype(dtype)
        self.training, self.overlap, self.losses = training, overlap, losses or {}
        check(network, plan)
        self.half_halos, self.aside = halos == 'half', self.poll if training and overlap and comm.size > 1 else None
        self.layouts = plan.layouts(network)
        self.shares = [[plan.share(network, self.layouts, g, rank, training) for rank in range(comm.size)] for g in plan.groups]
        self.tag, self.seeds, self.arrived, self.outputs, self.gathers, self.watched, self.pending = 0, {}, set(), {}, {}, None, None
        self.parameters = parameters or self._parameters(paged)
        if training:
            order = lanes(network)
            self.reduction = Reduction(self.parameters.grads, self.parameters.buckets, deterministic, gradients == 'half', order)
            self.optimizer = Optimizer(self.parameters, self.reduction, order, late=bool(overlap))
        self.states = {layer.index: self._state(layer, training and not frozen) for layer in network.layers}
        buffers = group_buffers(network, plan, self.layouts, self.shares, comm.rank, self.dtype, training)
        self.arena = Arena([b for group in buffers for b in group.declare()], pages)
        self.groups, self.home, self.parts = [], {}, {}
        for group, shares, mine in zip(plan.groups, self.shares, buffers):
            run = (PartedRun if group.parted else GroupRun)(self, group, self.layouts, shares, mine, self.arena)
            self.groups.append(run)
            self.home.update({index: run for index in run.layers})
        self.picture = plan.picture_region(network, comm.rank, training)

    # what the constructor decides

    def _parameters(self, paged):
        """Weights of the computed channels, and the ranks that share them."""
        channels, comms, sharing, made = {}, {}, holders(self.network, self.plan, self.shares), {}
        for index, spans in sharing.items():
            layer, mine = self.network.layers[index], spans[self.comm.rank]
            # every rank makes the same communicators in the same order
            if len(set(spans)) == 1:
                comm = self.comm
            elif layer.tensors:
                if spans not in made:
                    colours = {span: colour for colour, span in enumerate(dict.fromkeys(s for s in spans if s))}
                    made[spans] = self.comm.split(colours.get(mine))
                comm = made[spans]
            if mine is not None and layer.tensors:
                channels[index], comms[index] = mine, comm
        return Parameters(self.network, channels, comms, sharing, self.dtype, self.training, paged)

    def _state(self, layer, live):
        index, shape = layer.index, layer.out_shape
        present = not layer.tensors or index in self.parameters.channels
        channels = self.parameters.channels.get(index, (0, shape[0] if present else 0))
        grads = self.parameters.views(index, self.parameters.grads) if self.training else {}
        weights = self.parameters.weights(index) if index in self.parameters.channels else {}
        comm = self.parameters.comms.get(index)
        reduce, begin = (partial(add, meanwhile=self.poll) for add in (comm.sum, comm.begin_sum)) if comm else (None, None)
        return State(present, channels, (-(-(channels[1] - channels[0]) // BLOCK), BLOCK), self.dtype, weights, grads, self.training, live,
                     reduce, begin, self.plan.batch * shape[1] * shape[2], algorithm=algorithms(layer, self.dtype))

    def next_tag(self):
        self.tag += 1
        return self.tag

    def overlaps(self, peer):
        """Whether to compute while a message of this rank is under way."""
        return self.overlap == 'always' or (self.overlap and not self.comm.same_host(peer))

    def asks_for_sums(self, index):
        """Whether the group of layer `index` sums over ranks, for batch norm, on its way back from there."""
        layers = [i for i in self.home[index].layers if i <= index and self.network.layers[i].normalize and self.states[i].live]
        return any(self.parameters.comms[i].size > 1 for i in layers if i in self.parameters.comms)

    def whole(self, index):
        """The box of tensor `index` over the mini-batch."""
        return Region.whole(self.network.tensor_shape(index, self.plan.batch))

    @property
    def bytes_moved(self):
        """What this rank sends or receives, the larger of both, in all exchanges of a training step."""
        moved = [0, 0]
        for group in self.groups:
            for exchange, forward in group.travels():
                for way, buffers in enumerate((exchange.out, exchange.into)):
                    moved[way ^ (not forward)] += sum(a.nbytes for a in buffers)
        return max(moved)

    # what the groups ask for

    def owned_tile(self, index):
        """This rank's own part of a layer's output, as a view of the tile that its group writes."""
        return self._owned(index, 'tiles')

    def gradient_tile(self, index):
        """The gradient of `owned_tile`, as a view of the tile that its group reads."""
        return self._owned(index, 'd')

    def _owned(self, index, which):
        """The part of one of a layer's tiles that this rank owns: the same object in every step."""
        if (index, which) not in self.parts:
            region = self.layouts[index][self.comm.rank]
            self.parts[index, which] = Tile(region, getattr(self.home[index], which)[index][region])
        return self.parts[index, which]

    def receive_gradient(self, source, exchange):
        """Add what a group returns for one of its inputs to the gradient of the layer that made it."""
        if source not in self.arrived:
            home = self.home[source]
            if ('d', source) not in home.buffers.inside:
                home.d[source].array.fill(0)
            self.arrived.add(source)
        exchange.finish(self.poll)

    def at_head(self, index, cells, source, output):
        """A head's input is ready: take the loss and its gradient, or Darknet's layer output."""
        loss = self.losses.get(index)
        if loss is None or cells.empty:
            self.seeds[index] = np.zeros(cells.shape, self.dtype)
            return
        x = source.plain(self.network.layers[index].needs(cells)[0])
        if self.truths is None:
            output.set_plain(cells, loss.activate(x))
            self.outputs[index] = (cells, x)
            return
        value, dx, stats = loss(x, cells, self.truths, self.seen)
        self.value += value
        self.seeds[index] = dx
        for name, number in stats.items():
            self.stats[name] = self.stats.get(name, 0.0) + number

    def later(self, index, work):
        """Gradients of weights, which nobody waits for: taken while messages travel. One at a time; its tiles last until the next layer's gradient is written."""
        self.catch_up()
        self.pending = index, work
        if self.comm.size == 1:
            self.catch_up()

    def catch_up(self):
        """Do what waits to be done."""
        if self.pending:
            (index, work), self.pending = self.pending, None
            work()
            self.differentiated(index)

    def differentiated(self, index):
        """A layer's gradients are complete: begin sums that wait for it, let those under way progress."""
        if self.reducing:
            self.reduction.start_after(index)

    def poll(self):
        """Let sums of gradients progress, in the midst of a group."""
        if self.training:
            self.reduction.poll()

    # a step

    def forward(self, picture, truths=None, seen=0, key=0):
        """Run forwards on a plain tile of the picture (this rank's `picture` region). With truths, returns this rank's share of the loss.

        picture: array (n, h, w, C) or blocked, of region `self.picture`; truths: see loss.py, over the whole mini-batch.
        """
        self.truths, self.seen, self.value, self.stats = truths, seen, 0.0, {}
        for state in self.states.values():
            state.key = key * 1000003 + 17
        for index, state in self.states.items():
            state.key += index
        tile = Tile(self.picture, picture)
        with kernels.looking_aside(self.aside):
            for group in self.groups:
                if self.training:
                    self.optimizer.settle(group.layers)
                group.forward(tile)
                self.parameters.release(group.layers)
        return self.value

    def backward(self, reduce=True):
        """Run backwards from the losses of the last forward; adds to the gradients. reduce: this completes the batch, sum over ranks."""
        self.reducing = reduce
        self.arrived.clear()
        with kernels.looking_aside(self.aside):
            for group in reversed(self.groups):
                group.backward()
            self.catch_up()

    def rest(self):
        """Complete the step, and give back to the system what holds nothing until the next one: tiles, gradients, what kernels work in."""
        from .kernels import threads
        self.optimizer.settle()
        self.arena.release()
        self.parameters.release_gradients()
        threads.forget()
        trim()

    def first_not_finite(self, picture, truths):
        """The first layer with an output on this rank that is not finite; the number of layers if there is none. Runs forward (collective)."""
        self.watched = []
        self.forward(picture, truths)
        found, self.watched = self.watched, None
        return min(found, default=len(self.network))

    def gather(self, index):
        """The whole output of a layer as (N, C, H, W) on rank 0, None elsewhere. Valid after forward where its tile still lives."""
        if index not in self.gathers:
            layout, block = self.layouts[index], self.network.block(index)
            exchange = Exchange(self.comm, layout, Layout.on_rank(layout.shape, self.comm.size), 0.0, block, self.dtype, self.next_tag())
            self.gathers[index] = exchange, Tile.zeros(exchange.dst, block, self.dtype)
        exchange, whole = self.gathers[index]
        exchange.forward(self.owned_tile(index), whole)
        return whole.plain() if self.comm.rank == 0 else None
