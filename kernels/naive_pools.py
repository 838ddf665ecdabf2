"""The definition of max-pool: plain loops for any dtype and block. Arguments are those of `pools`."""
import numpy as np

from .jit import kernel, row


@kernel('f5 f5 i i')
def maxpool_forward(y, x, size, stride):
    N, CB, H, W, B = y.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                out = row(y, n, b, h)
                out[:] = -np.inf
                for i in range(size):
                    src = row(x, n, b, h * stride + i)
                    for v in range(W):
                        for j in range(size):
                            for lane in range(B):
                                a = src[v * stride + j, lane]
                                if a > out[v, lane] or a != a:
                                    out[v, lane] = a


@kernel('f5 f5 f5 i i')
def maxpool_backward(dx, dy, x, size, stride):
    N, CB, H, W, B = dy.shape
    best = np.empty(B, x.dtype)
    at = np.empty(B, np.int64)
    for n in range(N):
        for b in range(CB):
            for h in range(dx.shape[2]):
                row(dx, n, b, h)[:] = 0
            for h in range(H):
                grad = row(dy, n, b, h)
                for v in range(W):
                    best[:] = -np.inf
                    at[:] = 0
                    for i in range(size):
                        src = row(x, n, b, h * stride + i)
                        for j in range(size):
                            for lane in range(B):
                                a = src[v * stride + j, lane]
                                if a > best[lane] or a != a:
                                    best[lane] = a
                                    at[lane] = i * size + j
                    for lane in range(B):
                        i, j = divmod(at[lane], size)
                        dx[n, b, h * stride + i, v * stride + j, lane] += grad[v, lane]
