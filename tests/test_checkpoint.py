"""Checkpoints come back as they were saved, slice by slice, and are never half written."""
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from mpi_ftp import checkpoint
from mpi_ftp.errors import JobError, WeightsError

META = {'job': 'cfg = "a.cfg"\n', 'iteration': 17, 'seen': np.int64(2**40), 'loader': {'epoch': 1, 'position': 5}, 'seed': 3, 'cfg': '[net]\n' * 20000}


def whole(tensors):
    """Tensors as save() wants them, each in one piece."""
    return [(name, array.shape, [(0, array)]) for name, array in tensors]


def test_round_trip(tmp_path):
    random = np.random.default_rng(0)
    tensors = {'0/filters': random.standard_normal((5, 3, 3, 3)).astype(np.float32), 'momentum/0/filters': random.standard_normal((5, 27))}
    path = tmp_path / 'a.h5'
    checkpoint.save(path, whole(tensors.items()), META)
    with checkpoint.Checkpoint(path) as saved:
        assert {key: saved.meta[key] for key in META} == META and saved.meta['versions']['numpy'] == np.__version__
        assert set(saved.shapes) == set(tensors) and '0/filters' in saved and '1/filters' not in saved
        for name, array in tensors.items():
            back = saved.read(name)
            assert back.dtype == array.dtype and np.array_equal(back, array)
        assert np.array_equal(saved.read('0/filters', 1, 4), tensors['0/filters'][1:4])
        with pytest.raises(WeightsError, match='no tensor "1/filters"'):
            saved.read('1/filters')
    assert [p.name for p in tmp_path.iterdir()] == ['a.h5']


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a.h5'
    checkpoint.save(path, [], {'iteration': 1})

    def tensors():
        yield 'a', (3,), [(0, np.zeros(3))]
        raise RuntimeError('out of luck')
    with pytest.raises(RuntimeError):
        checkpoint.save(path, tensors(), {'iteration': 2})
    with checkpoint.Checkpoint(path) as saved:
        assert saved.meta['iteration'] == 1
    assert [p.name for p in tmp_path.iterdir()] == ['a.h5']


def test_pieces_come_in_any_order_and_cover_every_row(tmp_path):
    array, path = np.arange(42.).reshape(7, 2, 3), tmp_path / 'a.h5'
    checkpoint.save(path, [('x', array.shape, [(4, array[4:]), (0, array[:1]), (1, array[1:4])])], {})
    with checkpoint.Checkpoint(path) as saved:
        assert np.array_equal(saved.read('x'), array)
    with pytest.raises(ValueError, match='came with 4 rows'):
        checkpoint.save(path, [('x', array.shape, [(0, array[:4])])], {})


def test_a_reader_keeps_the_old_file_while_a_new_one_is_written(tmp_path):
    path = tmp_path / 'a.h5'
    checkpoint.save(path, whole([('x', np.zeros(3))]), {})
    with checkpoint.Checkpoint(path) as old:
        checkpoint.save(path, whole([('x', np.ones(3))]), {})
        assert old.read('x').sum() == 0
    with checkpoint.Checkpoint(path) as new:
        assert new.read('x').sum() == 3


def test_a_full_disk_is_told_in_plain_words(tmp_path):
    def write():
        raise OSError(28, "Can't synchronously write data (file write failed: time = Sat\\n, filename = 'x', errno = 28, error message = 'No space')")
        yield
    with pytest.raises(JobError, match='^cannot write .*run.h5: No space left on device$'):
        checkpoint.save(tmp_path / 'run.h5', [('x', (1,), write())], {})


@pytest.mark.parametrize('room', [0, 100, 3000, 20000, 60000])
def test_a_disk_that_is_full_at_any_byte_is_told_in_plain_words(tmp_path, room):
    """In a process of its own: HDF5 used to crash at its end."""
    code = f"""
import resource, signal, numpy as np
from mpi_ftp import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = {str(tmp_path / "a.h5")!r}
checkpoint.save(path, [('x', (3,), [(0, np.ones(3))])], {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
try:
    checkpoint.save(path, [(f'{{k}}/x', (1000,), [(0, np.ones(1000))]) for k in range(9)], {{'cfg': 'x' * 9000}})
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (0, '', f'JobError cannot write {tmp_path / "a.h5"}: File too large\n')
    with checkpoint.Checkpoint(tmp_path / 'a.h5') as saved:
        assert saved.read('x').sum() == 3
    assert [p.name for p in tmp_path.iterdir()] == ['a.h5']


def test_refused(tmp_path):
    with pytest.raises(WeightsError, match='does not exist'):
        checkpoint.Checkpoint(tmp_path / 'a.h5')
    (tmp_path / 'b.h5').write_bytes(b'no HDF5 at all')
    with pytest.raises(WeightsError, match='is not a readable checkpoint'):
        checkpoint.Checkpoint(tmp_path / 'b.h5')
    checkpoint.save(tmp_path / 'e.h5', whole([('x', np.zeros(3000))]), {})
    os.truncate(tmp_path / 'e.h5', 20000)
    with pytest.raises(WeightsError, match=r'e.h5 is not a readable checkpoint: it is cut short, 20000 of \d+ bytes are there$'):
        checkpoint.Checkpoint(tmp_path / 'e.h5')
    with h5py.File(tmp_path / 'c.h5', 'w') as file:
        file['x'] = 1
    with pytest.raises(WeightsError, match='no checkpoint of mpi_ftp'):
        checkpoint.Checkpoint(tmp_path / 'c.h5')
    checkpoint.save(tmp_path / 'd.h5', [], {})
    with h5py.File(tmp_path / 'd.h5', 'a') as file:
        del file['meta/format']
        file['meta/format'] = '99'
    with pytest.raises(WeightsError, match='checkpoint format 99; this program reads up to 1'):
        checkpoint.Checkpoint(tmp_path / 'd.h5')


def test_lost_blocks_are_refused(tmp_path):
    """HDF5 raises all kinds of errors where a block of the file is lost, and used to go round for ever in a lost heap."""
    path, refused, blocks = tmp_path / 'a.h5', 0, []
    checkpoint.save(path, whole([(f'{layer}/filters', np.full((4, 3), 7.)) for layer in range(9)]), {'iteration': 3, 'job': 'cfg = "a.cfg"'})
    good = path.read_bytes()
    for first in range(0, len(good), 256):
        blocks += [good[:first] + bytes([byte] * 256) + good[first + 256:] for byte in (0, 255)]
    for wrong in blocks:
        path.write_bytes(wrong)
        try:
            with checkpoint.Checkpoint(path) as saved:
                for name in saved.shapes:
                    saved.read(name)
        except WeightsError as error:
            assert '\n' not in str(error)
            refused += 1
    assert refused > len(blocks) / 3
