"""COCO's tables, whole and broken: what is packed, what is refused, and with which words."""
import json

import numpy as np
import pytest

from labelled_trees import paint, quiet
from mpi_ftp.convert import convert
from mpi_ftp.errors import DataError
from mpi_ftp.pictures import Pictures


def coco_file(path, names, first=0, **changes):
    """Pictures of 64 x 48; picture k has k boxes. Category ids have gaps, as COCO's do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {'images': [{'id': 100 + k, 'file_name': name, 'height': 48, 'width': 64} for k, name in enumerate(names)],
             'annotations': [{'image_id': 100 + k, 'category_id': (90, 3)[j % 2], 'bbox': [16 * j, 12, 16, 24], 'iscrowd': 0}
                             for k in range(len(names)) for j in range(k)],
             'categories': [{'id': 90, 'name': 'brush'}, {'id': 3, 'name': 'car'}]}
    path.write_text(json.dumps({**table, **changes}))


def test_coco(tmp_path):
    root = tmp_path / 'set'
    for split, names in (('train2017', ['a.png', 'b.png', 'c.png']), ('val2017', ['a.png'])):
        for name in names:
            paint(root / split / name, value=len(names) * 10)
        coco_file(root / f'annotations/instances_{split}.json', names)
    (root / 'annotations/captions.json').write_text('{"info": 1}')
    summary = convert('coco', root, tmp_path / 'o.h5', log=quiet)
    assert (summary.pictures, summary.boxes, summary.refused) == (4, 3, [])
    assert summary.splits == {'train': 3, 'val': 1} and summary.classes == {'car': 1, 'brush': 2}
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.classes == ['car', 'brush']
        assert np.allclose(pictures.boxes(2), [[1, .125, .5, .25, .5], [0, .375, .5, .25, .5]])
        assert pictures.read(3, 0, 1, 0, 1).max() == 10       # the a.png of val2017, not of train2017
    summary = convert('coco', root / 'annotations/instances_val2017.json', tmp_path / 'o.h5', log=quiet)
    assert (summary.pictures, summary.splits) == (1, {'val': 1})


def test_coco_refusals(tmp_path):
    root = tmp_path / 'set'
    paint(root / 'images/a.png')
    coco_file(root / 'x.json', ['a.png', 'b.png'], annotations=[
        {'image_id': 100, 'category_id': 3, 'bbox': [0, 0, 0, 5]},
        {'image_id': 100, 'category_id': 7, 'bbox': [0, 0, 5, 5]},
        {'image_id': 100, 'category_id': 3, 'bbox': [0, 0, 5, 5], 'iscrowd': 1},
        {'image_id': 100, 'category_id': 3, 'bbox': [60, 0, 14, 5], 'iscrowd': 0}])
    summary = convert('coco', root, tmp_path / 'o.h5', log=quiet)
    assert (summary.pictures, summary.boxes, summary.clipped, summary.uncounted) == (1, 1, 1, 1)
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert np.allclose(pictures.uncounted(0), [[0, 2.5 / 64, 2.5 / 48, 5 / 64, 5 / 48, 2]])
    assert sorted(summary.refused) == [('a.png', 'box car 0,0,0,5: no area'),
                                       ('a.png', 'box category 7 0,0,5,5: unknown class'),
                                       ('b.png', 'named in x.json, but no such file')]
    for changes, words in ((dict(annotations=[{'image_id': 100, 'category_id': 3}]), 'an entry of "annotations" has no "bbox"'),
                           (dict(annotations=[{'image_id': 100, 'category_id': 3, 'bbox': [1, 2]}]), 'expected four numbers'),
                           (dict(images=[{'id': 1}]), 'an entry of "images" has no "file_name"')):
        coco_file(root / 'x.json', ['a.png'], **changes)
        with pytest.raises(DataError, match=words):
            convert('coco', root, tmp_path / 'o.h5', log=quiet)
    (root / 'x.json').write_text('{"images": []}')
    with pytest.raises(DataError, match='x.json: not a COCO file'):
        convert('coco', root / 'x.json', tmp_path / 'o.h5', log=quiet)
    (root / 'x.json').write_text('{')
    with pytest.raises(DataError, match='x.json: not JSON'):
        convert('coco', root, tmp_path / 'o.h5', log=quiet)
