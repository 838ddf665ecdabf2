"""Darknet's lists of pictures with a text file of boxes each. A reader for `convert` (sources.py)."""
import re
from pathlib import Path

from .errors import DataError
from .sources import PICTURES, SPLIT_NAMES, Item, Source, read_lines, read_names, read_text, relative, split_order


def read(root, names=None):
    """Darknet: lists of picture paths (a .data file's train= and valid=, else train.txt, valid.txt, ... in `root`, else
    images/train/, images/val/, ...); boxes in labels/ beside images/, or beside the picture, as .txt of
    "class cx cy w h" in parts of the picture."""
    lists, stated = _lists(root)
    names = names or stated
    source = Source([], [], list(lists), [])
    labels, highest = 0, -1
    splits = {}
    for split, entries in lists.items():
        for entry, path in entries:
            if path is None:
                source.refused.append((entry, f'in the list of {split}, but no such file'))
            else:
                splits.setdefault(path, []).append(split)
    for path, of in splits.items():
        label = _label(path)
        labels += label is not None
        try:
            rows = _rows(read_text(label)) if label else []
        except DataError as error:
            source.refused.append((relative(path, root), str(error)))
            continue
        highest = max([highest] + [row[0] for row in rows])
        source.items.append(Item(relative(path, root), path, rows, splits=tuple(dict.fromkeys(of)), fractions=True))
    if not labels:
        raise DataError(f'{root}: none of its {len(splits)} pictures has a label file (labels/ beside images/)')
    source.classes = list(names or [str(k) for k in range(highest + 1)])
    for item in source.items:                     # numbers become names, as in the other kinds
        item.boxes[:] = [(source.classes[k] if k < len(source.classes) else f'number {k}', *box)
                         for k, *box in item.boxes]
    return source


def _lists(root):
    """{split: [(entry, path or None)]} and the class names that a .data or .names file states."""
    data = sorted(root.rglob('*.data'), key=lambda path: len(path.parts)) if root.is_dir() else [root]
    root = root if root.is_dir() else root.parent
    names, files = None, {}
    if data:
        keys = dict(re.findall(r'^\s*(\w+)\s*=\s*(.*?)\s*$', read_text(data[0]), re.M))
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
        return {split: [(line, _find(line, root, files[split].parent)) for line in read_lines(files[split])]
                for split in sorted(files, key=split_order)}, names
    found = {}
    for path in sorted(root.rglob('*')):
        if path.suffix.lower() in PICTURES:
            parts = [SPLIT_NAMES[part] for part in path.relative_to(root).parts[:-1] if part in SPLIT_NAMES]
            found.setdefault(parts[-1] if parts else '', []).append((path.name, path))
    if not found:
        raise DataError(f'{root}: no .data file, no train.txt and no pictures in it')
    return {split: found[split] for split in sorted(found, key=split_order)}, names


def _label(path):
    """A picture's label file where Darknet looks for it, then beside the picture; None without one."""
    spelled = str(path.with_suffix('.txt'))
    for folder in ('/images/', '/JPEGImages/', '/raw/'):
        label = Path('/labels/'.join(spelled.rsplit(folder, 1)))
        if label.is_file() and label != path:
            return label
    return None


def _rows(text):
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
