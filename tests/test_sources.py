"""Folders a class: classes and splits by the names of folders."""
import pytest

from labelled_trees import paint, quiet
from mpi_ftp.convert import convert
from mpi_ftp.errors import DataError
from mpi_ftp.pictures import Pictures


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
