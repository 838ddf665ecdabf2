"""Which pictures are looked at; where boxes lie, in pixels."""
from types import SimpleNamespace

import numpy as np
import pytest

from mpi_ftp import detect
from mpi_ftp.comm import Alone
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


def test_boxes_are_told_in_pixels_of_the_picture(monkeypatch):
    """A picture of 80 x 40 lies in the middle rows of a square input."""
    model = SimpleNamespace(network=SimpleNamespace(shape=(3, 32, 32)), forward=lambda tile: None)
    rows = np.array([[0, .5, .5, .25, .25, .9, 0, .8], [0, .25, .375, .125, .0625, .7, .6, 0]])
    monkeypatch.setattr(detect, 'tile_of', lambda *about: None)
    monkeypatch.setattr(detect, 'gather_boxes', lambda *about: rows)
    record, drawn = detect.find_boxes(Alone(), model, np.zeros((40, 80, 3), np.uint8), ['cat'], SimpleNamespace(thresh=.1, nms=.5))
    assert record == {'detections': [{'class': '1', 'class_id': 1, 'score': .8, 'box': [30.0, 10.0, 20.0, 20.0]},
                                     {'class': 'cat', 'class_id': 0, 'score': .6, 'box': [15.0, 7.5, 10.0, 5.0]}]}
    np.testing.assert_allclose(drawn, [[1, .8, .5, .5, .25, .5], [0, .6, .25, .25, .125, .125]])
