"""Every kind of source, whole and broken: what is packed, what is refused, and with which words."""
import argparse
import io
import json
import os
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpi_ftp import convert as verb
from mpi_ftp.convert import convert
from mpi_ftp.errors import DataError
from mpi_ftp.pictures import Pictures, load_picture

BCCD = Path(__file__).parents[1] / 'jobs' / 'bccd'


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


@pytest.fixture
def voc(tmp_path):
    """Three pictures with boxes and the lists that VOC keeps."""
    root = tmp_path / 'set' / 'VOC'
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


def test_voc(voc, tmp_path):
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


def test_again_gives_the_same_file(voc, tmp_path):
    convert('voc', voc, tmp_path / 'a.h5', log=quiet)
    convert('voc', voc, tmp_path / 'b.h5', log=quiet)
    assert (tmp_path / 'a.h5').read_bytes() == (tmp_path / 'b.h5').read_bytes()


def test_resized(voc, tmp_path):
    convert('voc', voc, tmp_path / 'o.h5', size=(32, 12), log=quiet)
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.size(1) == (12, 32) and np.allclose(pictures.boxes(1), [[1, .25, .5, .25, .5]])
        assert np.array_equal(pictures.read(1, 0, 12, 0, 32), load_picture(voc / 'JPEGImages/p1.png', (32, 12)))


def test_voc_refusals(voc, tmp_path):
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
    assert (summary.pictures, summary.boxes, summary.clipped) == (3, 3, 1)
    assert sorted(summary.refused) == [
        ('p0', 'box dgo 1,1,9,9: unknown class, did you mean "dog"?'),
        ('p0', 'box dog 5,5,5,5: no area'),
        ('p0', 'box dog 70,1,90,8: outside the picture'),
        ('p0', 'box dog 9,1,2,8: no area'),
        ('p1', 'box dog 1,1,9,9: marked difficult'),
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
    assert '11 refused:' in text and 'p4: its annotation is for 48 x 64 pixels' in text
    assert '1 boxes reached past their picture' in text


def test_a_truncated_picture_is_refused_and_the_rest_kept(voc, tmp_path):
    broken = voc / 'JPEGImages/p1.png'
    broken.write_bytes(broken.read_bytes()[:3000])
    summary = convert('voc', voc, tmp_path / 'o.h5', log=quiet)
    assert summary.pictures == 2 and summary.refused[0][0] == 'p1' and 'cannot be decoded' in summary.refused[0][1]
    with Pictures(tmp_path / 'o.h5') as pictures:          # numbers close up; a split without pictures goes
        assert pictures.indices('train').tolist() == [0, 1] and 'test' not in pictures.splits


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


def yolo_tree(root):
    for k in range(4):
        paint(root / f'images/q{k}.png')
        label = root / f'labels/q{k}.txt'
        label.parent.mkdir(exist_ok=True)
        label.write_text(f'{k % 2} .5 .5 .25 .5\n' * (k > 0))
    return root


def check_yolo(path, classes):
    with Pictures(path) as pictures:
        assert pictures.classes == classes
        assert [pictures.name(i) for i in pictures.indices('train')] == ['images/q0.png', 'images/q1.png']
        assert [pictures.name(i) for i in pictures.indices('val')] == ['images/q2.png', 'images/q3.png']
        assert len(pictures.boxes(0)) == 0 and np.allclose(pictures.boxes(1), [[1, .5, .5, .25, .5]])


def test_yolo_lists_in_the_folder(tmp_path):
    root = yolo_tree(tmp_path / 'set')
    (root / 'train.txt').write_text('images/q0.png\nimages/q1.png\n')
    (root / 'valid.txt').write_text(f'{root}/images/q2.png\n\n/somewhere/else/images/q3.png\n')
    summary = convert('yolo', root, tmp_path / 'o.h5', log=quiet)
    assert (summary.pictures, summary.boxes, summary.refused) == (4, 3, [])
    check_yolo(tmp_path / 'o.h5', ['0', '1'])


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
    assert (summary.pictures, summary.boxes, summary.clipped) == (1, 1, 1)
    assert sorted(summary.refused) == [('a.png', 'box car 0,0,0,5: no area'), ('a.png', 'box car 0,0,5,5: a crowd'),
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


def test_folder_a_class(tmp_path):
    for name in ('9', '10', 'b c'):
        for k in range(12):
            paint(tmp_path / f'set/data/{name}/{name}_{k}.png', 8, 8)
    (tmp_path / 'set/data/9/notes.txt').write_text('x')
    (tmp_path / 'set/LICENSE').write_text('x')
    summary = convert('folder', tmp_path / 'set', tmp_path / 'o.h5', log=quiet)
    assert summary.pictures == 36 and summary.classes == {'9': 12, '10': 12, 'b c': 12}
    assert summary.refused == [('9/notes.txt', 'not a picture this program can read')]
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.labelled and pictures.classes == ['9', '10', 'b c']
        for i in range(36):
            assert pictures.name(i).startswith(pictures.classes[pictures.label(i)] + '/')
        parts = [set(pictures.indices(split).tolist()) for split in ('train', 'val', 'test')]
    assert [len(part) for part in parts] == [30, 3, 3] and set().union(*parts) == set(range(36))


def test_folder_with_splits_and_names(tmp_path):
    for split, name in (('train', 'cat'), ('train', 'dog'), ('test', 'dog')):
        paint(tmp_path / f'set/{split}/{name}/x.png', 8, 8)
    summary = convert('folder', tmp_path / 'set', tmp_path / 'o.h5', names=['dog', 'emu', 'cat'], log=quiet)
    assert summary.splits == {'train': 2, 'test': 1} and summary.classes == {'dog': 2, 'emu': 0, 'cat': 1}
    with pytest.raises(DataError, match='folder "cat" is not among the class names, did you mean "cot"'):
        convert('folder', tmp_path / 'set', tmp_path / 'o.h5', names=['dog', 'cot'], log=quiet)


def test_a_split_by_hash_depends_on_names_alone(tmp_path):
    found = []
    for folder, order in (('one', range(20)), ('two', reversed(range(20)))):
        for k in order:
            paint(tmp_path / folder / f'c/{k}.png', 4, 4, 3)
        convert('folder', tmp_path / folder, tmp_path / 'o.h5', log=quiet)
        with Pictures(tmp_path / 'o.h5') as pictures:
            found.append({s: sorted(pictures.name(i) for i in pictures.indices(s)) for s in pictures.splits})
    assert found[0] == found[1] and {s: len(n) for s, n in found[0].items()} == {'train': 16, 'val': 2, 'test': 2}


@pytest.mark.parametrize('pictures, splits', [(1, {'train': 1}), (2, {'train': 2}), (3, {'train': 1, 'val': 1, 'test': 1})])
def test_few_pictures_are_split_too(tmp_path, pictures, splits):
    for k in range(pictures):
        paint(tmp_path / f'set/c/{k}.png', 4, 4, 3)
    assert convert('folder', tmp_path / 'set', tmp_path / 'o.h5', log=quiet).splits == splits


def test_archives(voc, tmp_path):
    convert('voc', voc, tmp_path / 'plain.h5', log=quiet)
    with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz') as archive:
        archive.add(voc.parent, 'set')
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for path in voc.rglob('*.*'):
            archive.write(path, path.relative_to(voc))
    for name in ('a.tar.gz', 'a.zip'):
        convert('voc', tmp_path / name, tmp_path / 'o.h5', log=quiet)
        with Pictures(tmp_path / 'o.h5') as a, Pictures(tmp_path / 'plain.h5') as b:
            assert all(np.array_equal(a.boxes(i), b.boxes(i)) for i in range(3)) and a.classes == b.classes
            assert all(np.array_equal(a.indices(s), b.indices(s)) for s in ('train', 'test', 'trainval'))
    assert sorted(os.listdir(tmp_path)) == ['a.tar.gz', 'a.zip', 'o.h5', 'plain.h5', 'set']


def test_a_hostile_archive_stays_inside(tmp_path):
    with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz') as archive:
        entry = tarfile.TarInfo('../evil.txt')
        archive.addfile(entry, io.BytesIO())
    with pytest.raises(DataError, match='a.tar.gz cannot be unpacked'):
        convert('voc', tmp_path / 'a.tar.gz', tmp_path / 'o.h5', log=quiet)
    assert os.listdir(tmp_path) == ['a.tar.gz']


def test_causes_of_failure(voc, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text').write_text('x')
    blank = paint(tmp_path / 'blank/a.png').parent
    annotate(blank / 'a.xml', [])
    (tmp_path / 'cut.zip').write_bytes(b'PK\x03\x04 cut')
    for kind, source, out, words in (
            ('vco', voc, 'o.h5', 'unknown kind "vco": expected voc, yolo, coco, folder, did you mean "voc"'),
            ('voc', tmp_path / 'none', 'o.h5', 'none does not exist'),
            ('voc', tmp_path / 'text', 'o.h5', 'expected a folder, or a .tar.gz or .zip'),
            ('voc', tmp_path / 'cut.zip', 'o.h5', 'expected a folder, or a .tar.gz or .zip'),
            ('voc', tmp_path / 'empty', 'o.h5', 'no VOC annotation'),
            ('yolo', tmp_path / 'empty', 'o.h5', 'no .data file, no train.txt and no pictures'),
            ('coco', tmp_path / 'empty', 'o.h5', 'no COCO file'),
            ('folder', tmp_path / 'empty', 'o.h5', 'no folder a class'),
            ('voc', voc, 'none/o.h5', 'none is not a folder'),
            ('voc', blank, 'o.h5', 'no boxes and no class names')):
        with pytest.raises(DataError, match=words):
            convert(kind, source, tmp_path / out, log=quiet)
    for picture in (voc / 'JPEGImages').iterdir():
        picture.write_text('text')
    with pytest.raises(DataError, match='no picture of it can be used; the first: p0: not a picture'):
        convert('voc', voc, tmp_path / 'o.h5', log=quiet)
    assert not (tmp_path / 'o.h5').exists() and not list(tmp_path.glob('*.tmp'))


def arguments(*words):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return parser.parse_args(words)


def test_the_verb(voc, tmp_path, capsys):
    (tmp_path / 'n.names').write_text('dog\n\ncat\n')
    verb.run(arguments('voc', str(voc), str(tmp_path / 'o.h5'), '--size', '16x8', '--names', str(tmp_path / 'n.names')))
    text = capsys.readouterr().out
    assert 'packed 3 of 3 pictures' in text and 'o.h5: 3 pictures, 3 boxes; dog 2, cat 1' in text
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.classes == ['dog', 'cat'] and pictures.size(0) == (8, 16)
    for bad in ('16', '0x4', '4x-1'):
        with pytest.raises(SystemExit):
            arguments('voc', 'a', 'b', f'--size={bad}')
        assert 'expected WIDTHxHEIGHT' in capsys.readouterr().err
    (tmp_path / 'n.names').write_text('dog\ndog\n')
    with pytest.raises(DataError, match='class name "dog" twice'):
        verb.run(arguments('voc', str(voc), str(tmp_path / 'o.h5'), '--names', str(tmp_path / 'n.names')))


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


def test_a_yolo_archive_with_a_data_file(tmp_path):
    root = yolo_tree(tmp_path / 'set')
    (root / 'train.txt').write_text('data/set/images/q0.png\n/home/x/set/images/q1.png\n')
    (root / 'my.names').write_text('ant\nbee\n')
    (root / 'my.data').write_text('train = data/set/train.txt\nnames = data/set/my.names\n')
    with tarfile.open(tmp_path / 'a.tgz', 'w:gz') as archive:
        archive.add(root, 'top/set')
    summary = convert('yolo', tmp_path / 'a.tgz', tmp_path / 'o.h5', log=quiet)
    assert summary.splits == {'train': 2} and summary.classes == {'ant': 0, 'bee': 1} and not summary.refused


def test_a_long_summary_is_cut(tmp_path):
    for k in range(30):
        paint(tmp_path / f'set/c{k}/{k}.png', 4, 4, 3)
        (tmp_path / f'set/c{k}/{k}.txt').write_text('x')
    summary = convert('folder', tmp_path / 'set', tmp_path / 'o.h5', log=quiet)
    assert len(summary.refused) == 30 and '... (30 classes)' in str(summary) and '  ... and 10 more' in str(summary)
    assert 'boxes' not in str(summary)
