"""Pascal VOC folders: an XML file a picture. A reader for `convert` (sources.py)."""
from pathlib import Path

from .errors import DataError
from .sources import DIFFICULT, PICTURES, Item, Source, read_lines, split_order


def read(root, names=None):
    """Pascal VOC: an XML file a picture, in Annotations/ or anywhere below `root`; splits from ImageSets/Main.

    Boxes are corners in pixels as written; objects marked difficult are not trained, as by Darknet's voc_label.py.
    """
    from xml.etree import ElementTree
    annotations = sorted(root.rglob('*.xml'))
    inside = [path for path in annotations if path.parent.name == 'Annotations']
    annotations = inside or annotations
    if not annotations:
        raise DataError(f'{root}: no VOC annotation (.xml) in it')
    pictures = _by_stem(root)
    lists = _lists(root)
    source = Source([], names or [], list(lists))
    found = set()
    for path in annotations:
        try:
            tree = ElementTree.parse(path).getroot()
            item = _item(tree, path, pictures, lists)
        except (ElementTree.ParseError, ValueError, DataError) as error:
            source.refused.append((path.name, str(error)))
            continue
        source.items.append(item)
        found |= {box[0] for box in item.boxes}
    source.classes = names or sorted(found)
    listed = set().union(*lists.values()) if lists else set()
    for name in sorted(listed - {path.stem for path in annotations}):
        source.refused.append((name, 'in ImageSets, but without annotation'))
    return source


def _item(tree, path, pictures, lists):
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
            difficult.append((*box, DIFFICULT))
        else:
            boxes.append(box)
    splits = tuple(split for split, stems in lists.items() if path.stem in stems)
    return Item(path.stem, picture, boxes, splits=splits, size=(int(h), int(w)) if h and w else None, uncounted=difficult)


def _lists(root):
    """{split: stems} of ImageSets/Main; the lists that VOC keeps a class (two columns) are not splits."""
    lists = {}
    for path in sorted(root.rglob('ImageSets/Main/*.txt')):
        rows = [line.split() for line in read_lines(path)]
        if all(len(row) == 1 for row in rows):
            lists.setdefault(path.stem, set()).update(row[0] for row in rows)
    return {split: lists[split] for split in sorted(lists, key=split_order)}


def _by_stem(root):
    """{stem: path} of all pictures below root, those in JPEGImages/ first."""
    found = {}
    for path in sorted(root.rglob('*'), key=lambda path: (path.parent.name != 'JPEGImages', path)):
        if path.suffix.lower() in PICTURES:
            found.setdefault(path.stem, path)
    return found
