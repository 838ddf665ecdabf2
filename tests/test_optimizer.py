"""The optimizer's step: as late as it may be, and the same as at once."""
import numpy as np
import pytest
from core import NETWORKS, Quadratic, make_network, picture

from mpi_ftp import comm as comm_module
from mpi_ftp import optimizer
from mpi_ftp.kernels import threads
from mpi_ftp.model import Model
from mpi_ftp.optimizer import lanes
from mpi_ftp.parameters import Segment
from mpi_ftp.plan import by_hand


@pytest.fixture(autouse=True)
def buckets_of_one_layer(monkeypatch):
    """Else these small networks are one bucket, in the first lane."""
    monkeypatch.setattr('mpi_ftp.parameters.BUCKET', 1)


def trained(network, plan, comm, steps, late, dtype=np.float64, aside=True):
    """A Model after so many steps, the last of which is not settled. aside: what Model.aside becomes; True leaves it."""
    model = Model(network, plan, comm, dtype, losses={head.index: Quadratic() for head in network.heads})
    model.optimizer.late = late
    model.aside = model.aside if aside is True else aside
    model.parameters.initialise(3)
    for step in range(steps):
        model.forward(picture(network, plan.batch, model.picture), [None] * plan.batch, key=step)
        model.backward()
        model.optimizer.step(1e-4, .9, 1e-3)
    return model


def test_lanes_part_the_operations(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48)
    for count in (1, 2, 3, 5):
        found = lanes(network, count)
        assert list(found) == list(range(len(network))) and found[0] == 0 and max(found.values()) == (count - 1 if count < 5 else 4)
        assert list(found.values()) == sorted(found.values())


def test_parts_join_what_is_treated_alike_and_cut_what_is_long(monkeypatch):
    monkeypatch.setattr(optimizer, 'PART', 100)
    segments = [Segment(0, 'filters', 0, 250, ()), Segment(0, 'scale', 250, 260, ()), Segment(0, 'bias', 260, 270, ()), Segment(1, 'filters', 270, 300, ()),
                Segment(3, 'bias', 400, 410, ()), Segment(4, 'bias', 420, 430, ())]
    rows = [[0, 100, 1], [100, 200, 1], [200, 250, 1], [250, 270, 0], [270, 300, 1], [400, 410, 0], [420, 430, 0]]
    assert optimizer.parts(segments).tolist() == rows
    assert optimizer.parts([]).shape == (0, 3)


@pytest.mark.mpi(1, 2, 3, 4, 6)
@pytest.mark.parametrize('name', ['tiny-yolo', 'reorg'])
def test_late_steps_are_those_at_once(name, tmp_path):
    network, comm = make_network(tmp_path, NETWORKS[name], 36, 44), comm_module.world()
    plan = by_hand(network, comm.size, 2, (comm.size, 1), range(len(network)))
    one, other = (trained(network, plan, comm, 4, late) for late in (False, True))
    assert comm.size == 1 or {take.units > 0 for take in other.optimizer.lanes} == {True}
    other.rest()
    for mine, late in ((one.parameters.flat, other.parameters.flat), (one.parameters.momentum, other.parameters.momentum)):
        assert mine.any() and mine.tobytes() == late.tobytes()
    assert not one.parameters.grads.any() and not other.parameters.grads.any()


@pytest.mark.mpi(2, 3)
def test_weights_change_before_their_layer_runs(tmp_path):
    network, comm = make_network(tmp_path, NETWORKS['tiny-yolo'], 36, 44), comm_module.world()
    model = trained(network, by_hand(network, comm.size, 2, (comm.size, 1), range(len(network))), comm, 1, True)
    parameters, lane = model.parameters, lanes(network)
    fresh = parameters.flat.copy()

    def changed():
        return {s.layer for s in parameters.segments if (parameters.flat[s.first:s.last] != fresh[s.first:s.last]).any()}
    layers = {s.layer for s in parameters.segments}
    early = {s.layer for first, last, s in ((bucket[1], bucket[2], s) for bucket in parameters.buckets for s in parameters.segments
                                            if lane[bucket[0]] == 0) if first <= s.first < last}
    assert changed() == set() < early < layers
    model.optimizer.settle([0])
    assert changed() == early
    model.forward(picture(network, 2, model.picture), [None] * 2)
    assert changed() == layers


@pytest.mark.mpi(1, 2, 3)
def test_sums_go_on_in_the_midst_of_kernels(tmp_path, monkeypatch):
    """And kernels that are interrupted give the same bits."""
    monkeypatch.setattr(threads, 'GAP', 0)
    network, comm = make_network(tmp_path, NETWORKS['tiny-yolo'], 60, 76), comm_module.world()
    plan, looks = by_hand(network, comm.size, 2, (comm.size, 1), range(len(network))), []
    assert (trained(network, plan, comm, 0, True).aside is None) == (comm.size == 1)
    assert Model(network, plan, comm, overlap=False).aside is None
    models = []
    for aside in None, True, lambda: looks.append(len(looks)):
        models.append(trained(network, plan, comm, 3, True, np.float32, aside))
        models[-1].rest()                               # its last sums would meet those of the next model, which have the same tags
    assert len(looks) > 3 * 2 * len(network)            # some in every layer, forward and backward
    assert len({model.parameters.flat.tobytes() for model in models}) == 1
