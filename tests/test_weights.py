"""Darknet .weights: both headers, slices, cut-off and transposed files, and files of another network."""
import struct

import numpy as np
import pytest

from mpi_ftp import weights
from mpi_ftp.errors import WeightsError
from mpi_ftp.network import read_network

CFG = """
[net]
height=9
width=7
channels=3
[convolutional]
filters=4
size=3
pad=1
batch_normalize=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=6
groups=2
size=1
activation=linear
[connected]
output=5
batch_normalize=1
activation=linear
[softmax]
"""


@pytest.fixture
def network(tmp_path):
    (tmp_path / 'some.cfg').write_text(CFG)
    return read_network(tmp_path / 'some.cfg')


def tensors_of(network):
    """Random values for every tensor, by (layer, name), in file order."""
    random = np.random.default_rng(1)
    return {(layer.index, name): random.standard_normal(shape).astype(np.float32) for layer in network.layers for name, shape in layer.tensors}


def raw(values, head=struct.pack('<3iq', 0, 2, 0, 77)):
    return head + b''.join(v.tobytes() for v in values)


def in_two(array):
    """The later rows first: each piece finds its place."""
    return [(1, array[1:]), (0, array[:1])]


def test_written_order_is_darknets(network, tmp_path):
    t = tensors_of(network)
    order = [(0, 'bias'), (0, 'scale'), (0, 'mean'), (0, 'variance'), (0, 'filters'), (2, 'bias'), (2, 'filters'),
             (3, 'bias'), (3, 'filters'), (3, 'scale'), (3, 'mean'), (3, 'variance')]
    assert sorted(order) == sorted(t) and t[2, 'filters'].shape == (6, 2, 1, 1)
    path = tmp_path / 'a.weights'
    weights.write(path, network, 77, lambda layer, name: in_two(t[layer, name]))
    assert path.read_bytes() == raw(t[key] for key in order)
    assert [p.name for p in tmp_path.iterdir() if 'tmp' in p.name] == []


@pytest.mark.parametrize('kind, version, seen', [('<3iq', (0, 2, 0), 2**40), ('<4i', (0, 1, 0), 12345), ('<3iq', (2, 0, 0), 5), ('<3iq', (1, 0, 0), 6)])
def test_both_headers_and_slices(network, tmp_path, kind, version, seen):
    t = tensors_of(network)
    path = tmp_path / 'a.weights'
    path.write_bytes(raw(t.values(), struct.pack(kind, *version, seen)))
    file = weights.WeightsFile(path, network)
    assert file.seen == seen and not file.transposed
    assert {(layer, name): a.tobytes() for layer, name, a in file} == {key: a.tobytes() for key, a in t.items()}
    part = file.read(2, 'filters', 1, 3)
    assert part.flags.c_contiguous and part.dtype == np.float32 and np.array_equal(part, t[2, 'filters'][1:3])
    assert np.array_equal(file.read(0, 'mean', 2), t[0, 'mean'][2:])


def test_old_files_hold_connected_layers_transposed(network, tmp_path):
    t = tensors_of(network)
    path = tmp_path / 'a.weights'
    turned = [a.T.copy() if key == (3, 'filters') else a for key, a in t.items()]
    path.write_bytes(raw(turned, struct.pack('<4i', 1001, 0, 0, 3)))
    file = weights.WeightsFile(path, network)
    assert file.seen == 3 and np.array_equal(file.read(3, 'filters', 1, 4), t[3, 'filters'][1:4])


def test_cut_off_files(network, tmp_path):
    t = tensors_of(network)
    path = tmp_path / 'a.weights'
    weights.write(path, network, 1, lambda layer, name: in_two(t[layer, name]), layers=3)
    assert path.read_bytes() == raw([a for (layer, _), a in t.items() if layer < 3], struct.pack('<3iq', 0, 2, 0, 1))
    file = weights.WeightsFile(path, network)
    assert [i in file for i in range(5)] == [True, False, True, False, False]


def test_files_of_another_network_are_refused(network, tmp_path):
    t = tensors_of(network)
    path = tmp_path / 'a.weights'
    whole = raw(t.values())
    first = 20 + 4 * (4 * 4 + 4 * 27)
    for data, message in ((whole + b'1234', f'found {len(whole) + 4} bytes, expected {len(whole)} for the 5 layers'),
                          (whole[:first + 4], f'ends inside layer 2 .convolutional.: found {first + 4} bytes, expected {first + 72} '
                                              rf'\(the end of this layer\) or {first} '),
                          (whole[:40], r'ends inside layer 0 .convolutional.: found 40 bytes, expected \d+ \(the end of this layer\); is it'),
                          (whole[:20], 'ends inside layer 0'), (b'short', 'no Darknet .weights')):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=message):
            weights.WeightsFile(path, network)
    with pytest.raises(WeightsError, match='No such file'):
        weights.WeightsFile(tmp_path / 'none', network)


def test_a_failed_write_leaves_the_old_file(network, tmp_path):
    path = tmp_path / 'a.weights'
    path.write_bytes(b'old')
    for pieces in ([(0, np.zeros(3))], [(0, np.zeros((4, 1)))], [(2, np.zeros(3))]):
        with pytest.raises(ValueError, match='expected'):
            weights.write(path, network, 1, lambda layer, name: pieces)
    assert path.read_bytes() == b'old' and [p.name for p in tmp_path.iterdir() if 'tmp' in p.name] == []
