"""The verb `weights`: Darknet files, checkpoints and .npz hold the same numbers."""
import numpy as np
import pytest

from mpi_ftp import checkpoint, weights
from mpi_ftp.__main__ import parse
from mpi_ftp.errors import JobError, UsageError, WeightsError
from mpi_ftp.network import read_network

CFG = """
[net]
height=8
width=8
channels=3
[convolutional]
filters=4
size=3
batch_normalize=1
activation=leaky
[maxpool]
[convolutional]
filters=2
size=1
activation=linear
"""


def verb(*words):
    run, args = parse(['weights', *map(str, words)])
    run(args)


@pytest.fixture
def files(tmp_path):
    """(cfg, tensors by (layer, name), .weights file) of a small network."""
    (tmp_path / 'a.cfg').write_text(CFG)
    network = read_network(tmp_path / 'a.cfg')
    random = np.random.default_rng(2)
    tensors = {(layer.index, name): random.standard_normal(shape).astype(np.float32) for layer in network.layers for name, shape in layer.tensors}
    weights.write(tmp_path / 'a.weights', network, 55, lambda *key: [(0, tensors[key])])
    return tmp_path / 'a.cfg', tensors, tmp_path / 'a.weights'


def test_through_npz_and_back(files, tmp_path, capsys):
    cfg, tensors, path = files
    verb('--cfg', cfg, path, tmp_path / 'b.npz')
    with np.load(tmp_path / 'b.npz') as arrays:
        assert {f'{layer}/{name}' for layer, name in tensors} | {'seen'} == set(arrays)
        assert np.array_equal(arrays['2/filters'], tensors[2, 'filters']) and arrays['2/filters'].shape == (2, 4, 1, 1)
    verb('--cfg', cfg, tmp_path / 'b.npz', tmp_path / 'c.weights')
    assert (tmp_path / 'c.weights').read_bytes() == path.read_bytes()
    assert '134 numbers of 2 layers, 55 pictures seen' in capsys.readouterr().out


def test_from_a_checkpoint(files, tmp_path):
    cfg, tensors, path = files
    checkpoint.save(tmp_path / 'a.h5', [(f'{layer}/{name}', array.shape, [(0, array)]) for (layer, name), array in tensors.items()], {'seen': 55})
    verb('--cfg', cfg, tmp_path / 'a.h5', tmp_path / 'd.weights')
    assert (tmp_path / 'd.weights').read_bytes() == path.read_bytes()


def test_cut_off_and_list(files, tmp_path, capsys):
    cfg, tensors, path = files
    verb('--cfg', cfg, path, tmp_path / 'e.weights', '--layers', 1)
    assert (tmp_path / 'e.weights').stat().st_size == 20 + 4 * (4 * 4 + 108)
    capsys.readouterr()
    verb('--cfg', cfg, tmp_path / 'e.weights')
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(' 0 pictures seen') and len(lines) == 6 and lines[5].split()[:4] == ['0', 'convolutional', 'filters', '4x3x3x3']


def test_what_is_cut_off_has_seen_nothing(files, tmp_path):
    """As after Darknet's `partial`, whose learning rate would otherwise go on where that of the whole network ended."""
    cfg, tensors, path = files
    verb('--cfg', cfg, path, tmp_path / 'f.weights', '--layers', 3)
    assert (tmp_path / 'f.weights').read_bytes() == path.read_bytes()[:12] + bytes(8) + path.read_bytes()[20:]
    verb('--cfg', cfg, path, tmp_path / 'f.npz', '--layers', 1)
    with np.load(tmp_path / 'f.npz') as arrays:
        assert arrays['seen'] == 0


def test_refused(files, tmp_path):
    cfg, tensors, path = files
    with pytest.raises(UsageError, match='--layers 4: expected a number from 1 to 3'):
        verb('--cfg', cfg, path, '--layers', 4)
    with pytest.raises(UsageError, match='ends in .weights or .npz'):
        verb('--cfg', cfg, path, tmp_path / 'x.h5')
    with pytest.raises(UsageError, match='ends in .weights or .npz'):
        verb('--cfg', cfg, path, tmp_path / 'x.wieghts')
    before = path.read_bytes()
    with pytest.raises(JobError, match='a.weights: it is also what is read'):
        verb('--cfg', cfg, path, path, '--layers', 1)
    with pytest.raises(JobError, match='none/x.npz: No such file'):
        verb('--cfg', cfg, path, tmp_path / 'none/x.npz')
    assert path.read_bytes() == before
    np.savez(tmp_path / 'f.npz', **{'0/filters': np.zeros((4, 3, 3, 3)), '0/bias': np.zeros(5)})
    with pytest.raises(WeightsError, match=r'tensor 0/bias of layer 0 .convolutional. has shape \(5,\), expected \(4,\)'):
        verb('--cfg', cfg, tmp_path / 'f.npz')
    np.savez(tmp_path / 'g.npz', other=np.zeros(3))
    with pytest.raises(WeightsError, match='holds no tensor of this network'):
        verb('--cfg', cfg, tmp_path / 'g.npz')
    np.savez(tmp_path / 'h.npz', **{f'2/{name}': array for (layer, name), array in tensors.items() if layer == 2})
    with pytest.raises(WeightsError, match='has no tensors of layer 0'):
        verb('--cfg', cfg, tmp_path / 'h.npz', tmp_path / 'i.weights')
    whole = (tmp_path / 'g.npz').read_bytes()
    np.save(tmp_path / 'array.npy', np.zeros(3))
    np.savez(tmp_path / 'seen.npz', seen=np.zeros(3))
    spoilt = whole[:40] + b'x' * 20 + whole[60:]
    for broken in b'nothing', b'', whole[:len(whole) // 2], spoilt, (tmp_path / 'array.npy').read_bytes(), (tmp_path / 'seen.npz').read_bytes():
        (tmp_path / 'j.npz').write_bytes(broken)
        with pytest.raises(WeightsError, match='j.npz is not a readable .npz'):
            verb('--cfg', cfg, tmp_path / 'j.npz')
