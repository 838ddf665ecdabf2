"""Darknet's lists and label files, whole and broken: what is packed, what is refused, and with which words."""
import tarfile

import numpy as np
import pytest

from labelled_trees import paint, quiet
from mpi_ftp.convert import convert
from mpi_ftp.errors import DataError
from mpi_ftp.pictures import Pictures


def yolo_tree(root):
    for k in range(4):
        paint(root / f'images/q{k}.png')
        label = root / f'labels/q{k}.txt'
        label.parent.mkdir(exist_ok=True)
        label.write_text(f'{k % 2} .5 .5 .25 .5\n' * (k > 0))
    return root


def test_yolo_lists_in_the_folder(tmp_path):
    root = yolo_tree(tmp_path / 'set')
    (root / 'train.txt').write_text('images/q0.png\nimages/q1.png\n')
    (root / 'valid.txt').write_text(f'{root}/images/q2.png\n\n/somewhere/else/images/q3.png\n')
    summary = convert('yolo', root, tmp_path / 'o.h5', log=quiet)
    assert (summary.pictures, summary.boxes, summary.refused) == (4, 3, [])
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.classes == ['0', '1']
        assert [pictures.name(i) for i in pictures.indices('train')] == ['images/q0.png', 'images/q1.png']
        assert [pictures.name(i) for i in pictures.indices('val')] == ['images/q2.png', 'images/q3.png']
        assert len(pictures.boxes(0)) == 0 and np.allclose(pictures.boxes(1), [[1, .5, .5, .25, .5]])


def test_yolo_data_file(tmp_path):
    root = yolo_tree(tmp_path / 'set')
    (root / 'lists').mkdir()
    (root / 'lists/a.list').write_text('../images/q0.png\nimages/q1.png\n')
    (root / 'lists/b.list').write_text('images/q2.png\nimages/q3.png\n')
    (root / 'my.names').write_text('ant\nbee\nfly\n')
    (root / 'my.data').write_text('classes= 3\ntrain  = lists/a.list\nvalid = lists/b.list\nnames = my.names\nbackup = x\n')
    for source in (root, root / 'my.data'):
        convert('yolo', source, tmp_path / 'o.h5', log=quiet)
        with Pictures(tmp_path / 'o.h5') as pictures:
            assert pictures.classes == ['ant', 'bee', 'fly'] and {len(pictures.indices(s)) for s in ('train', 'val')} == {2}
    (root / 'my.data').write_text('train = gone.list\n')
    with pytest.raises(DataError, match='my.data: its list for train does not exist'):
        convert('yolo', root, tmp_path / 'o.h5', log=quiet)


def test_yolo_folders_as_splits(tmp_path):
    for split, names in (('train', 'ab'), ('val', 'c')):
        for name in names:
            paint(tmp_path / f'set/images/{split}/{name}.png')
            label = tmp_path / f'set/labels/{split}/{name}.txt'
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text('0 .5 .5 .2 .2\n')
    assert convert('yolo', tmp_path / 'set', tmp_path / 'o.h5', log=quiet).splits == {'train': 2, 'val': 1}


def test_yolo_labels_beside_the_pictures(tmp_path):
    paint(tmp_path / 'set/obj/a.png')
    (tmp_path / 'set/obj/a.txt').write_text('0 .5 .5 .2 .2\n')
    (tmp_path / 'set/train.txt').write_text('obj/a.png\n')
    assert convert('yolo', tmp_path / 'set', tmp_path / 'o.h5', log=quiet).boxes == 1


def test_yolo_refusals(tmp_path):
    root = yolo_tree(tmp_path / 'set')
    (root / 'train.txt').write_text('images/q0.png\nimages/q1.png\nimages/q2.png\nimages/q3.png\nimages/q7.png\n')
    (root / 'labels/q0.txt').write_text('0 .5 .5 .2\n')
    (root / 'labels/q1.txt').write_text('0 .9 .5 .4 .2\n5 .5 .5 .1 .1\n1 .5 .5 0 .1\n')
    (root / 'labels/q2.txt').write_text('-1 .5 .5 .2 .2\n')
    summary = convert('yolo', root, tmp_path / 'o.h5', names=['ant', 'bee'], log=quiet)
    assert (summary.pictures, summary.boxes, summary.clipped) == (2, 2, 1)
    assert sorted(summary.refused) == [
        ('images/q0.png', 'label line "0 .5 .5 .2": expected "class cx cy w h"'),
        ('images/q1.png', 'box bee 0.5,0.45,0.5,0.55: no area'),
        ('images/q1.png', 'box number 5 0.45,0.45,0.55,0.55: unknown class'),
        ('images/q2.png', 'label line "-1 .5 .5 .2 .2": negative class'),
        ('images/q7.png', 'in the list of train, but no such file')]
    (root / 'train.txt').write_bytes(b'\xff\xfe')
    with pytest.raises(DataError, match='train.txt: cannot be read as text'):
        convert('yolo', root, tmp_path / 'o.h5', log=quiet)


def test_yolo_without_labels_is_a_wrong_path(tmp_path):
    paint(tmp_path / 'set/images/a.png')
    with pytest.raises(DataError, match='none of its 1 pictures has a label file'):
        convert('yolo', tmp_path / 'set', tmp_path / 'o.h5', log=quiet)


def test_a_yolo_archive_with_a_data_file(tmp_path):
    root = yolo_tree(tmp_path / 'set')
    (root / 'train.txt').write_text('data/set/images/q0.png\n/home/x/set/images/q1.png\n')
    (root / 'my.names').write_text('ant\nbee\n')
    (root / 'my.data').write_text('train = data/set/train.txt\nnames = data/set/my.names\n')
    with tarfile.open(tmp_path / 'a.tgz', 'w:gz') as archive:
        archive.add(root, 'top/set')
    summary = convert('yolo', tmp_path / 'a.tgz', tmp_path / 'o.h5', log=quiet)
    assert summary.splits == {'train': 2} and summary.classes == {'ant': 0, 'bee': 1} and not summary.refused
