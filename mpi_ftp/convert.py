"""The verb `convert`: packs labelled pictures into one file that every rank can read in pieces (pictures.py).

What cannot be used is left out and listed with its reason; the rest is packed. Knows nothing of networks or ranks.
"""
import hashlib
import sys
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import coco, sources, voc, yolo_lists
from .arguments import wxh
from .errors import DataError, nearest
from .files import check_apart, check_writable
from .pictures import load_picture, picture_size, writing
from .waiting import cores

KINDS = {'voc': voc.read, 'yolo': yolo_lists.read, 'coco': coco.read, 'folder': sources.folder}
SHOWN = 20       # refusals printed; all of them are in Summary.refused


@dataclass
class Summary:
    """What was packed: pictures, boxes, {split: pictures}, {class: boxes or pictures}; boxes cut to the picture's edge, boxes
    that are difficult or crowds; `refused`: (picture, reason) of every picture or box left out."""
    pictures: int = 0
    boxes: int = 0
    clipped: int = 0
    uncounted: int = 0
    splits: dict = field(default_factory=dict)
    classes: dict = field(default_factory=dict)
    refused: list = field(default_factory=list)

    def __str__(self):
        each = [f'{name} {count}' for name, count in self.classes.items()]
        each = ', '.join(each[:SHOWN]) + (f', ... ({len(each)} classes)' if len(each) > SHOWN else '')
        lines = [f'{self.pictures} pictures, {self.boxes} boxes; {each}' if self.boxes else f'{self.pictures} pictures; {each}',
                 'splits: ' + ', '.join(f'{name} {count}' for name, count in self.splits.items())]
        if self.clipped:
            lines.append(f'{self.clipped} boxes reached past their picture and were cut at its edge')
        if self.uncounted:
            lines.append(f'{self.uncounted} boxes are marked difficult or crowds: they are not trained, and to find them counts neither way')
        if self.refused:
            lines.append(f'{len(self.refused)} refused:')
            lines += [f'  {name}: {reason}' for name, reason in self.refused[:SHOWN]]
            if len(self.refused) > SHOWN:
                lines.append(f'  ... and {len(self.refused) - SHOWN} more')
        return '\n'.join(lines)


def convert(kind, source, out, size=None, names=None, log=print):
    """Packs `source` (a folder, a .tar, .tar.gz or .zip of one, for coco also a .json, for yolo a .data) into `out`.

    kind: 'voc', 'yolo', 'coco' or 'folder' (voc.py, yolo_lists.py, coco.py and sources.py say what is looked for). size: (w, h) to resize every picture
    to; names: class names in order, default those found. Progress goes to `log` unless standard error is a terminal.
    Returns a Summary; raises DataError when nothing can be packed, JobError when nothing can be written. Re-running gives the same file.
    """
    if kind not in KINDS:
        raise DataError(f'unknown kind "{kind}": expected {", ".join(KINDS)}{nearest(kind, KINDS)}')
    source, out = Path(source), Path(out)
    if not source.exists():
        raise DataError(f'{source} does not exist')
    check_writable(out)
    check_apart(out, source)
    with sources.unpacked(source, out.parent) as root:
        found = KINDS[kind](root, names)
        summary = Summary(refused=[(_plain(name, root), _plain(reason, root)) for name, reason in found.refused])
        if not found.classes:
            raise DataError(f'{source}: no boxes and no class names in it{_first(summary)}')
        _check_names(found, names)
        items = _usable(found, summary)
        if not items:
            raise DataError(f'{source}: no picture of it can be used{_first(summary)}')
        shape = (size[1], size[0]) if size else tuple(max(item.size[k] for item, _ in items) for k in (0, 1))
        with writing(out, found.classes, shape, found.labelled) as writer:
            packed = _pack(items, found, writer, size, summary, log)
            writer.splits = _splits(packed, found.splits)
            writer.attributes = dict(kind=kind, source=source.name)
            summary.splits = {name: len(numbers) for name, numbers in writer.splits.items()}
    return summary


def _first(summary):
    return f'; the first: {": ".join(summary.refused[0])}' if summary.refused else ''


def _check_names(found, names):
    """Raises DataError where class names were given and no box has one of them."""
    met = list(dict.fromkeys(box[0] for item in found.items for box in item.boxes))
    if names and met and not set(met) & set(names):
        raise DataError(f'no box is of a class that was named: the first is of class "{met[0]}"{nearest(met[0], names)}, the names begin with "{names[0]}"')


def _usable(found, summary):
    """[(Item with its true size, (k, 5) boxes in parts of the picture)] of the pictures whose headers can be read."""
    items = []
    for item in found.items:
        try:
            true = picture_size(item.path)
        except DataError as error:
            summary.refused.append((item.name, _reason(error, item)))
            continue
        if item.size not in (None, true):
            summary.refused.append((item.name, 'its annotation is for {1} x {0} pixels, the picture has {3} x {2}'.format(
                *item.size, *true)))
            continue
        boxes = [box for raw in item.boxes if (box := _box(raw, item, true, found.classes, summary))]
        aside = [[*box, kind] for *raw, kind in item.uncounted if (box := _box(raw, item, true, found.classes, summary))]
        items.append((replace(item, size=true, uncounted=aside), boxes))
    return items


def _box(raw, item, size, classes, summary):
    """[class, cx, cy, w, h] in parts of the picture, cut at its edge; None, and a refusal noted, if there is no such."""
    name, *corners = raw
    text = f'box {name} {",".join(f"{value:g}" for value in corners)}'
    unit = (1, 1, 1, 1) if item.fractions else (size[1], size[0], size[1], size[0])
    edges = [value / whole for value, whole in zip(corners, unit)]
    left, top, right, bottom = (min(max(value, 0.), 1.) for value in edges)
    if name not in classes:
        summary.refused.append((item.name, f'{text}: unknown class{nearest(name, classes)}'))
    elif not (edges[0] < edges[2] and edges[1] < edges[3]):
        summary.refused.append((item.name, f'{text}: no area'))
    elif not (left < right and top < bottom):
        summary.refused.append((item.name, f'{text}: outside the picture'))
    else:
        # Fractions come from rounded text: a hair past the edge is not worth a count
        summary.clipped += max(abs(a - b) for a, b in zip(edges, (left, top, right, bottom))) > 1e-5
        return [classes.index(name), (left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return None


def _pack(items, found, writer, size, summary, log):
    """Decodes and writes every picture; returns the items written, in order."""
    packed, counts = [], Counter()
    with _progress(len(items), log) as step:
        for (item, boxes), pixels in zip(items, _decoded(items, size)):
            step()
            if isinstance(pixels, DataError):
                summary.refused.append((item.name, _reason(pixels, item)))
                continue
            writer.add(item.name, pixels, boxes, found.classes.index(item.label) if found.labelled else None, item.uncounted)
            packed.append(item)
            counts.update([item.label] if found.labelled else [found.classes[box[0]] for box in boxes])
            summary.boxes += len(boxes)
            summary.uncounted += len(item.uncounted)
    if not packed:
        raise DataError(f'no picture can be decoded; the first: {": ".join(summary.refused[-1])}')
    summary.pictures = len(packed)
    summary.classes = {name: counts[name] for name in found.classes}
    return packed


def _decoded(items, size):
    """The pixels of each item, or the DataError that they gave: decoded a few ahead on all cores."""
    def load(item):
        try:
            return load_picture(item.path, size)
        except DataError as error:
            return error
    with ThreadPoolExecutor(cores()) as pool:
        waiting = deque()
        for item, _ in items:
            waiting.append(pool.submit(load, item))
            if len(waiting) > 2 * cores():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _splits(packed, stated):
    """{split: picture numbers}: as the source states them, else 80, 10, 10 % by a hash of the name."""
    splits = {name: [k for k, item in enumerate(packed) if name in item.splits] for name in stated if name}
    splits = {name: numbers for name, numbers in splits.items() if numbers}
    if splits:
        return splits
    order = sorted(range(len(packed)), key=lambda k: hashlib.sha256(packed[k].name.encode(errors='surrogateescape')).digest())
    tenth = len(packed) // 10 or len(packed) // 3 and 1
    cuts = {'train': order[2 * tenth:], 'val': order[:tenth], 'test': order[tenth:2 * tenth]}
    return {name: sorted(numbers) for name, numbers in cuts.items() if numbers}


@contextmanager
def _progress(total, log):
    """A function to call after each picture: a bar on a terminal, a line every tenth of the way otherwise."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task('packing pictures', total=total)
            yield lambda: bar.advance(task)
        return
    done = 0

    def step():
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            log(f'packed {done} of {total} pictures')
    yield step


def _reason(error, item):
    """An error's sentence without the path that the refusal already names."""
    return str(error).removeprefix(f'{item.path}: ')


def _plain(text, root):
    return str(text).replace(f'{root}/', '')


def add_arguments(parser):
    parser.add_argument('kind', choices=list(KINDS), help='what SOURCE looks like')
    parser.add_argument('source', metavar='SOURCE', help='folder, or .tar.gz or .zip of one (coco: also .json; yolo: .data)')
    parser.add_argument('out', metavar='OUT.h5', help='the file to write')
    parser.add_argument('--size', type=wxh, metavar='WxH', help='resize every picture to this many pixels')
    parser.add_argument('--names', metavar='F', help='class names in order, one a line (default: those found)')


def run(args):
    """Converts as the command line says and prints the summary. Of several ranks one does it and the others wait."""
    from . import comm
    world = comm.world()
    if world.rank == 0:
        names = sources.read_names(args.names) if args.names else None
        summary = convert(args.kind, args.source, args.out, args.size, names)
        print(f'{args.out}: {summary}')
    world.rest()
