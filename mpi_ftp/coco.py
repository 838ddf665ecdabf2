"""COCO's JSON. A reader for `convert` (sources.py)."""
import json
import re
from pathlib import Path

from .errors import DataError
from .sources import CROWD, PICTURES, SPLIT_NAMES, Item, Source, split_order


def read(root, names=None):
    """COCO: one JSON of images, annotations, categories, or several whose names tell the split (..._train2017.json).

    Classes in order of category id. Crowds are not trained. `root` is a folder or one JSON file.
    """
    paths = [root] if root.is_file() else sorted(root.rglob('*.json'))
    base = root.parent if root.is_file() else root
    if root.is_file() and base.name == 'annotations':
        base = base.parent
    tables = [(path, table) for path in paths if (table := _table(path, alone=len(paths) == 1))]
    if not tables:
        raise DataError(f'{root}: no COCO file (.json with images, annotations, categories) in it')
    categories = {}
    for path, table in tables:
        _whole(table, path)
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
        _items(source, table, path, split, categories, pictures, base)
    source.splits.sort(key=split_order)
    return source


def _whole(table, path):
    """Raises DataError unless every row has what COCO promises."""
    for part, keys in (('images', ('id', 'file_name')), ('annotations', ('image_id', 'category_id', 'bbox')),
                       ('categories', ('id', 'name'))):
        for row in table[part]:
            if lost := [key for key in keys if not isinstance(row, dict) or key not in row]:
                raise DataError(f'{path}: an entry of "{part}" has no "{lost[0]}"')
            if part == 'annotations' and not (isinstance(row['bbox'], list) and len(row['bbox']) == 4
                                              and all(isinstance(value, (int, float)) for value in row['bbox'])):
                raise DataError(f'{path}: bbox {row["bbox"]}: expected four numbers x, y, width, height')


def _items(source, table, path, split, categories, pictures, base):
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
        boxes, crowds = [], []
        for thing in things.get(row['id'], []):
            x, y, w, h = map(float, thing['bbox'])
            category = categories.get(thing['category_id'], f'category {thing["category_id"]}')
            if thing.get('iscrowd'):
                crowds.append((category, x, y, x + w, y + h, CROWD))
            else:
                boxes.append((category, x, y, x + w, y + h))
        size = (row['height'], row['width']) if row.get('height') and row.get('width') else None
        source.items.append(Item(name, places[0], boxes, splits=(split,) if split else (), size=size, uncounted=crowds))


def _table(path, alone):
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


def _by_name(root):
    found = {}
    for path in sorted(root.rglob('*')):
        if path.suffix.lower() in PICTURES:
            found.setdefault(path.name, []).append(path)
    return found
