"""Max-pool over windows and global average-pool. Windows are valid; padding is already in x (-inf for a max)."""
import numpy as np

from .jit import kernel, row


@kernel('f5 f5 i i')
def maxpool_forward(y, x, size, stride):
    """y (N, CB, Ho, Wo, B) = maximum over windows of x; a NaN in a window wins."""
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
    """dx is overwritten: each dy goes to the first maximum of its window in row-major order, found again in x."""
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


@kernel('f5 f5')
def avgpool_forward(y, x):
    """y (N, CB, 1, 1, B) = mean of x over its rows and columns."""
    N, CB, H, W, B = x.shape
    total = np.empty(B, np.float64)
    for n in range(N):
        for b in range(CB):
            total[:] = 0
            for h in range(H):
                src = row(x, n, b, h)
                for v in range(W):
                    for lane in range(B):
                        total[lane] += src[v, lane]
            for lane in range(B):
                y[n, b, 0, 0, lane] = total[lane] / (H * W)


@kernel('f5 f5')
def avgpool_backward(dx, dy):
    """dx (N, CB, H, W, B) = dy (N, CB, 1, 1, B) spread evenly."""
    N, CB, H, W, B = dx.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                out = row(dx, n, b, h)
                for v in range(W):
                    for lane in range(B):
                        out[v, lane] = dy[n, b, 0, 0, lane] / (H * W)
