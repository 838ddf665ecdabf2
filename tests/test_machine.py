"""Machines: curves between and beyond what was measured, JSON, sums, and a real profile."""
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planning_core import made_up_machine, network_of

from mpi_ftp import comm as comm_module
from mpi_ftp import kernels, link_times, measuring
from mpi_ftp.collective_times import SIZES, rank_counts, together
from mpi_ftp.curves import Class, Curve, class_of, find
from mpi_ftp.errors import PlanError
from mpi_ftp.machine import Machine, read_machine
from mpi_ftp.measuring import measure, together_at_work
from mpi_ftp.profile_table import show


def test_a_curve_passes_through_its_points_and_grows_beyond_them():
    curve = Curve(Class('maxpool', 16, 16, 2, 2), 'forward', (10, 100, 1000), (2e-5, 1e-4, 1e-3))
    np.testing.assert_allclose(curve(np.array([10, 100, 1000])), curve.seconds)
    np.testing.assert_allclose(curve(np.array([55, 2000])), [6e-5, 2e-3])
    assert curve(np.array([0]))[0] == 0 and 0 < curve(np.array([1]))[0] < 2e-5


def test_a_class_not_measured_borrows_by_arithmetic():
    measured = [Curve(Class('convolutional', 16, 32, 3), 'forward', (100,), (1e-3,)), Curve(Class('convolutional', 64, 64, 1), 'forward', (100,), (5e-3,))]
    assert find(measured, Class('convolutional', 16, 32, 3), 'forward').seconds == (1e-3,)
    assert find(measured, Class('convolutional', 32, 64, 3), 'forward').seconds == pytest.approx((4e-3,))
    assert find(measured, Class('convolutional', 64, 128, 1), 'forward').seconds == pytest.approx((1e-2,))
    assert Class('maxpool', 16, 40, 2, 2).weight('forward') == Class('convolutional', 16, 40, 3).weight('finish') == 48              # moved, not multiplied
    assert find(measured, Class('convolutional', 64, 128, 1), 'backward_data') is None


def test_short_tiles_of_winograd_cost_more_than_they_hold():
    kind = Class('convolutional', 64, 64, 3, algorithm='winograd4')
    assert kind.pixels(4, 8) == 32 and kind.pixels(5, 8) == 48 and kind.pixels(6, 1) == pytest.approx(20 / 3 * 2)       # 3 of 6 rows, 4 and 3 of 6
    assert kind.pixels(0, 8) == 0 and list(kind.pixels(np.arange(4, 6), 4)) == [16, 24]
    assert replace(kind, algorithm='winograd2').pixels(3, 2) == 7 and replace(kind, algorithm='direct').pixels(5, 8) == 40
    assert replace(kind, algorithm='direct').pixels(5, 1) == 20


def test_json_gives_the_same_machine(tmp_path):
    rows = (2, 256, 1e-5), (2, 4096, 1e-4)
    machine = made_up_machine(3, sums=((256, 1e-5), (4096, 1e-4)), fewer=rows, gathers=rows, scatters=rows, message=3e-6)
    path = tmp_path / 'machine.json'
    path.write_text(json.dumps(machine.to_json()))
    assert read_machine(path) == machine


@pytest.mark.parametrize('text', ['', '{}', '[1]', '{"curves": [], "speed": 3}', '{"curves": [{"kind": "conv"}]}'])
def test_what_is_no_machine_file_is_refused(tmp_path, text):
    path = tmp_path / 'machine.json'
    path.write_text(text)
    with pytest.raises(PlanError, match='machine'):
        read_machine(path)


@pytest.mark.parametrize('change, said', [
    ({'sped': [1]}, 'there is no key "sped", did you mean "speeds"'), ({'speeds': None}, 'the key "speeds" is missing'),
    ({'copy': 'fast'}, 'copy = "fast": expected a number of at least 0'), ({'cores': 0}, 'cores = 0: expected a whole number of at least 1'),
    ({'net_link': [1e-4]}, r'net_link = \[0.0001\]: expected seconds and bytes a second'), ({'speeds': [1.0]}, '1 speeds, but 2 hosts'),
    ({'sums': [[1, 2, 3]]}, 'expected rows of bytes and seconds'), ({'picture': float('nan')}, 'expected a number of at least 0'),
    ({'curves': []}, r'curves = \[\]: expected a list of curves'), ({'curves': [{'kind': 'maxpool'}]}, 'curve 1: the key "inputs" is missing'),
    ({'peak': None, 'strain': None, 'fewer': None}, None)])
def test_a_machine_file_is_read_with_care(tmp_path, change, said):
    record, path = {**made_up_machine(2).to_json(), **change}, tmp_path / 'machine.json'
    path.write_text(json.dumps({key: value for key, value in record.items() if key not in change or value is not None}))
    if said is None:
        assert read_machine(path) == made_up_machine(2)             # what older files lack
        return
    with pytest.raises(PlanError, match=f'the machine file .*machine.json: .*{said}'):
        read_machine(path)


def test_sums_are_measured_where_they_were_else_the_cheaper_of_tree_and_ring():
    machine = made_up_machine(4, sums=((1000, 1e-5), (3000, 3e-5)))
    assert machine.sum_seconds(2000) == pytest.approx(2e-5) and machine.sum_seconds(6000) == pytest.approx(6e-5)
    assert machine.sum_seconds(10, 1) == 0
    other = made_up_machine(4, link=(1e-4, 1e7))
    assert other.sum_seconds(8) == pytest.approx(4e-4, rel=.01)                 # two trees of two levels
    assert other.sum_seconds(10 ** 8) == pytest.approx(15, rel=.01)             # 2 * 3 / 4 of the array over the slowest link


def test_sums_of_fewer_ranks_lie_between_those_measured():
    rows = tuple((ranks, nbytes, 1e-6 * ranks * nbytes / 100) for ranks in (2, 4) for nbytes in (100, 1000))
    machine = made_up_machine(6, sums=((100, 8e-6), (1000, 8e-5)), fewer=rows, link=(1e-4, 1e7))
    assert machine.sum_seconds(500, 2) == pytest.approx(1e-5) and machine.sum_seconds(500, 3) == pytest.approx(1.5e-5)
    assert machine.sum_seconds(1000, 5) == pytest.approx(6e-5) and machine.sum_seconds(2000, 6) == pytest.approx(1.6e-4)
    assert machine.placed(3).sum_seconds(500) == pytest.approx(1.5e-5)          # one rank to a host: the first three are like them
    assert machine.placed(5).sum_seconds(1000) == pytest.approx(6e-5)
    bare = made_up_machine(8, link=(1e-4, 1e7))
    assert machine.placed(8).sum_seconds(500) == bare.sum_seconds(500)          # nobody knows of more
    crowded = made_up_machine(4, hosts=(0,) * 4, fewer=rows)
    assert crowded.placed(2).sum_seconds(500) == bare.sum_seconds(500, 2)       # those shared a host, these do not


def test_a_profile_is_told_in_tables(capsys):
    rows = tuple((ranks, nbytes, 1e-3 * ranks) for ranks in (2, 3) for nbytes in (16 << 10, 4 << 20))
    machine = made_up_machine(3, sums=((256, 5e-4),), gathers=rows, scatters=rows, message=3e-6, labour=1.5e-9, copy=1e-10, add=2e-10)
    show(machine)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['sum', '256', '0.500'] in lines and ['all-gather', '16', 'Ki', '2.000', '3.000'] in lines and ['reduce-scatter', '4', 'Mi', '2.000', '3.000'] in lines
    told = [' '.join(line) for line in lines]
    assert 'work of a MB of messages, out and in 1.50 ms' in told
    assert 'memory: copying 10.0 GB/s' in told and 'memory: adding to an array 5.0 GB/s' in told and 'one more message, out and in 3.0 us' in told


def test_a_profile_is_told_without_colours_where_nobody_watches(capsys, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('MPI_FTP_TERMINAL', '0')
    show(made_up_machine(2))
    assert '\x1b' not in capsys.readouterr().out


def test_messages_cost_what_was_measured():
    assert made_up_machine(2, host_link=(5e-6, 1e9)).overhead == 5e-6 and made_up_machine(2, message=3e-6).overhead == 3e-6


def test_the_less_of_two_paces_counts(monkeypatch):
    monkeypatch.setattr(link_times, 'STRETCH', 2e-3)
    alone, run = comm_module.Alone(), lambda: time.sleep(1e-3)
    assert link_times.strain(alone, run, 0.0, 1e-6)[0] == 1e-6 and 1e-3 <= link_times.strain(alone, run, 0.0, 1.0)[0] < 1.0


def test_unequal_shares_of_processors_tell_speeds_by_pace():
    """(pace, lost, alone, times) of each rank: two with half a processor and one with a third."""
    found = [(.0044, 1e-4, .002, 10), (.0042, 3e-4, .002, 10), (.0035, 2e-4, .001, 5)]
    unequal = together_at_work(made_up_machine(3, speeds=(2.0, 2.0, 3.0)), found, (2.0, 2.0, 3.0))
    assert unequal.speeds == pytest.approx((4.4 ** .5, 4.2 ** .5, 10.5 ** .5)) and unequal.strain == 1 and unequal.meeting == 2e-4
    equal = together_at_work(made_up_machine(3, speeds=(2.0, 2.0, 2.0)), found, (2.0, 2.0, 2.0))
    assert equal.speeds == (2.0, 2.0, 2.0) and equal.strain == pytest.approx(1.1) and equal.meeting == 2e-4
    crowded = together_at_work(made_up_machine(3, hosts=(0,) * 3, cores=2), found, (1.0, 1.0, 1.0))
    assert crowded.strain == pytest.approx(2.2 / 1.5)                                                   # beyond that three share two cores
    assert together_at_work(made_up_machine(), [], (1.0,)) == made_up_machine()


@pytest.mark.mpi(3, timeout=120)
def test_what_ranks_do_together_is_measured_by_size_and_number():
    comm = comm_module.world()
    found = comm.broadcast(together(comm, thorough=True))
    assert rank_counts(3) == [2] and rank_counts(13) == [2, 3, 4, 6, 8, 12]
    assert [nbytes for nbytes, _ in found['sums']] == list(SIZES[:len(found['sums'])]) and len(found['sums']) > 3
    assert {row[0] for row in found['fewer']} == {2} and {row[0] for row in found['gathers']} == {2, 3} == {row[0] for row in found['scatters']}
    assert all(row[-1] > 0 for name in ('sums', 'fewer', 'gathers', 'scatters') for row in found[name]) and found['message'] >= 0 < found['labour']
    assert found['gathers'][-1][1] == found['scatters'][-1][1] and found['gathers'] != found['scatters']


def test_more_threads_than_cores_slow_a_rank_down():
    assert made_up_machine(4, hosts=(0, 0, 0, 0), cores=2).slowdown == 2
    assert made_up_machine(4, cores=2, threads=2).slowdown == 1


@pytest.mark.mpi(1, 2, 3, timeout=120)
def test_a_profile_is_the_same_on_all_ranks_and_knows_every_layer(tmp_path, monkeypatch):
    comm = comm_module.world()
    monkeypatch.setattr(measuring, 'usable_cores', lambda: 1 + comm.rank)       # as on hosts that are unlike
    network = network_of(tmp_path)
    for turn in range(comm.size):                           # one compiles, the others load
        if turn == comm.rank:
            kernels.load(np.dtype(np.float32))
        comm.barrier()
    machine = measure(comm, network, seconds=.5)
    assert comm.broadcast(machine) == machine and len(machine.hosts) == comm.size
    assert Machine.from_json(json.loads(json.dumps(machine.to_json()))) == machine
    for layer in network.layers:
        if not layer.is_head:
            assert any(curve.layer == class_of(layer) and min(curve.seconds) >= 0 < max(curve.seconds) for curve in machine.curves)
    assert machine.base > 20 << 20
    if comm.size > 1:
        assert machine.host_link[0] > 0 and machine.sums[-1][0] >= 256


@pytest.mark.parametrize('path', sorted((Path(__file__).parent.parent / 'hostfiles').glob('*.json')), ids=lambda path: path.stem)
def test_shipped_machines_say_that_they_are_estimates(path, tmp_path):
    from mpi_ftp.search import find_plan
    machine = read_machine(path)
    assert 'ESTIMATED' in machine.note and not machine.signature
    told = {name for name, text in machine.sources if text}
    given = {name for name in json.loads(path.read_text()) if name not in ('note', 'sources', 'threads', 'hosts', 'speeds')}
    assert given <= told                                    # every constant says where it comes from
    plan = find_plan(network_of(tmp_path), 4, 1, machine)
    assert 1e-3 < plan.predicted['seconds'] < 10


def test_fewer_and_more_ranks_are_as_quick_as_those_measured():
    machine = made_up_machine(4, speeds=(1.0, 3.0, 1.0, 1.0))
    assert machine.placed(2).speeds == (1.0, 3.0) and machine.placed(6).speeds == (1.0, 3.0, 1.0, 1.0, 1.0, 1.0)
