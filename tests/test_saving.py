"""Checkpoints and weights are written slice by slice from the ranks that own the rows, and read back by any cut."""
import time
import tracemalloc

import numpy as np
import pytest
from core import conv, make_network

from mpi_ftp import comm as comm_module
from mpi_ftp import parameters as parameters_module
from mpi_ftp.errors import WeightsError
from mpi_ftp.model import Model
from mpi_ftp.parameters import cut_rows
from mpi_ftp.plan import GroupPlan, Plan
from mpi_ftp.region import balanced
from mpi_ftp.saving import WeightsSource, load_checkpoint, owners, save_checkpoint, save_weights

TEXT = conv(40) + conv(72, k=1) + conv(20, bn=0, a='linear') + '[connected]\noutput=37\nactivation=linear\n[softmax]\n'
META = {'iteration': 5, 'seen': 10, 'seed': 0, 'loader': [0, 4]}


def test_rows_are_cut_in_blocks():
    assert cut_rows(16, 90, (90, 1, 1), np.float32) == [(16, 90)]
    assert cut_rows(16, 90, (90, 16 << 10, 1), np.float32) == [(16, 48), (48, 80), (80, 90)]
    assert cut_rows(0, 20, (20, 1 << 20), np.float32) == [(0, 16), (16, 20)]
    assert cut_rows(5, 5, (20, 1 << 20), np.float32) == []


def test_the_lowest_rank_sends_rows_that_several_hold():
    assert owners([(16, 32), (0, 16), None, (0, 16), (16, 32)]) == [(1, (0, 16)), (0, (16, 32))]


@pytest.mark.mpi(2)
@pytest.mark.parametrize('patient', [False, True])
def test_a_slice_does_not_leave_before_it_is_asked_for(patient, monkeypatch):
    """Else all slices of all ranks could lie in the memory of the one that writes."""
    world = comm_module.world()
    monkeypatch.setattr(world, 'patient', patient)
    numbers = np.arange(64, dtype=np.float32)
    for _ in range(2):
        world.barrier()
        begun = time.monotonic()
        if world.rank == 0:
            time.sleep(.3)
            found = np.empty_like(numbers)
            world.receive(found, 1, 5)
            assert (found == numbers).all()
        else:
            world.send(numbers, 0, 5)
            assert time.monotonic() - begun > .25
    world.barrier()


def cut_along_channels(network, ranks):
    """Every layer a group, cut along C among all ranks; the first shared by all, the head's along N."""
    groups = []
    for layer in network.layers:
        n, c, h, w = network.tensor_shape(layer.index, 2)
        parts = balanced(c, ranks, 16) if 0 < layer.index < 4 else (0, c)
        rows = balanced(h, ranks) if layer.index == 0 else (0, h)
        groups.append(GroupPlan(layer.index, layer.index + 1, ((0, n), tuple(dict.fromkeys(parts)), rows, (0, w))))
    return Plan(ranks, 2, tuple(groups))


def filled(network, comm, seed):
    """Parameters with random values in every tensor and in the momentum, the same for any cut."""
    model = Model(network, cut_along_channels(network, comm.size), comm)
    parameters = model.parameters
    for layer, (first, last) in parameters.channels.items():
        for number, (name, shape) in enumerate(network.layers[layer].tensors):
            whole = np.random.default_rng([seed, layer, number]).standard_normal((2,) + tuple(shape)).astype(np.float32)
            parameters.set(layer, name, whole[0, first:last])
            if name in parameters_module.TRAINED:
                parameters.set(layer, name, whole[1, first:last], parameters.momentum)
    return parameters


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    alone = comm_module.Alone()
    for name, width in ('a', 20), ('b', 24):
        (tmp_path / name).mkdir()
    mine, other = (filled(make_network(tmp_path / name, conv(width) + conv(8), 7, 9), alone, 1) for name, width in (('a', 20), ('b', 24)))
    save_checkpoint(tmp_path / 'checkpoint.h5', alone, other, META)
    with pytest.raises(WeightsError, match=r'checkpoint.h5: tensor 0/\w+ of layer 0 \[convolutional\] has shape \(24.*expected \(20.*another network'):
        load_checkpoint(tmp_path / 'checkpoint.h5', alone, mine)


@pytest.mark.parametrize('wrong', [{'iteration': 'five'}, {'iteration': -1}, {'iteration': 2.5}, {'seen': None}, {'loader': [0]}, {'loader': 'ab'}, {'seed': True}])
def test_a_checkpoint_that_does_not_say_where_its_run_stood_is_refused(tmp_path, wrong):
    alone = comm_module.Alone()
    mine = filled(make_network(tmp_path, conv(20), 7, 9), alone, 1)
    save_checkpoint(tmp_path / 'checkpoint.h5', alone, mine, {**META, **wrong})
    with pytest.raises(WeightsError, match=f'checkpoint.h5 does not say where its run stood: {next(iter(wrong))} is '):
        load_checkpoint(tmp_path / 'checkpoint.h5', alone, mine)


@pytest.mark.mpi(1, 2, 3, 4)
def test_saved_by_any_number_of_ranks_and_read_back(tmp_path, monkeypatch):
    comm, alone = comm_module.world(), comm_module.Alone()
    network = make_network(tmp_path, TEXT, 7, 9)
    monkeypatch.setattr(parameters_module, 'SLICE', 16 * 40 * 9 * 4 * 2)      # the widest layer takes several slices
    mine, truth = filled(network, comm, 1), filled(network, alone, 1)
    save_checkpoint(tmp_path / 'many.h5', comm, mine, META)
    save_weights(tmp_path / 'many.weights', comm, mine, 99)
    if comm.rank == 0:
        save_weights(tmp_path / 'one.weights', alone, truth, 99)
        assert (tmp_path / 'many.weights').read_bytes() == (tmp_path / 'one.weights').read_bytes()
    comm.barrier()
    back, here = filled(network, comm, 2), tmp_path if comm.rank == 0 else tmp_path / 'of another host'          # a file need only be where rank 0 is
    assert load_checkpoint(here / 'many.h5', comm, back)['iteration'] == 5
    for flat, again in ((mine.flat, back.flat), (mine.momentum, back.momentum)):
        np.testing.assert_array_equal(again, flat)
    other = filled(network, comm, 2)
    source = WeightsSource(here / 'many.weights', comm, network)
    assert source.seen == 99 and source.covered == {0, 1, 2, 3}
    source.fill(other)
    np.testing.assert_array_equal(other.flat, mine.flat)
    for layer, statistics in mine.statistics.items():
        for name in statistics:
            np.testing.assert_array_equal(back.statistics[layer][name], statistics[name])
            np.testing.assert_array_equal(other.statistics[layer][name], statistics[name])


@pytest.mark.mpi(2)
def test_a_file_that_only_rank_0_lacks_is_refused_by_all(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, TEXT, 7, 9)
    for read in (lambda: load_checkpoint(tmp_path / 'none.h5', comm, filled(network, comm, 1)), lambda: WeightsSource(tmp_path / 'none.weights', comm, network)):
        with pytest.raises(WeightsError, match='none'):
            read()


@pytest.mark.mpi(3)
def test_no_rank_holds_a_tensor_of_which_it_computes_a_part(tmp_path):
    """Writing 14 MiB of filters takes less than 6 MiB at once on every rank."""
    comm = comm_module.world()
    network = make_network(tmp_path, conv(16) + conv(512, k=3) + conv(640, k=3) + conv(18, k=1, a='linear', bn=0) + '[softmax]\n', 3, 3)
    parameters = filled(network, comm, 1)
    assert parameters.nbytes < 3 * (16 << 20)
    save_checkpoint(tmp_path / 'warm.h5', comm, parameters, META)
    tracemalloc.start()
    save_checkpoint(tmp_path / 'a.h5', comm, parameters, META)
    save_weights(tmp_path / 'a.weights', comm, parameters, 1)
    load_checkpoint(tmp_path / 'a.h5', comm, parameters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert comm.maximum(peak) < 3 * parameters_module.SLICE
