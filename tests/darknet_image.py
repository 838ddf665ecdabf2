"""Darknet's image.c read literally into slow numpy, loop by loop. Images are (h, w, 3) floats from 0 to 1."""
import math

import numpy as np


def pixel(image, x, y):
    h, w, _ = image.shape
    return image[y, x] if 0 <= x < w and 0 <= y < h else np.zeros(3)


def bilinear(image, x, y):
    ix, iy = math.floor(x), math.floor(y)
    dx, dy = x - ix, y - iy
    return ((1 - dy) * (1 - dx) * pixel(image, ix, iy) + dy * (1 - dx) * pixel(image, ix, iy + 1)
            + (1 - dy) * dx * pixel(image, ix + 1, iy) + dy * dx * pixel(image, ix + 1, iy + 1))


def resize_image(image, w, h):
    """First along the rows, then along the columns. (The last row is meant to be the last row: in float32 Darknet's
    own comes out black where row * scale rounds down.)"""
    im_h, im_w, _ = image.shape
    part, out = np.empty((im_h, w, 3)), np.empty((h, w, 3))
    for c in range(w):
        if c == w - 1 or im_w == 1:
            part[:, c] = image[:, -1]
        else:
            x = c * (im_w - 1) / (w - 1)
            part[:, c] = (1 - (x - int(x))) * image[:, int(x)] + (x - int(x)) * image[:, int(x) + 1]
    for r in range(h):
        if r == h - 1 or im_h == 1:
            out[r] = part[-1]
        else:
            y = r * (im_h - 1) / (h - 1)
            out[r] = (1 - (y - int(y))) * part[int(y)] + (y - int(y)) * part[int(y) + 1]
    return out


def letterbox_image(image, w, h):
    im_h, im_w, _ = image.shape
    new_w, new_h = (w, im_h * w // im_w) if w / im_w < h / im_h else (im_w * h // im_h, h)
    boxed = np.full((h, w, 3), .5)
    top, left = (h - new_h) // 2, (w - new_w) // 2
    boxed[top:top + new_h, left:left + new_w] = resize_image(image, new_w, new_h)
    return boxed


def place_image(image, w, h, dx, dy, canvas):
    for y in range(h):
        for x in range(w):
            if 0 <= x + dx < canvas.shape[1] and 0 <= y + dy < canvas.shape[0]:
                canvas[y + dy, x + dx] = bilinear(image, x / w * image.shape[1], y / h * image.shape[0])


def rotate_crop_image(image, rad, s, w, h, dx, dy, aspect):
    out, cx, cy = np.empty((h, w, 3)), image.shape[1] / 2, image.shape[0] / 2
    for y in range(h):
        for x in range(w):
            u, v = (x - w / 2) / s * aspect + dx / s * aspect, (y - h / 2) / s + dy / s
            out[y, x] = bilinear(image, math.cos(rad) * u - math.sin(rad) * v + cx,
                                 math.sin(rad) * u + math.cos(rad) * v + cy)
    return out


def distort_image(image, hue, saturation, exposure):
    out = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        r, g, b = image[place]
        v, delta = max(r, g, b), max(r, g, b) - min(r, g, b)
        h = s = 0.
        if delta:
            s = delta / v
            h = (g - b) / delta if r == v else 2 + (b - r) / delta if g == v else 4 + (r - g) / delta
            h = (h + 6 if h < 0 else h) / 6
        s, v, h = s * saturation, v * exposure, h + hue
        h = 6 * (h - 1 if h > 1 else h + 1 if h < 0 else h)
        index = math.floor(h)
        f = h - index
        p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
        rgb = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)][index % 6]
        out[place] = np.clip(rgb, 0, 1)
    return out
