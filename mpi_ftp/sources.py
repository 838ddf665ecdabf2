"""What labelled pictures look like on other people's disks: VOC, Darknet lists, COCO, a folder a class.

Each reader takes a folder and returns a Source: which picture files, with which boxes or class, in which splits.
Pictures are not opened here.
"""
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from .errors import DataError, nearest

PICTURES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif', '.ppm', '.pgm'}
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
               'testing': 'test', 'trainval': 'trainval'}
ORDER = ['train', 'val', 'test', 'trainval']


@dataclass(frozen=True)
class Item:
    """One picture file. `boxes`: (class name, left, top, right, bottom), in pixels or, if `fractions`, in parts of the
    picture; `size`: the (h, w) its annotation states; `label`: its class name in a classification set."""
    name: str
    path: Path
    boxes: list = field(default_factory=list)
    label: str | None = None
    splits: tuple = ()
    fractions: bool = False
    size: tuple | None = None


@dataclass
class Source:
    """`items` in a fixed order, all class names in order, split names in order (none: not stated), and `refused`:
    (name, reason) of what could not be used."""
    items: list
    classes: list
    splits: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    labelled: bool = False


def read_names(path):
    """Class names, one a line."""
    try:
        names = [line.strip() for line in Path(path).read_text(encoding='utf-8').splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: class names cannot be read: {error}') from None
    names = [name for name in names if name]
    double = {name for name in names if names.count(name) > 1}
    if double or not names:
        raise DataError(f'{path}: ' + (f'class name "{min(double)}" twice' if double else 'no class names in it'))
    return names


def voc(root, names=None):
    """Pascal VOC: an XML file a picture, in Annotations/ or anywhere below `root`; splits from ImageSets/Main.

    Boxes are corners in pixels as written; objects marked difficult are left out, as Darknet's voc_label.py does.
    """
    from xml.etree import ElementTree
    annotations = sorted(root.rglob('*.xml'))
    inside = [path for path in annotations if path.parent.name == 'Annotations']
    annotations = inside or annotations
    if not annotations:
        raise DataError(f'{root}: no VOC annotation (.xml) in it')
    pictures = _by_stem(root)
    lists = _voc_lists(root)
    source = Source([], names or [], list(lists))
    found = set()
    for path in annotations:
        try:
            tree = ElementTree.parse(path).getroot()
            item, difficult = _voc_item(tree, path, pictures, lists)
        except (ElementTree.ParseError, ValueError, DataError) as error:
            source.refused.append((path.name, str(error)))
            continue
        source.items.append(item)
        found |= {box[0] for box in item.boxes}
        source.refused += [(path.stem, f'box {text}: marked difficult') for text in difficult]
    source.classes = names or sorted(found)
    listed = set().union(*lists.values()) if lists else set()
    for name in sorted(listed - {path.stem for path in annotations}):
        source.refused.append((name, 'in ImageSets, but without annotation'))
    return source


def _voc_item(tree, path, pictures, lists):
    if tree.tag != 'annotation':
        raise DataError(f'not a VOC annotation: its first tag is <{tree.tag}>')
    picture = pictures.get(path.stem) or pictures.get(Path(tree.findtext('filename', '').strip()).stem)
    if picture is None:
        raise DataError('no picture of this name')
    w, h = (float(tree.findtext(f'size/{side}') or 0) for side in ('width', 'height'))
    boxes, difficult = [], []
    for thing in tree.iter('object'):
        name = (thing.findtext('name') or '').strip()
        texts = [thing.findtext(f'bndbox/{edge}') for edge in ('xmin', 'ymin', 'xmax', 'ymax')]
        if not name or None in texts:
            raise DataError('an <object> without name or bndbox')
        box = (name, *map(float, texts))
        if (thing.findtext('difficult') or '0').strip() == '1':
            difficult.append(f'{name} {",".join(t.strip() for t in texts)}')
        else:
            boxes.append(box)
    splits = tuple(split for split, stems in lists.items() if path.stem in stems)
    return Item(path.stem, picture, boxes, splits=splits, size=(int(h), int(w)) if h and w else None), difficult


def _voc_lists(root):
    """{split: stems} of ImageSets/Main; the lists that VOC keeps a class (two columns) are not splits."""
    lists = {}
    for path in sorted(root.rglob('ImageSets/Main/*.txt')):
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        if all(len(row) == 1 for row in rows):
            lists.setdefault(path.stem, set()).update(row[0] for row in rows)
    return {split: lists[split] for split in sorted(lists, key=_split_order)}


def yolo(root, names=None):
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
        source.items.append(Item(_relative(path, root), path, rows, splits=tuple(dict.fromkeys(of)), fractions=True))
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
                for split in sorted(files, key=_split_order)}, names
    found = {}
    for path in sorted(root.rglob('*')):
        if path.suffix.lower() in PICTURES:
            parts = [SPLIT_NAMES[part] for part in path.relative_to(root).parts[:-1] if part in SPLIT_NAMES]
            found.setdefault(parts[-1] if parts else '', []).append((path.name, path))
    if not found:
        raise DataError(f'{root}: no .data file, no train.txt and no pictures in it')
    return {split: found[split] for split in sorted(found, key=_split_order)}, names


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


def coco(root, names=None):
    """COCO: one JSON of images, annotations, categories, or several whose names tell the split (..._train2017.json).

    Classes in order of category id. Crowds are left out. `root` is a folder or one JSON file.
    """
    paths = [root] if root.is_file() else sorted(root.rglob('*.json'))
    base = root.parent if root.is_file() else root
    if root.is_file() and base.name == 'annotations':
        base = base.parent
    tables = [(path, table) for path in paths if (table := _coco_table(path, alone=len(paths) == 1))]
    if not tables:
        raise DataError(f'{root}: no COCO file (.json with images, annotations, categories) in it')
    categories = {}
    for path, table in tables:
        for row in table['categories']:
            if categories.setdefault(row['id'], row['name']) != row['name']:
                raise DataError(f'{path}: category {row["id"]} is "{row["name"]}", in another file '
                                f'"{categories[row["id"]]}"')
    source = Source([], names or [categories[k] for k in sorted(categories)])
    pictures = _by_name(base)
    for path, table in tables:
        words = re.findall(r'[a-z]+', path.stem.lower())
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), '')
        if split and split not in source.splits:
            source.splits.append(split)
        _coco_items(source, table, path, split, categories, pictures, base)
    source.splits.sort(key=_split_order)
    return source


def _coco_items(source, table, path, split, categories, pictures, base):
    things = {}
    for row in table['annotations']:
        things.setdefault(row['image_id'], []).append(row)
    for row in sorted(table['images'], key=lambda row: str(row['file_name'])):
        name = row['file_name']
        places = [base / name, path.parent / name, *pictures.get(Path(name).name, [])]
        # The same file name may lie in several folders: prefer the folder that tells this file's split
        places = sorted((p for p in places if p.is_file()), key=lambda p: split not in str(p.relative_to(base).parent))
        if not places:
            source.refused.append((name, f'named in {path.name}, but no such file'))
            continue
        boxes = []
        for thing in things.get(row['id'], []):
            x, y, w, h = map(float, thing['bbox'])
            category = categories.get(thing['category_id'], f'category {thing["category_id"]}')
            if thing.get('iscrowd'):
                source.refused.append((name, f'box {category} {x:g},{y:g},{w:g},{h:g}: a crowd'))
            else:
                boxes.append((category, x, y, x + w, y + h))
        size = (row['height'], row['width']) if row.get('height') and row.get('width') else None
        source.items.append(Item(name, places[0], boxes, splits=(split,) if split else (), size=size))


def _coco_table(path, alone):
    """The parsed file; None when it is some other JSON among several."""
    try:
        table = json.loads(path.read_text(encoding='utf-8'))
        if isinstance(table, dict) and all(isinstance(table.get(k), list) for k in ('images', 'annotations', 'categories')):
            return table
    except (ValueError, OSError) as error:
        raise DataError(f'{path}: not JSON: {error}') from None
    if alone:
        raise DataError(f'{path}: not a COCO file: images, annotations or categories are missing')
    return None


def folder(root, names=None):
    """A folder a class, with the pictures of the class anywhere below it; train/, val/, test/ above them are splits."""
    while len(inner := _folders(root)) == 1 and inner[0].name not in SPLIT_NAMES and _folders(inner[0]):
        root = inner[0]
    parts = _folders(root)
    staged = parts and all(part.name in SPLIT_NAMES for part in parts)
    groups = [(SPLIT_NAMES[part.name], part) for part in parts] if staged else [('', root)]
    classes = sorted({path.name for _, group in groups for path in _folders(group)}, key=_natural)
    if not classes:
        raise DataError(f'{root}: no folder a class with pictures in it')
    source = Source([], names or classes, sorted({s for s, _ in groups if s}, key=_split_order), labelled=True)
    if names and (unknown := [name for name in classes if name not in names]):
        raise DataError(f'{root}: folder "{unknown[0]}" is not among the class names{nearest(unknown[0], names)}')
    for split, group in groups:
        for part in _folders(group):
            for path in sorted(part.rglob('*')):
                if path.is_file() and not path.name.startswith('.'):
                    source.items.append(Item(_relative(path, root), path, label=part.name,
                                             splits=(split,) if split else ()))
    return source


KINDS = {'voc': voc, 'yolo': yolo, 'coco': coco, 'folder': folder}


def _split_order(name):
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def _natural(name):
    """Sorting key that puts "10" after "9"."""
    return [(0, int(part), '') if part.isdigit() else (1, 0, part) for part in re.split(r'(\d+)', name) if part]


def _folders(root):
    """Sub-folders that hold a picture at any depth."""
    return sorted((p for p in root.iterdir() if p.is_dir() and not p.name.startswith('.')
                   and any(q.suffix.lower() in PICTURES for q in p.rglob('*'))), key=lambda p: _natural(p.name))


def _by_stem(root):
    """{stem: path} of all pictures below root, those in JPEGImages/ first."""
    found = {}
    for path in sorted(root.rglob('*'), key=lambda path: (path.parent.name != 'JPEGImages', path)):
        if path.suffix.lower() in PICTURES:
            found.setdefault(path.stem, path)
    return found


def _by_name(root):
    found = {}
    for path in sorted(root.rglob('*')):
        if path.suffix.lower() in PICTURES:
            found.setdefault(path.name, []).append(path)
    return found


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


def _relative(path, root):
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
