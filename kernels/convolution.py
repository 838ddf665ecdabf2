"""The three convolutions: what the arguments mean, and who computes them.

`algorithm` is 'direct', 'winograd2' or 'winograd4' (3 x 3 filters at stride 1 only), as `choose` says; float64 ignores it.
Filters of five axes are grouped, even where a cut left one group. `filters` is the real number of output channels, needed
then when it is not 16 * OCB.
"""
from functools import partial

import numpy as np

from . import direct, grouped, naive, winograd
from .layout import BLOCK, check_maps
from .prepared import prepared
from .threads import get_threads


@prepared
def conv_forward(y, x, w, stride, dilation=1, groups=1, filters=None, algorithm='direct', taken=None, add=False):
    """y = x * w, "valid": y (N, OCB, Ho, Wo, 16) is overwritten; x (N, ICB, H, W, B) spans exactly
    H = (Ho - 1) * stride + dilation * (KH - 1) + 1 rows, and columns likewise. w as in the package's head.

    taken: an int64 array of ascending input blocks to sum over, for those of x that are there first, else all; add: to what y holds. Not for groups.
    """
    _check(y, x, w, stride, dilation, groups)
    if w.ndim == 5:
        if taken is not None or add:
            raise ValueError(f'grouped filters {w.shape} take all input blocks of their group, once')
        filters, per = _grouping(y, x, w, groups, filters)
        if grouped.is_depthwise(x, w, per):
            return partial(grouped.depthwise_forward, y, x, w, stride, dilation)
        if grouped.is_blocked(x, w, per):
            return partial(grouped.blocked_forward, y, x, w, stride, dilation, per)
        return partial(naive.grouped_forward, y, x, w, stride, dilation, per, filters)
    _check_listed(taken, x)
    if y.dtype != np.float32:
        return partial(naive.conv_forward, y, x, w, stride, dilation, np.arange(x.shape[1]) if taken is None else taken, int(add))
    if algorithm == 'direct':
        return direct.forward(y, x, w, stride, dilation, taken, add)
    return winograd.forward(_tile(algorithm, w, stride, dilation), y, x, w, taken=taken, add=add)


@prepared
def conv_backward_data(dx, dy, w, stride, dilation=1, groups=1, margin=0, top=0, left=0, filters=None, algorithm='direct', made=None, again=False):
    """dx = gradient with respect to x, overwritten; dx may have any size: pixels that no window reads become 0.

    made: an int64 array of ascending blocks of dx to write, else all. Not for groups. again: what was computed last was the same for other blocks, so
    that what was made of dy for these may be used again.

    dy: carries `margin` rows and columns of zeros on each of its sides (an int, or a tuple (rows, columns)); with
    dilation * (K - 1) of them at stride 1 it is read where it is, with less it is copied first.
    top, left: input pixel that dx[0, 0] is, where (0, 0) is the first one read by dy's first interior output; they may
    be negative.
    """
    _check_blocks(dy, dx, w, groups)
    mh, mw = margin if isinstance(margin, tuple) else (margin, margin)
    inner = dy[:, :, mh:dy.shape[2] - mh, mw:dy.shape[3] - mw]
    if w.ndim == 5:
        if made is not None:
            raise ValueError(f'grouped filters {w.shape} make all input blocks of their group, once')
        filters, per = _grouping(dy, dx, w, groups, filters)
        if grouped.is_depthwise(dx, w, per):
            return partial(grouped.depthwise_backward_data, dx, dy, w, stride, dilation, (mh, mw), top, left)
        if grouped.is_blocked(dx, w, per):
            return partial(grouped.blocked_backward_data, dx, dy, w, stride, dilation, per, (mh, mw), top, left)
        return partial(naive.grouped_backward_data, dx, inner, w, stride, dilation, per, filters, top, left)
    _check_listed(made, dx)
    if dx.dtype != np.float32 or dx.shape[4] != BLOCK:          # no training asks for the gradient of the picture
        return partial(naive.conv_backward_data, dx, inner, w, stride, dilation, top, left, np.arange(dx.shape[1]) if made is None else made)
    stencil = None if algorithm == 'direct' else partial(winograd.forward, _tile(algorithm, w, stride, dilation), turned=True)
    return direct.backward_data(dx, dy, w, stride, dilation, (mh, mw), top, left, stencil, made, again)


@prepared
def conv_backward_weights(dw, x, dy, stride, dilation=1, groups=1, filters=None, algorithm='direct'):
    """dw += gradient with respect to w; x and dy as in conv_forward (dy without margin)."""
    _check(dy, x, dw, stride, dilation, groups)
    if dw.ndim == 5:
        filters, per = _grouping(dy, x, dw, groups, filters)
        if grouped.is_depthwise(x, dw, per):
            return partial(grouped.depthwise_backward_weights, dw, x, dy, stride, dilation)
        if grouped.is_blocked(x, dw, per):
            return partial(grouped.blocked_backward_weights, dw, x, dy, stride, dilation, per)
        return partial(naive.grouped_backward_weights, dw, x, dy, stride, dilation, per, filters)
    if dw.dtype != np.float32:
        return partial(naive.conv_backward_weights, dw, x, dy, stride, dilation)
    if algorithm == 'direct':
        return direct.backward_weights(dw, x, dy, stride, dilation)
    return winograd.backward_weights(_tile(algorithm, dw, stride, dilation), dw, x, dy)


def workspace_bytes(pass_, algorithm, in_channels, out_channels, k, n, h, w):
    """(bytes for the process, bytes for each thread) of scratch memory that a pass over n output maps of h x w pixels takes;
    one buffer of the largest serves all layers. k: (rows, columns) of the filters. Gradients without enough margin not
    counted."""
    icb, ocb = -(-in_channels // BLOCK), -(-out_channels // BLOCK)
    if algorithm == 'direct':
        return (4 * icb * ocb * 256 * k[0] * k[1] if pass_ == 'backward_data' else 0), 0
    if pass_ == 'backward_data':
        icb, ocb = ocb, icb
    work = winograd.grouping(pass_, {'winograd2': 2, 'winograd4': 4}[algorithm], ocb, icb, n, h, w, get_threads())
    return 4 * sum(work.shared), 4 * sum(work.own)


def _check(y, x, w, stride, dilation, groups):
    """Raise ValueError unless x is what the windows of y span: kernels trust that."""
    _check_blocks(y, x, w, groups)
    sizes = w.shape[1:3] if w.ndim == 5 else w.shape[2:4]
    spans = tuple((out - 1) * stride + dilation * (k - 1) + 1 for out, k in zip(y.shape[2:4], sizes))
    if y.size and x.shape[2:4] != spans:
        raise ValueError(f'filters of {sizes} at stride {stride}, dilation {dilation} span {spans} pixels for {y.shape}, not {x.shape}')


def _check_listed(blocks, x):
    """Raise ValueError unless `blocks` (None: all) are some of x's, in order."""
    if blocks is not None and (not len(blocks) or blocks[0] < 0 or blocks[-1] >= x.shape[1] or (np.diff(blocks) < 1).any()):
        raise ValueError(f'input blocks {blocks} are not ascending ones of the {x.shape[1]} of {x.shape}')


def _check_blocks(y, x, w, groups):
    check_maps(y, x)
    if not y.dtype == x.dtype == w.dtype:
        raise ValueError(f'one type of numbers is expected, not maps of {y.dtype} and {x.dtype} and filters of {w.dtype}')
    if w.ndim == 5:
        fits = w.shape[0] == y.shape[1] and groups > 0
    else:
        fits = w.ndim == 6 and w.shape[:2] == (y.shape[1], x.shape[1]) and w.shape[4] == x.shape[4]
    if not fits or not w.shape[-1] == y.shape[4] == BLOCK or x.shape[0] != y.shape[0] or not w.flags.c_contiguous:
        raise ValueError(f'filters {w.shape} do not lead from {x.shape} to {y.shape}')


def _grouping(y, x, w, groups, filters):
    """The real number of output channels, and those of a group; ValueError unless they and all groups' inputs fill the blocks."""
    filters = y.shape[1] * BLOCK if filters is None else filters
    if filters % groups or y.shape[1] != -(-filters // BLOCK) or x.shape[1] != -(-groups * w.shape[3] // x.shape[4]):
        raise ValueError(f'{filters} filters in {groups} groups of {w.shape[3]} inputs do not lead from {x.shape} to {y.shape}')
    return filters, filters // groups


def _tile(algorithm, w, stride, dilation):
    m = {'winograd2': 2, 'winograd4': 4}.get(algorithm)
    if m is None or w.shape[2:5] != (3, 3, BLOCK) or stride != 1 or dilation != 1:
        raise ValueError(f'algorithm {algorithm!r} cannot do {w.shape[2]} x {w.shape[3]} filters of {w.shape[4]} inputs, '
                         f'stride {stride}, dilation {dilation}')
    return m
