"""What the tests of labelled pictures share: pictures, annotations and whole folders of them, as other people keep them."""
import zlib

import numpy as np
from PIL import Image


def quiet(_):
    pass


def paint(path, h=48, w=64, value=None):
    """A picture of noise, or of one grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    pixels = rng.integers(0, 256, (h, w, 3), dtype=np.uint8) if value is None else np.full((h, w, 3), value, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def annotate(path, boxes, size=(48, 64), filename=None, extra=''):
    """A VOC file; boxes are (name, xmin, ymin, xmax, ymax)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = ''.join(f'<object><name>{n}</name>{extra}<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}'
                      '</ymax></bndbox></object>' for n, a, b, c, d in boxes)
    stated = f'<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>' if size else ''
    path.write_text(f'<annotation><filename>{filename or path.stem + ".png"}</filename>{stated}{objects}</annotation>')


def voc_tree(root):
    """Three pictures with boxes and the lists that VOC keeps, as a VOC set; returns `root`."""
    for k in range(3):
        paint(root / f'JPEGImages/p{k}.png')
        annotate(root / f'Annotations/p{k}.xml', [('dog', 8, 12, 24, 36), ('cat', 0, 0, 64, 48)][:k])
    lists = root / 'ImageSets/Main'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('p2\np0\n')
    (lists / 'test.txt').write_text('p1\n')
    (lists / 'trainval.txt').write_text('p0\np1\np2\n')
    (lists / 'dog_train.txt').write_text('p2 1\np0 -1\n')
    return root
