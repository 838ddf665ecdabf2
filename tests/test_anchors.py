"""Anchors: known clusters are found, the blood cells give the known figure, and the printed lines fit a .cfg."""
import argparse
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mpi_ftp import anchors as verb
from mpi_ftp.anchors import cluster, iou, shapes
from mpi_ftp.errors import DataError
from mpi_ftp.pictures import Pictures, writing
from mpi_ftp.voc import read


@pytest.fixture(scope='module')
def cells(tmp_path_factory):
    """The boxes of the shipped blood cells around blank pictures of the same shape."""
    folder = tmp_path_factory.mktemp('anchors')
    with tarfile.open(Path(__file__).parents[1] / 'jobs/bccd/bccd.tar.gz') as archive:
        archive.extraction_filter = getattr(tarfile, 'data_filter', None)       # Python 3.11.2 of Debian 12 has none
        archive.extractall(folder)
    source = read(folder)
    with writing(folder / 'cells.h5', source.classes, (48, 64)) as writer:
        for item in source.items:
            corners = np.array([box[1:] for box in item.boxes]) / (640, 480, 640, 480)
            boxes = np.column_stack([np.zeros(len(corners)), (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])
            writer.add(item.name, np.zeros((48, 64, 3), np.uint8), boxes[boxes[:, 3] > 0])
        writer.splits = {'train': range(292)}
    return folder / 'cells.h5'


def test_iou_of_centred_boxes():
    boxes, anchors = np.array([[2., 4.], [1., 1.]]), np.array([[2., 4.], [4., 2.], [10., 10.]])
    assert np.allclose(iou(boxes, anchors), [[1, 4 / 12, .08], [1 / 8, 1 / 8, .01]])


def test_known_clusters_are_found():
    rng = np.random.default_rng(0)
    centres = np.array([[10, 12], [40, 20], [30, 90], [150, 140]])
    boxes = np.concatenate([c * rng.uniform(.9, 1.1, (50, 2)) for c in centres])
    found, mean = cluster(boxes, 4)
    assert np.allclose(found, centres, rtol=.05) and mean > .9
    assert np.array_equal(cluster(boxes, 4)[0], found)                    # the same seed, the same answer
    assert mean == pytest.approx(iou(boxes, found).max(1).mean())


def test_more_anchors_fit_better_and_every_box_alone_fits_perfectly():
    boxes = np.random.default_rng(1).uniform(5, 100, (30, 2))
    means = [cluster(boxes, count)[1] for count in (1, 2, 4, 8, 30)]
    assert means == sorted(means) and means[-1] == pytest.approx(1)
    with pytest.raises(DataError, match='30 different box shapes cannot make 31 anchors'):
        cluster(boxes, 31)


def test_blood_cells(cells):
    with Pictures(cells) as pictures:
        found, mean = cluster(shapes(pictures, 'all', (416, 416), stretch=True) / 32, 5)
        assert mean == pytest.approx(.851, abs=.001)
        known = [[.79, 1.06], [1.95, 2.30], [2.05, 2.76], [2.42, 3.01], [4.39, 5.31]]
        assert np.allclose(found, known, atol=.07)
        # A letterbox makes all these 4:3 pictures three quarters as high and changes no IoU
        flat = shapes(pictures, 'all', (416, 416))
        assert np.allclose(flat, shapes(pictures, 'all', (416, 416), stretch=True) * [1, .75])
        assert cluster(flat, 5)[1] == pytest.approx(mean, abs=.002)


def verb_prints(capsys, *words):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    verb.run(parser.parse_args(words))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('anchors = ')]
    return [np.array(line.removeprefix('anchors = ').replace(', ', ',').split(','), float).reshape(-1, 2) for line in lines]


def test_the_verb(cells, capsys):
    in_cells, pixels = verb_prints(capsys, '--data', str(cells), '--num', '3')
    assert in_cells.shape == (3, 2) and np.allclose(in_cells * 32, pixels, atol=.7)
    assert (np.diff(in_cells.prod(1)) > 0).all()
    assert np.array_equal(verb_prints(capsys, '--data', str(cells), '--num', '3', '--cells', '13x13')[0], in_cells)
    double = verb_prints(capsys, '--data', str(cells), '--num', '3', '--size', '832x832')[0]
    assert np.allclose(double, 2 * in_cells, atol=.02)


def test_without_boxes(tmp_path):
    with writing(tmp_path / 'p.h5', ['a'], (8, 8)) as writer:
        writer.add('x', np.zeros((8, 8, 3), np.uint8))
        writer.splits = {'train': [0], 'none': []}
    with Pictures(tmp_path / 'p.h5') as pictures:
        for split in ('train', 'none'):
            with pytest.raises(DataError, match=f'split "{split}" holds no boxes'):
                shapes(pictures, split, (416, 416))
