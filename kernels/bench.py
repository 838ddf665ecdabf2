"""Measures every kernel on one core: GFLOP/s, percent of the multiply-add peak, and PyTorch's best layout beside it.

All contestants of a row run in turn, with the peak loop between them, several rounds; medians of the thread's CPU time
count, so neighbours on the machine and a changing clock hit all alike. PyTorch, where it is installed, is given its best:
both memory layouts, malloc that keeps its pages (`__main__` sets it), and for 1 x 1 filters dilation 2, which leads it to
oneDNN instead of a slower path. Flops are those of direct convolution also for Winograd.
"""
import ctypes
import time
from dataclasses import dataclass

import numpy as np

from .. import kernels
from . import native

PASSES = 'forward', 'backward_data', 'backward_weights'
REFERENCE = [(3, 32, 3, 1), (32, 64, 3, 2), (64, 128, 3, 4), (128, 64, 1, 4), (128, 256, 3, 8), (256, 128, 1, 8),
             (256, 512, 3, 16), (512, 256, 1, 16), (512, 1024, 3, 32)]      # YOLOv2's layers: C, F, K, reduction of the map


@dataclass(frozen=True)
class Shape:
    """A convolution: input channels, filters, filter size, stride, output rows and columns, samples."""
    channels: int
    filters: int
    size: int
    stride: int
    h: int
    w: int
    n: int = 1

    def __str__(self):
        batch = f'{self.n} x ' if self.n > 1 else ''
        stride = f'/{self.stride}' if self.stride > 1 else ''
        return f'{batch}{self.channels}->{self.filters} {self.size}x{self.size}{stride} @{self.h}x{self.w}'

    @property
    def flops(self):
        return 2 * self.n * self.channels * self.filters * self.size ** 2 * self.h * self.w


def reference(side, n=1):
    """The convolutions of the reference workload for a picture of side x side pixels."""
    return [Shape(c, f, k, 1, side // part, side // part, n) for c, f, k, part in REFERENCE]


def aligned(shape, normal=None):
    """A float32 array on a cache line, zero or filled by a generator of normal numbers."""
    count = int(np.prod(shape))
    whole = np.zeros(count + 16, np.float32)
    start = -whole.ctypes.data // 4 % 16
    array = whole[start:start + count].reshape(shape)
    if normal is not None:
        array[:] = normal.standard_normal(shape, np.float32)
    return array


def contestants(shape):
    """{pass: {algorithm: function}} of our kernels."""
    normal, s = np.random.default_rng(0), shape
    block = min(s.channels, 16)
    ib, ob = kernels.blocks(s.channels, block), kernels.blocks(s.filters)
    rows, columns = (s.h - 1) * s.stride + s.size, (s.w - 1) * s.stride + s.size
    x, w = aligned((s.n, ib, rows, columns, block), normal), aligned((ob, ib, s.size, s.size, block, 16), normal)
    y, dw = aligned((s.n, ob, s.h, s.w, 16)), aligned(w.shape)
    margin, pad = s.size - 1, s.size // 2           # the border of `pad` pixels of x is padding: it has no gradient
    dx = aligned((s.n, ib, rows - 2 * pad, columns - 2 * pad, block))
    frame = aligned((s.n, ob, s.h + 2 * margin, s.w + 2 * margin, 16))
    dy = frame[:, :, margin:margin + s.h, margin:margin + s.w]
    dy[:] = normal.standard_normal(dy.shape)
    algorithms = kernels.ALGORITHMS if s.size == 3 and s.stride == 1 and block == 16 else ['direct']
    result = {}
    for p in PASSES[:1] + PASSES[1 if block == 16 else 2:]:
        result[p] = {}
        for a in algorithms:
            result[p][a] = {
                'forward': lambda a=a: kernels.conv_forward(y, x, w, s.stride, algorithm=a),
                'backward_data': lambda a=a: kernels.conv_backward_data(dx, frame, w, s.stride, 1, 1, margin, pad, pad, algorithm=a),
                'backward_weights': lambda a=a: kernels.conv_backward_weights(dw, x, dy, s.stride, algorithm=a)}[p]
    return result


def torch_contestants(shape):
    """{pass: {layout: function}} of PyTorch, or nothing where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    s, dilation = shape, 2 if shape.size == 1 else 1
    result = {p: {} for p in PASSES}
    for layout, form in (('torch NCHW', torch.contiguous_format), ('torch NHWC', torch.channels_last)):
        pad = dilation * (s.size // 2)
        rows, columns = ((side - 1) * s.stride + s.size - 2 * pad for side in (s.h, s.w))
        x = torch.randn(s.n, s.channels, rows, columns).contiguous(memory_format=form)
        w = torch.randn(s.filters, s.channels, s.size, s.size).contiguous(memory_format=form)
        dy = torch.randn(s.n, s.filters, s.h, s.w).contiguous(memory_format=form)

        def backward(mask, x=x, w=w, dy=dy, pad=pad):
            torch.ops.aten.convolution_backward(dy, x, w, None, [s.stride] * 2, [pad] * 2, [dilation] * 2, False, [0, 0], 1, mask)
        result['forward'][layout] = lambda x=x, w=w, pad=pad: torch.conv2d(x, w, None, s.stride, pad, dilation)
        result['backward_data'][layout] = lambda b=backward: b([True, False, False])
        result['backward_weights'][layout] = lambda b=backward: b([False, True, False])
    return result


def peak(buffer=aligned((26 * 16,)), count=100_000):
    """GFLOP/s of independent multiply-adds."""
    loop = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(native.peak.address)
    loop(count, buffer.ctypes.data)             # the first tenths of a millisecond are slower
    start = time.thread_time()
    loop(count, buffer.ctypes.data)
    return 2 * count * native.PEAK_VECTORS * native.TILE.width / (time.thread_time() - start) / 1e9


def race(functions, seconds):
    """{name: median seconds of one call} of functions called in turn for about so long, and the median peak beside them."""
    for function in functions.values():
        function()
    times, peaks = {name: [] for name in functions}, []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(peaks) < 3:
        peaks.append(peak())
        for name, function in functions.items():
            start = time.thread_time()
            function()
            times[name].append(time.thread_time() - start)
    return {name: float(np.median(t)) for name, t in times.items()}, float(np.median(peaks))


def convolution(shape, seconds=1.0, torch=True):
    """One row for each pass: (pass, peak, {contestant: GFLOP/s})."""
    theirs = torch_contestants(shape) if torch else {}
    for p, ours in contestants(shape).items():
        times, top = race({**ours, **theirs.get(p, {})}, seconds)
        yield p, top, {name: shape.flops / t / 1e9 for name, t in times.items()}


def elementwise(channels, side, seconds=1.0, torch=True):
    """(name, {contestant: milliseconds}) of norm with leaky activation and of 2 x 2 max-pool, forwards and backwards."""
    normal = np.random.default_rng(0)
    cb = channels // 16
    z, y, dy, dz = (aligned((1, cb, side, side, 16), normal) for _ in range(4))
    p, dp = (aligned((1, cb, side // 2, side // 2, 16), normal) for _ in range(2))
    c, sums = [aligned((cb, 16), normal) for _ in range(7)], np.empty((2, cb, 16))

    def norm_forward():
        kernels.moments(sums, z, c[0])
        kernels.normalize_activate(y, z, c[0], c[1], 'leaky')

    def norm_backward():
        kernels.activate_backward_reduce(sums, dy, z, c[0], c[1], c[2], c[3], 'leaky')
        kernels.activate_backward(dz, dy, z, c[0], c[1], c[4], c[5], c[6], 'leaky')
    ours = {'norm + leaky forward': norm_forward, 'norm + leaky backward': norm_backward,
            'max-pool forward': lambda: kernels.maxpool_forward(p, z, 2, 2),
            'max-pool backward': lambda: kernels.maxpool_backward(dz, dp, z, 2, 2)}
    theirs = _torch_elementwise(channels, side) if torch else {}
    for name, function in ours.items():
        times, _ = race({'ours': function, **theirs.get(name, {})}, seconds)
        yield name, {who: 1e3 * t for who, t in times.items()}


def _torch_elementwise(channels, side):
    try:
        import torch
    except ImportError:
        return {}
    from torch.nn.functional import batch_norm, leaky_relu, max_pool2d
    torch.set_num_threads(1)
    aten, result = torch.ops.aten, {}
    for layout, form in (('torch NCHW', torch.contiguous_format), ('torch NHWC', torch.channels_last)):
        z, dy = (torch.randn(1, channels, side, side).contiguous(memory_format=form) for _ in range(2))
        dp = torch.randn(1, channels, side // 2, side // 2).contiguous(memory_format=form)
        g, b, m, v = torch.ones(channels), torch.zeros(channels), torch.zeros(channels), torch.ones(channels)
        where = max_pool2d(z, 2, 2, return_indices=True)[1]
        _, mean, istd = aten.native_batch_norm(z, g, b, m, v, True, 0.1, 1e-5)

        def backward(z=z, dy=dy, g=g, m=m, v=v, mean=mean, istd=istd):
            da = aten.leaky_relu_backward(dy, z, 0.1, False)
            aten.native_batch_norm_backward(da, z, g, m, v, mean, istd, True, 1e-5, [True, True, True])
        for name, function in {
                'norm + leaky forward': lambda z=z, g=g, b=b, m=m, v=v: leaky_relu(batch_norm(z, m, v, g, b, True), 0.1, True),
                'norm + leaky backward': backward,
                'max-pool forward': lambda z=z: max_pool2d(z, 2, 2),
                'max-pool backward': lambda z=z, dp=dp, i=where: aten.max_pool2d_with_indices_backward(
                    dp, z, [2, 2], [2, 2], [0, 0], [1, 1], False, i)}.items():
            result.setdefault(name, {})[layout] = function
    return result
