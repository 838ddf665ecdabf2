"""The three convolutions: what the arguments mean, and which kernel computes them."""
import numpy as np

from . import direct, naive
from .layout import BLOCK


def conv_forward(y, x, w, stride, dilation=1, groups=1, filters=None):
    """y = x * w, "valid": y (N, OCB, Ho, Wo, 16) is overwritten; x (N, ICB, H, W, B) spans exactly
    H = (Ho - 1) * stride + dilation * (KH - 1) + 1 rows, and columns likewise. w as in the package's head.

    filters: number of real output channels, needed with groups > 1 when it is not 16 * OCB.
    """
    if groups > 1:
        filters = filters or y.shape[1] * BLOCK
        naive.grouped_forward(y, x, w, stride, dilation, filters // groups, filters)
    elif y.dtype == np.float32:
        direct.forward(y, x, w, stride, dilation)
    else:
        naive.conv_forward(y, x, w, stride, dilation)


def conv_backward_data(dx, dy, w, stride, dilation=1, groups=1, margin=0, top=0, left=0, filters=None):
    """dx = gradient with respect to x, overwritten; dx may have any size: pixels that no window reads become 0.

    dy: carries `margin` rows and columns of zeros on each of its sides (an int, or a tuple (rows, columns)).
    top, left: input pixel that dx[0, 0] is, where (0, 0) is the first one read by dy's first interior output; they may
    be negative.
    """
    mh, mw = margin if isinstance(margin, tuple) else (margin, margin)
    inner = dy[:, :, mh:dy.shape[2] - mh, mw:dy.shape[3] - mw]
    if groups > 1:
        filters = filters or dy.shape[1] * BLOCK
        naive.grouped_backward_data(dx, inner, w, stride, dilation, filters // groups, filters, top, left)
    elif dx.dtype == np.float32 and dx.shape[4] == BLOCK:
        direct.backward_data(dx, dy, w, stride, dilation, (mh, mw), top, left)
    else:                                               # also the picture's gradient, which no training asks for
        naive.conv_backward_data(dx, inner, w, stride, dilation, top, left)


def conv_backward_weights(dw, x, dy, stride, dilation=1, groups=1, filters=None):
    """dw += gradient with respect to w; x and dy as in conv_forward (dy without margin)."""
    if groups > 1:
        filters = filters or dy.shape[1] * BLOCK
        naive.grouped_backward_weights(dw, x, dy, stride, dilation, filters // groups, filters)
    elif dw.dtype == np.float32:
        direct.backward_weights(dw, x, dy, stride, dilation)
    else:
        naive.conv_backward_weights(dw, x, dy, stride, dilation)
