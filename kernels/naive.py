"""The definition of the convolutions: plain loops on the blocked layout, for any stride, dilation and groups, compiled for
the dtypes that come here.

`top`, `left` and the margins are as in `convolution`. Nothing here is tuned beyond a 16-lane inner loop.
"""
import numpy as np

from .jit import kernel, row


@kernel('f5 f5 c6 i i n1 i', ['float64'])
def conv_forward(y, x, w, stride, dilation, taken, add):
    N, OCB, H, W, _ = y.shape
    _, _, KH, KW, B, _ = w.shape
    for n in range(N):
        for ob in range(OCB):
            for h in range(H):
                out = row(y, n, ob, h)
                if not add:
                    out[:] = 0
                for ib in taken:
                    for kh in range(KH):
                        src = row(x, n, ib, h * stride + kh * dilation)
                        for kw in range(KW):
                            tap = w[ob, ib, kh, kw]
                            for v in range(W):
                                for i in range(B):
                                    a = src[v * stride + kw * dilation, i]
                                    for lane in range(16):
                                        out[v, lane] += a * tap[i, lane]


@kernel('f5 f5 c6 i i i i n1')
def conv_backward_data(dx, dy, w, stride, dilation, top, left, made):
    """dy is the interior, without margin."""
    N, ICB, H, W, B = dx.shape
    OCB, _, KH, KW, _, _ = w.shape
    tap = np.empty((16, B), w.dtype)
    for n in range(N):
        for ib in made:
            for h in range(H):
                out = row(dx, n, ib, h)
                out[:] = 0
                for kh in range(KH):
                    up, rest = divmod(top + h - kh * dilation, stride)
                    if rest != 0 or up < 0 or up >= dy.shape[2]:
                        continue
                    for ob in range(OCB):
                        src = row(dy, n, ob, up)
                        for kw in range(KW):
                            for i in range(B):
                                for lane in range(16):
                                    tap[lane, i] = w[ob, ib, kh, kw, i, lane]
                            for v in range(W):
                                at, rest = divmod(left + v - kw * dilation, stride)
                                if rest == 0 and 0 <= at < dy.shape[3]:
                                    for lane in range(16):
                                        a = src[at, lane]
                                        for i in range(B):
                                            out[v, i] += a * tap[lane, i]


@kernel('c6 f5 f5 i i', ['float64'])
def conv_backward_weights(dw, x, dy, stride, dilation):
    N, OCB, H, W, _ = dy.shape
    _, ICB, KH, KW, B, _ = dw.shape
    total = np.empty((B, 16), dw.dtype)
    for ob in range(OCB):
        for ib in range(ICB):
            for kh in range(KH):
                for kw in range(KW):
                    total[:] = 0
                    for n in range(N):
                        for h in range(H):
                            src = row(x, n, ib, h * stride + kh * dilation)
                            grad = row(dy, n, ob, h)
                            for v in range(W):
                                for i in range(B):
                                    a = src[v * stride + kw * dilation, i]
                                    for lane in range(16):
                                        total[i, lane] += a * grad[v, lane]
                    for i in range(B):
                        for lane in range(16):
                            dw[ob, ib, kh, kw, i, lane] += total[i, lane]


# Grouped: output channel o belongs to group o // per and reads input channels (o // per) * C + c, c < C.

@kernel('f5 f5 c5 i i i i')
def grouped_forward(y, x, w, stride, dilation, per, channels):
    N, OCB, H, W, _ = y.shape
    _, KH, KW, C, _ = w.shape
    B = x.shape[4]
    for n in range(N):
        for ob in range(OCB):
            for h in range(H):
                out = row(y, n, ob, h)
                out[:] = 0
                for lane in range(min(16, channels - ob * 16)):
                    first = (ob * 16 + lane) // per * C
                    for c in range(C):
                        for kh in range(KH):
                            src = row(x, n, (first + c) // B, h * stride + kh * dilation)
                            for kw in range(KW):
                                a = w[ob, kh, kw, c, lane]
                                for v in range(W):
                                    out[v, lane] += a * src[v * stride + kw * dilation, (first + c) % B]


@kernel('f5 f5 c5 i i i i i i')
def grouped_backward_data(dx, dy, w, stride, dilation, per, channels, top, left):
    N, ICB, H, W, B = dx.shape
    _, KH, KW, C, _ = w.shape
    for n in range(N):
        for ib in range(ICB):
            for h in range(H):
                row(dx, n, ib, h)[:] = 0
        for o in range(channels):
            first = o // per * C
            for c in range(C):
                for h in range(H):
                    out = row(dx, n, (first + c) // B, h)
                    for kh in range(KH):
                        up, rest = divmod(top + h - kh * dilation, stride)
                        if rest != 0 or up < 0 or up >= dy.shape[2]:
                            continue
                        src = row(dy, n, o // 16, up)
                        for kw in range(KW):
                            a = w[o // 16, kh, kw, c, o % 16]
                            for v in range(W):
                                at, rest = divmod(left + v - kw * dilation, stride)
                                if rest == 0 and 0 <= at < dy.shape[3]:
                                    out[v, (first + c) % B] += a * src[at, o % 16]


@kernel('c5 f5 f5 i i i i')
def grouped_backward_weights(dw, x, dy, stride, dilation, per, channels):
    N, OCB, H, W, _ = dy.shape
    _, KH, KW, C, _ = dw.shape
    B = x.shape[4]
    for o in range(channels):
        first = o // per * C
        for c in range(C):
            for kh in range(KH):
                for kw in range(KW):
                    total = dw.dtype.type(0)
                    for n in range(N):
                        for h in range(H):
                            src = row(x, n, (first + c) // B, h * stride + kh * dilation)
                            grad = row(dy, n, o // 16, h)
                            for v in range(W):
                                total += src[v * stride + kw * dilation, (first + c) % B] * grad[v, o % 16]
                    dw[o // 16, kh, kw, c, o % 16] += total
