"""Evaluation of a model on a data set: what counts as a truth."""
import numpy as np
import pytest
from core import HEAD, conv, make_network, picture

from mpi_ftp import comm as comm_module
from mpi_ftp import evaluate as module
from mpi_ftp.comm import Alone
from mpi_ftp.model import Model
from mpi_ftp.pictures import writing
from mpi_ftp.plan import by_hand
from mpi_ftp.session import losses_of

CLASSES = [str(k) for k in range(13)]


@pytest.fixture
def model(tmp_path):
    network = make_network(tmp_path, conv(16) + HEAD, 32, 32)
    return Model(network, by_hand(network, 1, 2, (1, 1), [0]), Alone(), np.float32, training=False, losses=losses_of(network))


def test_uncounted_boxes_count_neither_way_and_tiny_ones_count(model, tmp_path, monkeypatch):
    known = [3, .5, .5, .2, .2]
    with writing(tmp_path / 'd.h5', CLASSES, (32, 32)) as writer:
        for k, uncounted in enumerate([[], [[3, .2, .2, .1, .1, 1]], [[3, .5, .25, .9, .4, 2]]]):
            writer.add(str(k), np.zeros((32, 32, 3), np.uint8), [known, [4, .5, .5, .0005, .5]][:1 + (k == 0)], uncounted=uncounted)
        writer.splits = {'val': [0, 1, 2]}
    scores = np.zeros(13)
    scores[3] = 1.0
    rows = [[slot, *box, 1.0, *scores * share] for slot in range(2) for box, share in (((.2, .2, .1, .1), .9), ((.5, .5, .2, .2), .8))]
    monkeypatch.setattr(module, 'gather_boxes', lambda *args: np.array(rows))
    found = module.evaluate(Alone(), model, tmp_path / 'd.h5', 'val')
    # the better box is a false alarm on picture 0, meets a difficult one on 1 and lies in a crowd on 2: hits, a false alarm first
    assert found.truths[[3, 4]].tolist() == [3, 1] and found.detections[3] == 6
    assert found.ap50[3] == pytest.approx(.75) and found.ap50[4] == 0


@pytest.mark.mpi(2)
def test_a_rank_without_cells_finds_nothing(tmp_path):
    world = comm_module.world()
    network = make_network(tmp_path, conv(16) + HEAD, 32, 32)
    found = {}
    for comm, plan in (world, by_hand(network, 2, 1, (1, 1), [0])), (Alone(), by_hand(network, 1, 1, (1, 1), [0])):
        model = Model(network, plan, comm, np.float32, training=False, losses=losses_of(network))
        model.parameters.initialise(1)
        model.forward(picture(network, 1, model.picture).astype(np.float32))
        found[comm.size] = module.gather_boxes(comm, model, .1, .5)
    assert (found[2] is None) == (world.rank == 1) and len(found[1])
    if world.rank == 0:
        np.testing.assert_array_equal(found[2], found[1])
