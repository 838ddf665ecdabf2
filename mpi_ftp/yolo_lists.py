"""Darknet's lists of pictures with a text file of boxes each. A reader for `convert` (sources.py)."""
import re
from pathlib import Path

from .errors import DataError
from .sources import PICTURES, SPLIT_NAMES, Item, Source, read_names, relative, split_order


def read(root, names=None):
    """Darknet: lists of picture paths (a .data file's train= and valid=, else train.txt, valid.txt, ... in `root`, else
    images/train/, images/val/, ...); boxes in labels/ beside images/, or beside the picture, as .txt of
    "class cx cy w h" in parts of the picture."""
    lists, stated = _yolo_lists(root)
    names = names or stated
    source = Source([], [], list(lists), [])
    labels, missing, highest = 0, 0, -1
    splits = {}
    for split, entries in lists.items():
        for entry, path in entries:
            if path is None:
                source.refused.append((entry, f'in the list of {split}, but no such file'))
            else:
                splits.setdefault(path, []).append(split)
    for path, of in splits.items():
        text = _yolo_label(path)
        labels, missing = labels + (text is not None), missing + (text is None)
        try:
            rows = _yolo_rows(text) if text is not None else []
        except DataError as error:
            source.refused.append((path.name, str(error)))
            continue
        highest = max([highest] + [row[0] for row in rows])
        source.items.append(Item(relative(path, root), path, rows, splits=tuple(dict.fromkeys(of)), fractions=True))
    if not labels:
        raise DataError(f'{root}: none of its {missing} listed pictures has a label file (labels/ beside images/)')
    source.classes = list(names or [str(k) for k in range(highest + 1)])
    for item in source.items:                     # numbers become names, as in the other kinds
        item.boxes[:] = [(source.classes[k] if k < len(source.classes) else f'number {k}', *box)
                         for k, *box in item.boxes]
    return source


def _yolo_lists(root):
    """{split: [(entry, path or None)]} and the class names that a .data or .names file states."""
    data = sorted(root.glob('*.data')) + sorted(root.glob('cfg/*.data')) if root.is_dir() else [root]
    root = root if root.is_dir() else root.parent
    names, files = None, {}
    if data:
        keys = dict(re.findall(r'^\s*(\w+)\s*=\s*(.*?)\s*$', data[0].read_text(), re.M))
        files = {split: _find(keys[key], root, data[0].parent) for key, split in
                 (('train', 'train'), ('valid', 'val'), ('test', 'test')) if key in keys}
        lost = [split for split, path in files.items() if path is None]
        if lost:
            raise DataError(f'{data[0]}: its list for {lost[0]} does not exist')
        stated = _find(keys['names'], root, data[0].parent) if 'names' in keys else None
        names = read_names(stated) if stated else None
    else:
        for path in sorted(root.rglob('*.txt')):
            if path.stem in SPLIT_NAMES:
                files.setdefault(SPLIT_NAMES[path.stem], path)
    stated = sorted(root.rglob('*.names')) + sorted(root.rglob('classes.txt'))
    names = names or (read_names(stated[0]) if stated else None)
    if files:
        return {split: [(line, _find(line, root, files[split].parent)) for line in _lines(files[split])]
                for split in sorted(files, key=split_order)}, names
    found = {}
    for path in sorted(root.rglob('*')):
        if path.suffix.lower() in PICTURES:
            parts = [SPLIT_NAMES[part] for part in path.relative_to(root).parts[:-1] if part in SPLIT_NAMES]
            found.setdefault(parts[-1] if parts else '', []).append((path.name, path))
    if not found:
        raise DataError(f'{root}: no .data file, no train.txt and no pictures in it')
    return {split: found[split] for split in sorted(found, key=split_order)}, names


def _yolo_label(path):
    """The text of a picture's label file where Darknet looks for it, then beside the picture; None without one."""
    spelled = str(path.with_suffix('.txt'))
    for folder in ('/images/', '/JPEGImages/', '/raw/'):
        label = Path('/labels/'.join(spelled.rsplit(folder, 1)))
        if label.is_file() and label != path:
            return label.read_text()
    return None


def _yolo_rows(text):
    rows = []
    for line in filter(None, map(str.split, text.splitlines())):
        try:
            number, (x, y, w, h) = int(line[0]), map(float, line[1:])
        except ValueError:
            raise DataError(f'label line "{" ".join(line)}": expected "class cx cy w h"') from None
        if number < 0:
            raise DataError(f'label line "{" ".join(line)}": negative class')
        rows.append((number, x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return rows


def _find(entry, *folders):
    """The file that a list entry means: absolute, or relative to one of `folders`, or by its tail in the first."""
    path = Path(entry)
    tails = [Path(*path.parts[k:]) for k in range(1, len(path.parts))]
    for place in [folder / path for folder in folders] + [folder / tail for tail in tails for folder in folders]:
        if place.is_file():
            return place
    return None


def _lines(path):
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]
