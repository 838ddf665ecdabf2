"""Pictures for people: boxes on a picture, the curve of a training run. Knows nothing of networks.

Boxes are rows [class, score, cx, cy, w, h] in parts of the picture, the columns of `boxes.flatten` after the sample; a score of nan
(a truth) is not written. Pillow and matplotlib are imported when something is drawn.
"""
import colorsys
import csv
import os

import numpy as np

from .files import replacing

GOLDEN = 0.6180339887


def colour(c):
    """(red, green, blue) of class c: neighbours differ much in hue, and every round of the circle in lightness."""
    hue = (0.02 + c * GOLDEN) % 1
    saturation, value = ((.85, .95), (.6, .75), (1., .7))[c // 7 % 3]
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def draw_boxes(picture, rows, names):
    """A PIL picture: `picture` (uint8 (h, w, 3), or of PIL) with a frame, name and score for every row, the best on top."""
    from PIL import Image, ImageDraw
    image = picture.copy() if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    image = image.convert('RGB')
    rows = np.asarray(rows, float).reshape(-1, 6)
    rows = rows[np.argsort(rows[:, 1], kind='stable')]
    pen, font, width = ImageDraw.Draw(image), _font(image), _line(image)
    frames = [_frame(image, row) for row in rows]
    for row, frame in zip(rows, frames):
        pen.rectangle(frame, outline=colour(int(row[0])), width=width)
    for row, frame in zip(rows, frames):
        _label(pen, image, frame, _text(row, names), colour(int(row[0])), font, width)
    return image


def plot_training(path, rows, title=''):
    """Save the curve of a run as a PNG: the loss of every iteration, smoothed, and mAP points where they are known.

    rows: mappings with `iteration`, `loss` and perhaps `mAP50` (numbers or text, empty where unknown), or the path of a
    metrics.csv with these columns. A second axis shows mAP only if there is any. Written to a temporary name and renamed.
    """
    if isinstance(rows, (str, os.PathLike)):
        with open(rows, newline='') as file:
            rows = list(csv.DictReader(file))
    iteration, loss, ap = (np.array([float(row.get(key) or 'nan') for row in rows]) for key in ('iteration', 'loss', 'mAP50'))

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 4.5), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel='iteration', ylabel='loss')
    axes.plot(iteration, loss, color='tab:blue', alpha=.25, linewidth=.8, label='loss')
    axes.plot(iteration, smoothed(loss), color='tab:blue', linewidth=1.8, label='loss, smoothed')
    known = loss[np.isfinite(loss)]
    if known.size and (known > 0).all() and known.max() > 30 * known.min():
        axes.set_yscale('log')
    axes.grid(alpha=.3)
    axes.margins(x=.01)
    lines = axes.get_lines()
    if np.isfinite(ap).any():
        right = axes.twinx()
        there = np.isfinite(ap)
        lines += right.plot(iteration[there], 100 * ap[there], 'o-', color='tab:orange', markersize=5, label='mAP@0.5')
        right.set(ylabel='mAP@0.5 in %', ylim=(0, 100))
        last = np.flatnonzero(there)[-1]
        right.annotate(f'{100 * ap[last]:.1f} %', (iteration[last], 100 * ap[last]), (-4, 7), textcoords='offset points', ha='right', color='tab:orange')
    axes.legend(handles=list(lines), loc='upper center', bbox_to_anchor=(.5, -.13), ncols=3, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png')


def smoothed(values, share=.03):
    """A running mean over `share` of all values, centred, cut off at both ends; nan is left out."""
    values = np.asarray(values, float)
    half = int(len(values) * share / 2)
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([[0], np.where(known, values, 0)]))
    counts = np.cumsum(np.concatenate([[0], known]))
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    count = counts[high] - counts[low]
    return np.divide(sums[high] - sums[low], count, out=np.full(len(values), np.nan), where=count > 0)


def _line(image):
    return max(1, round(min(image.size) / 200))


def _font(image, size=None):
    from PIL import ImageFont
    return ImageFont.load_default(max(9, round(size or min(image.size) / 32)))


def _frame(image, row):
    """Whole pixels (left, top, right, bottom) of a row's box, inside the picture."""
    centre, half = row[2:4] * image.size, row[4:6] * image.size / 2
    limit = np.array(image.size) - 1
    low, high = np.clip(np.round(centre - half), 0, limit), np.clip(np.round(centre + half), 0, limit)
    return *low.astype(int).tolist(), *high.astype(int).tolist()


def _text(row, names):
    name = names[int(row[0])] if int(row[0]) < len(names) else f'class {int(row[0])}'
    return name if np.isnan(row[1]) else f'{name} {row[1]:.2f}'


def _label(pen, image, frame, text, fill, font, width):
    """The text on a plate above the frame, or inside it where there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font)
    pad = max(1, font.size // 6)
    across, down = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0, min(frame[0], image.width - across))
    y = frame[1] - down if frame[1] >= down else frame[1] + width - 1
    pen.rectangle((x, y, x + across - 1, y + down - 1), fill=fill)
    dark = .299 * fill[0] + .587 * fill[1] + .114 * fill[2] > 140
    pen.text((x + pad - left, y + pad - top), text, 'black' if dark else 'white', font)
