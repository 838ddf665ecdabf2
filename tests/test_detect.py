"""Which pictures are looked at."""
import pytest

from mpi_ftp.detect import listed
from mpi_ftp.errors import DataError


def test_folders_are_opened_and_files_taken_as_they_are(tmp_path):
    for name in 'b.PNG', 'a.jpg', 'notes.txt', 'odd.name':
        (tmp_path / 'some').mkdir(exist_ok=True)
        (tmp_path / 'some' / name).write_bytes(b'')
    some = tmp_path / 'some'
    assert listed([some / 'odd.name', str(some)]) == [some / 'odd.name', some / 'a.jpg', some / 'b.PNG']
    (tmp_path / 'none').mkdir()
    (tmp_path / 'none' / 'notes.txt').write_bytes(b'')
    with pytest.raises(DataError, match='the folder .*none holds no pictures'):
        listed([some, tmp_path / 'none'])
    with pytest.raises(DataError, match='the picture .*gone.png does not exist'):
        listed([tmp_path / 'gone.png'])
