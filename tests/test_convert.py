"""What packing does with every kind of source: sizes, splits, archives, what cannot be used, the summary, the verb."""
import argparse
import io
import os
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from labelled_trees import annotate, paint, quiet, voc_tree
from mpi_ftp import convert as verb
from mpi_ftp.convert import convert
from mpi_ftp.errors import DataError, JobError
from mpi_ftp.pictures import Pictures, load_picture


def test_again_gives_the_same_file(tmp_path):
    voc = voc_tree(tmp_path / 'set/VOC')
    convert('voc', voc, tmp_path / 'a.h5', log=quiet)
    convert('voc', voc, tmp_path / 'b.h5', log=quiet)
    assert (tmp_path / 'a.h5').read_bytes() == (tmp_path / 'b.h5').read_bytes()


def test_resized(tmp_path):
    voc = voc_tree(tmp_path / 'set/VOC')
    convert('voc', voc, tmp_path / 'o.h5', size=(32, 12), log=quiet)
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.size(1) == (12, 32) and np.allclose(pictures.boxes(1), [[1, .25, .5, .25, .5]])
        assert np.array_equal(pictures.read(1, 0, 12, 0, 32), load_picture(voc / 'JPEGImages/p1.png', (32, 12)))


def test_names_of_any_bytes(tmp_path):
    """As an archive from a machine with Latin-1 leaves them."""
    for k in range(3):
        paint(tmp_path / f'set/gr\udcfcn/{k}.png', 4, 4, k)
    (tmp_path / 'set/gr\udcfcn/caf\udce9.png').write_text('no picture')
    done = subprocess.run([sys.executable, '-m', 'mpi_ftp', 'convert', 'folder', tmp_path / 'set', tmp_path / 'o.h5'], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b'')
    assert b'o.h5: 3 pictures; gr\xfcn 3\n' in done.stdout and b'  gr\xfcn/caf\xe9.png: not a picture this program can read\n' in done.stdout
    with Pictures(tmp_path / 'o.h5') as pictures:
        assert pictures.classes == ['gr\udcfcn'] and pictures.name(1) == 'gr\udcfcn/1.png'


def test_a_truncated_picture_is_refused_and_the_rest_kept(tmp_path):
    voc = voc_tree(tmp_path / 'set/VOC')
    broken = voc / 'JPEGImages/p1.png'
    broken.write_bytes(broken.read_bytes()[:3000])
    summary = convert('voc', voc, tmp_path / 'o.h5', log=quiet)
    assert summary.pictures == 2 and summary.refused[0][0] == 'p1' and 'cannot be decoded' in summary.refused[0][1]
    with Pictures(tmp_path / 'o.h5') as pictures:          # numbers close up; a split without pictures goes
        assert pictures.indices('train').tolist() == [0, 1] and 'test' not in pictures.splits


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


def test_archives(tmp_path):
    voc = voc_tree(tmp_path / 'set/VOC')
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


def test_causes_of_failure(tmp_path):
    voc = voc_tree(tmp_path / 'set/VOC')
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
            ('voc', blank, 'o.h5', 'no boxes and no class names')):
        with pytest.raises(DataError, match=words):
            convert(kind, source, tmp_path / out, log=quiet)
    with pytest.raises(JobError, match='cannot write .*none/o.h5: No such file or directory'):
        convert('voc', voc, tmp_path / 'none/o.h5', log=quiet)
    with pytest.raises(JobError, match='cannot write .*cut.zip: it is also what is read'):
        convert('voc', tmp_path / 'cut.zip', tmp_path / 'cut.zip', log=quiet)
    for kind in 'voc', 'yolo':
        if kind == 'yolo':
            (tmp_path / 'yolo').mkdir()
            paint(tmp_path / 'yolo/a.png')
            (tmp_path / 'yolo/a.txt').write_text('3 .5 .5 .2 .2')
        with pytest.raises(DataError, match={'voc': 'the first is of class "dog", did you mean "dogs"', 'yolo': 'the first is of class "number 3"'}[kind]):
            convert(kind, voc if kind == 'voc' else tmp_path / 'yolo', tmp_path / 'o.h5', names=['dogs', 'cow'], log=quiet)
    paint(tmp_path / 'broken/a.png').with_suffix('.xml').write_text('<annotation><object>')
    with pytest.raises(DataError, match='no boxes and no class names in it; the first: a.xml: no element found'):
        convert('voc', tmp_path / 'broken', tmp_path / 'o.h5', log=quiet)
    with pytest.raises(DataError, match='none.names: cannot be read as text: No such file or directory$'):
        verb.run(arguments('voc', str(voc), str(tmp_path / 'o.h5'), '--names', str(tmp_path / 'none.names')))
    for picture in (voc / 'JPEGImages').iterdir():
        picture.write_text('text')
    with pytest.raises(DataError, match='no picture of it can be used; the first: p0: not a picture'):
        convert('voc', voc, tmp_path / 'o.h5', log=quiet)
    assert not (tmp_path / 'o.h5').exists() and not list(tmp_path.glob('*.tmp'))


def arguments(*words):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return parser.parse_args(words)


def test_the_verb(tmp_path, capsys):
    voc = voc_tree(tmp_path / 'set/VOC')
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


def test_a_long_summary_is_cut(tmp_path):
    for k in range(30):
        paint(tmp_path / f'set/c{k}/{k}.png', 4, 4, 3)
        (tmp_path / f'set/c{k}/{k}.txt').write_text('x')
    summary = convert('folder', tmp_path / 'set', tmp_path / 'o.h5', log=quiet)
    assert len(summary.refused) == 30 and '... (30 classes)' in str(summary) and '  ... and 10 more' in str(summary)
    assert 'boxes' not in str(summary)
