"""Pixels of a network's input: bilinear samples of a picture and colour distortion. Arithmetic on arrays only."""
import math

from .jit import kernel


@kernel('f3 c3 i i i i i i i i i d1 n1 d1 s')
def sample(out, source, top, left, height, width, y0, x0, net_h, net_w, flip, affine, window, bounds, fill):
    """out (h, w, 3) overwritten: the pixels (y0, x0) ... of a net_h x net_w input, values 0 ... 1.

    Input pixel (Y, X), X mirrored if `flip`, inside `window` (top, left, bottom, right) is the bilinear sample of the
    height x width picture at
        x = affine[0] * (X - left of window) + affine[1] * (Y - top of window) + affine[2]
        y = affine[3] * (X - left of window) + affine[4] * (Y - top of window) + affine[5]
    clamped to `bounds` (y lowest, x lowest, y highest, x highest); beyond the picture lies 0, beyond the window `fill`,
    beyond the input 0. `source`, values 0 ... 255, is the part of the picture from (top, left) on that these samples
    read, at least one pixel. The result depends on Y and X alone, so any cut gives the same bits.
    """
    rows, columns = source.shape[0], source.shape[1]
    for i in range(out.shape[0]):
        row = y0 + i
        for j in range(out.shape[1]):
            column = x0 + j
            if row < 0 or row >= net_h or column < 0 or column >= net_w:
                for c in range(3):
                    out[i, j, c] = 0.
                continue
            if flip:
                column = net_w - 1 - column
            if row < window[0] or column < window[1] or row >= window[2] or column >= window[3]:
                for c in range(3):
                    out[i, j, c] = fill
                continue
            u, v = column - window[1], row - window[0]
            y = min(max(affine[3] * u + affine[4] * v + affine[5], bounds[0]), bounds[2])
            x = min(max(affine[0] * u + affine[1] * v + affine[2], bounds[1]), bounds[3])
            iy, ix = int(math.floor(y)), int(math.floor(x))
            # A neighbour beyond the picture gets no weight, and any index that can be read
            up = 1. - (y - iy) if 0 <= iy < height else 0.
            down = y - iy if 0 <= iy + 1 < height else 0.
            before = 1. - (x - ix) if 0 <= ix < width else 0.
            after = x - ix if 0 <= ix + 1 < width else 0.
            ya, yb = min(max(iy - top, 0), rows - 1), min(max(iy + 1 - top, 0), rows - 1)
            xa, xb = min(max(ix - left, 0), columns - 1), min(max(ix + 1 - left, 0), columns - 1)
            for c in range(3):
                out[i, j, c] = (up * (before * source[ya, xa, c] + after * source[ya, xb, c])
                                + down * (before * source[yb, xa, c] + after * source[yb, xb, c])) / 255.


@kernel('f3 s s s')
def distort(out, hue, saturation, exposure):
    """out (h, w, 3) in place: RGB to HSV, hue turned by `hue` of a turn, the others multiplied, back, cut to [0, 1]."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            r, g, b = float(out[i, j, 0]), float(out[i, j, 1]), float(out[i, j, 2])
            value = max(r, g, b)
            delta = value - min(r, g, b)
            if delta == 0.:                  # grey has no hue
                h = s = 0.
            else:
                s = delta / value
                if r == value:
                    h = (g - b) / delta
                elif g == value:
                    h = 2. + (b - r) / delta
                else:
                    h = 4. + (r - g) / delta
                h = h / 6. + hue
                h = 6. * (h - math.floor(h))
            s *= saturation
            value *= exposure
            # A channel is `value` where the hue is its own and falls to value * (1 - s) a third of the circle away
            for c in range(3):
                k = h + 5. - 2. * c
                k -= 6. if k >= 6. else 0.
                channel = value - value * s * max(0., min(k, 4. - k, 1.))
                out[i, j, c] = min(max(channel, 0.), 1.)
