"""What the tests of the SPMD core share: small networks, a loss that any rank can evaluate on its cells, and comparison with one rank."""
import os

import numpy as np

from mpi_ftp import comm as comm_module
from mpi_ftp.model import Model
from mpi_ftp.network import read_network
from mpi_ftp.plan import by_hand

NET = '[net]\nwidth={w}\nheight={h}\nchannels={c}\n'
CONV = '[convolutional]\nfilters={f}\nsize={k}\nstride={s}\npad={p}\nactivation={a}\nbatch_normalize={bn}\n'
REGION = '[region]\nanchors=1,1\nnum=1\nclasses={c}\ncoords=4\n'


def conv(f, k=3, s=1, a='leaky', bn=1, p=1, more=''):
    return CONV.format(f=f, k=k, s=s, p=p, a=a, bn=bn) + more


POOL = '[maxpool]\nsize=2\nstride=2\n'
HEAD = conv(18, k=1, a='linear', bn=0) + REGION.format(c=13)

NETWORKS = {
    'tiny-yolo': conv(16) + POOL + conv(24) + POOL + conv(32) + POOL + conv(40) + conv(20, k=1) + HEAD,
    'residual': conv(16) + conv(32, s=2) + conv(16, k=1) + conv(32) + '[shortcut]\nfrom=-3\nactivation=leaky\n' + conv(32, s=2) + conv(16, k=1)
    + conv(32, a='linear') + '[shortcut]\nfrom=-3\nactivation=linear\n' + HEAD,
    'reorg': conv(16) + POOL + conv(16) + POOL + conv(32) + '[route]\nlayers=-3\n' + '[reorg]\nstride=2\n' + '[route]\nlayers=-1,-3\n' + conv(24)
    + HEAD,
    'strided': conv(16, k=5, s=2) + conv(24, s=2, a='mish') + conv(16, k=1, s=1, a='swish') + conv(32, k=3, s=3, bn=0, a='relu')
    + conv(20, k=3, a='logistic') + HEAD,
    'deep': ''.join(conv(16, bn=i % 2) for i in range(7)) + HEAD,
    'upsample': conv(16) + POOL + conv(20) + POOL + conv(24) + '[upsample]\nstride=2\n' + '[route]\nlayers=-1,2\n' + conv(16, k=1)
    + '[maxpool]\nsize=2\nstride=1\n' + conv(16, more='groups=4\n') + '[dropout]\nprobability=.3\n' + HEAD,
    'pads': conv(16) + '[maxpool]\nsize=3\nstride=1\n' + '[route]\nlayers=0\n' + conv(16) + '[shortcut]\nfrom=1\nactivation=leaky\n'
    + conv(16, k=3, more='dilation=2\n') + HEAD,
}


class Quadratic:
    """value = sum of x t + x² / 2 with t a fixed function of the global position: gradient t + x."""

    def __call__(self, x, cells, truths, seen):
        n, c, h, w = (np.arange(a, b, dtype=np.float64) for a, b in zip((cells.lo[0], 0, cells.lo[2], cells.lo[3]),
                                                                         (cells.hi[0], x.shape[1], cells.hi[2], cells.hi[3])))
        t = np.sin(n[:, None, None, None] + 3 * c[:, None, None] + .7 * h[:, None] + .3 * w)
        return float((x * t + x * x / 2).sum()), (x + t).astype(x.dtype), {}

    def activate(self, x):
        return x


def make_network(tmp_path, text, h, w, c=3, name='net.cfg'):
    path = tmp_path / name
    own = path.with_name(f'{name}.{os.getpid()}')           # ranks share tmp_path: nobody may read a piece of what another writes
    own.write_text(NET.format(h=h, w=w, c=c) + text)
    os.replace(own, path)
    return read_network(path)


def picture(network, batch, region, seed=5):
    """The part `region` of a random mini-batch, as a stored array."""
    rng = np.random.default_rng(seed)
    whole = rng.random((batch,) + tuple(network.shape)).transpose(0, 2, 3, 1)[:, None]
    (n0, _, y0, x0), (n1, _, y1, x1) = region.lo, region.hi
    return np.ascontiguousarray(whole[n0:n1, :, y0:y1, x0:x1])


def run(network, plan, comm, dtype=np.float64, steps=2, variance=0.0, **options):
    """Some steps of training; returns (losses, {(layer, name): rows}, model): weights, statistics and gradients afterwards."""
    losses = {head.index: Quadratic() for head in network.heads}
    model = Model(network, plan, comm, dtype, losses=losses, **options)
    model.parameters.initialise(3)
    for statistics in model.parameters.statistics.values():
        statistics['variance'][...] = variance
    values = []
    for step in range(steps):
        model.arena.memory.view(dtype)[:] = np.nan         # whatever a step reads, it must have written
        value = model.forward(picture(network, plan.batch, model.picture).astype(dtype), [None] * plan.batch, key=step)
        model.backward()
        values.append(float(comm.sum(np.array([value]))[0]))
        if step == steps - 1:
            model.reduction.wait()
            gradients = model.parameters.grads.copy()
        model.optimizer.step(1e-4, .9, 1e-3)
    model.optimizer.settle()
    found = {}
    for index in model.parameters.channels:
        for name, _ in network.layers[index].tensors:
            found[index, name] = model.parameters.get(index, name)
            if name in ('filters', 'bias', 'scale'):
                found[index, name, 'gradient'] = model.parameters.get(index, name, gradients)
    return values, found, model


def compare_with_one_rank(network, plan, comm, tolerance=1e-12, dtype=np.float64, **options):
    """Raise AssertionError on any rank whose rows differ from those of one rank doing everything, layer by layer."""
    alone = comm_module.Alone()
    one = by_hand(network, 1, plan.batch, (1, 1), [0])
    values, truth, _ = run(network, one, alone, dtype)
    mine, found, model = run(network, plan, comm, dtype, **options)
    np.testing.assert_allclose(mine, values, rtol=tolerance)
    worst = 0.0
    for key, rows in found.items():
        first, last = model.parameters.channels[key[0]]
        want = truth[key][first:last]
        scale = np.abs(truth[key]).max()
        error = np.abs(rows - want).max() / scale if scale else np.abs(rows).max()
        worst = max(worst, error)
        assert error <= tolerance, f'{key}: relative error {error:.1e}'
    return worst
