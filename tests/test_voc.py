"""VOC's annotations, whole and broken: what is packed, what is refused, and with which words."""
from pathlib import Path

import numpy as np
from PIL import Image

from labelled_trees import annotate, paint, quiet, voc_tree
from mpi_ftp.convert import convert
from mpi_ftp.pictures import Pictures, load_picture

BCCD = Path(__file__).parents[1] / 'jobs' / 'bccd'


def test_voc(tmp_path):
    voc = voc_tree(tmp_path / 'set/VOC')
    summary = convert('voc', tmp_path / 'set', tmp_path / 'o.h5', log=quiet)
    assert (summary.pictures, summary.boxes, summary.refused, summary.clipped) == (3, 3, [], 0)
    assert summary.splits == {'train': 2, 'test': 1, 'trainval': 3} and summary.classes == {'cat': 1, 'dog': 2}
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.classes == ['cat', 'dog'] and pictures.indices('train').tolist() == [0, 2]
        assert np.allclose(pictures.boxes(2), [[1, .25, .5, .25, .5], [0, .5, .5, 1, 1]])
        for k in range(3):
            assert pictures.name(k) == f'p{k}' and pictures.size(k) == (48, 64)
            assert np.array_equal(pictures.read(k, 0, 48, 0, 64), load_picture(voc / f'JPEGImages/p{k}.png'))
        assert pictures.attributes['kind'] == 'voc' and pictures.attributes['source'] == 'set'


def test_voc_refusals(tmp_path):
    voc = voc_tree(tmp_path / 'set/VOC')
    annotate(voc / 'Annotations/p0.xml', [('dog', 5, 5, 5, 5), ('dog', 9, 1, 2, 8), ('dog', 70, 1, 90, 8), ('dgo', 1, 1, 9, 9),
                                          ('cat', -6, 4, 32, 60)])
    annotate(voc / 'Annotations/p1.xml', [('dog', 1, 1, 9, 9)], extra='<difficult>1</difficult>')
    annotate(voc / 'Annotations/p3.xml', [('dog', 1, 1, 9, 9)])
    annotate(voc / 'Annotations/p4.xml', [('dog', 1, 1, 9, 9)], size=(64, 48))
    annotate(voc / 'Annotations/p5.xml', [('dog', 1, 1, 9, 9)])
    annotate(voc / 'Annotations/p6.xml', [('dog', 1, 'x', 9, 9)])
    for k in (4, 6, 7):
        paint(voc / f'JPEGImages/p{k}.png')
    (voc / 'JPEGImages/p5.png').write_text('text')
    (voc / 'Annotations/p7.xml').write_text('<annotation>')
    with (voc / 'ImageSets/Main/train.txt').open('a') as file:
        file.write('p9\n')
    summary = convert('voc', voc, tmp_path / 'o.h5', names=['dog', 'cat'], log=quiet)
    assert (summary.pictures, summary.boxes, summary.clipped, summary.uncounted) == (3, 3, 1, 1)
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert [len(pictures.boxes(i)) for i in range(3)] == [1, 0, 2]
        assert np.allclose(pictures.uncounted(1), [[0, 5 / 64, 5 / 48, 8 / 64, 8 / 48, 1]]) and not len(pictures.uncounted(0))
    assert sorted(summary.refused) == [
        ('p0', 'box dgo 1,1,9,9: unknown class, did you mean "dog"?'),
        ('p0', 'box dog 5,5,5,5: no area'),
        ('p0', 'box dog 70,1,90,8: outside the picture'),
        ('p0', 'box dog 9,1,2,8: no area'),
        ('p3.xml', 'no picture of this name'),
        ('p4', 'its annotation is for 48 x 64 pixels, the picture has 64 x 48'),
        ('p5', 'not a picture this program can read'),
        ('p6.xml', "could not convert string to float: 'x'"),
        ('p7.xml', 'no element found: line 1, column 12'),
        ('p9', 'in ImageSets, but without annotation')]
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.classes == ['dog', 'cat']
        assert np.allclose(pictures.boxes(0), [[1, .25, 26 / 48, .5, 44 / 48]])
    text = str(summary)
    assert '10 refused:' in text and 'p4: its annotation is for 48 x 64 pixels' in text
    assert '1 boxes reached past their picture' in text


def test_voc_xml_beside_pictures_and_other_suffix(tmp_path):
    paint(tmp_path / 'set/a.png')
    annotate(tmp_path / 'set/a.xml', [('tree', 0, 0, 32, 24)], filename='a.tif', size=None)
    convert('voc', tmp_path / 'set', tmp_path / 'o.h5', log=quiet)
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert np.allclose(pictures.boxes(0), [[0, .25, .25, .5, .5]])


def test_a_turned_picture_keeps_its_boxes(tmp_path):
    """The annotation speaks of the upright picture, the file is stored lying."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / 'set').mkdir()
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(tmp_path / 'set/a.jpg', exif=exif)
    annotate(tmp_path / 'set/a.xml', [('tree', 0, 0, 32, 24)])
    summary = convert('voc', tmp_path / 'set', tmp_path / 'o.h5', log=quiet)
    assert not summary.refused
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.size(0) == (48, 64) and np.allclose(pictures.boxes(0), [[0, .25, .25, .5, .5]])


def test_the_shipped_blood_cells(tmp_path):
    summary = convert('voc', BCCD / 'bccd.tar.gz', tmp_path / 'o.h5', size=(64, 48), log=quiet)
    assert (summary.pictures, summary.boxes, summary.clipped) == (364, 4886, 0)
    assert summary.splits == {'train': 205, 'val': 87, 'test': 72, 'trainval': 292}
    assert summary.classes == {'Platelets': 361, 'RBC': 4153, 'WBC': 372}
    assert summary.refused == [('BloodImage_00338', 'box RBC 504,337,504,337: no area'),
                               ('BloodImage_00343', 'box RBC 181,329,181,329: no area')]
    assert (BCCD / 'bccd.names').read_text().split() == list(summary.classes)
    with Pictures(tmp_path / 'o.h5') as pictures:
        counts = {split: sum(len(pictures.boxes(i)) for i in pictures.indices(split)) for split in pictures.splits}
        assert counts == {'train': 2804, 'val': 1137, 'test': 945, 'trainval': 3941}
