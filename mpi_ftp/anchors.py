"""The verb `anchors`: the box shapes that a data set's boxes gather around, for the anchors= line of a .cfg.

k-means with 1 - IoU as distance between boxes of one centre (YOLOv2, Redmon and Farhadi 2017, section 2), and the
median as centre, which a few huge boxes do not move. Knows nothing of networks or ranks.
"""
import numpy as np

from .arguments import whole, wxh
from .augment import letterbox
from .errors import DataError
from .pictures import Pictures

STRIDE = 32      # pixels of the input per cell of the coarsest head, in every published YOLO


def iou(boxes, anchors):
    """(k, m): IoU of (k, 2) and (m, 2) widths and heights, centres laid on each other."""
    both = np.minimum(boxes[:, None], anchors).prod(-1)
    return both / (boxes.prod(-1)[:, None] + anchors.prod(-1) - both)


def cluster(boxes, count, seed=0, restarts=10):
    """(anchors (count, 2) by growing area, mean IoU of each box with its best anchor) for (k, 2) widths and heights.

    The best of `restarts` runs. Raises DataError when there are fewer different boxes than anchors.
    """
    different = np.unique(boxes, axis=0)
    if len(different) < count:
        raise DataError(f'{len(different)} different box shapes cannot make {count} anchors')
    rng = np.random.default_rng(seed)
    runs = [_medians(boxes, _spread(different, count, rng)) for _ in range(restarts)]
    best = max(runs, key=lambda run: run[1])
    return best[0][np.argsort(best[0].prod(-1))], best[1]


def _spread(boxes, count, rng):
    """Starting centres: each new one drawn with a chance that grows with its distance from those before (k-means++)."""
    chosen = boxes[rng.integers(len(boxes))][None]
    while len(chosen) < count:
        far = (1 - iou(boxes, chosen).max(1)) ** 2
        chosen = np.vstack([chosen, boxes[rng.choice(len(boxes), p=far / far.sum())]])
    return chosen


def _medians(boxes, anchors):
    owner = None
    while True:
        overlap = iou(boxes, anchors)
        nearest = overlap.argmax(1)
        if owner is not None and (nearest == owner).all():
            return anchors, float(overlap.max(1).mean())
        owner = nearest
        anchors = np.array([np.median(boxes[owner == k], axis=0) if (owner == k).any() else anchors[k]
                            for k in range(len(anchors))])


def shapes(pictures, split, size, stretch=False):
    """(k, 2) widths and heights in pixels of a `size` (w, h) input, letterboxed as the network sees them, or stretched."""
    found = []
    for i in pictures.indices(split):
        scale = (1, 1) if stretch else letterbox(pictures.size(i), size[::-1]).scale
        found.append(pictures.boxes(i)[:, 3:] * scale * size)
    found = np.concatenate(found) if found else np.empty((0, 2))
    if not len(found):
        raise DataError(f'{pictures.path}: split "{split}" holds no boxes')
    return found


def add_arguments(parser):
    parser.add_argument('--data', required=True, metavar='F.h5', help='the pictures')
    parser.add_argument('--num', type=whole(1), default=5, metavar='K', help='anchors wanted (default %(default)s)')
    size = parser.add_mutually_exclusive_group()
    size.add_argument('--size', type=wxh, default=(416, 416), metavar='WxH', help="the network's input (default 416x416)")
    size.add_argument('--cells', type=wxh, metavar='WxH', help=f'the same in cells of {STRIDE} pixels, such as 13x13')
    parser.add_argument('--split', default='train', help='split to look at (default %(default)s; "all" for all pictures)')
    parser.add_argument('--stretch', action='store_true', help='count boxes as if pictures were stretched to the input')
    parser.add_argument('--seed', type=whole(), default=0, help='of the starting centres (default %(default)s)')


def run(args):
    """Prints the anchors= lines in cells, for [region], and in pixels, for [yolo]. Of several ranks one does it."""
    from . import comm
    world = comm.world()
    if world.rank == 0:
        _print(args)
    world.rest()


def _print(args):
    size = tuple(STRIDE * cells for cells in args.cells) if args.cells else args.size
    with Pictures(args.data) as pictures:
        boxes = shapes(pictures, args.split, size, args.stretch)
        anchors, mean = cluster(boxes, args.num, args.seed)
    print(f'# {len(boxes)} boxes of {args.data}, split {args.split}, input {size[0]}x{size[1]}: mean IoU {mean:.3f}')
    print('# [region], in cells of 32 pixels')
    print('anchors = ' + ', '.join(f'{w / STRIDE:.2f},{h / STRIDE:.2f}' for w, h in anchors))
    print('# [yolo], in pixels')
    print('anchors = ' + ', '.join(f'{w:.0f},{h:.0f}' for w, h in anchors))
