"""Blocks of work are sized by the CPU's caches; other sizes change nothing but time and memory."""
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mpi_ftp import kernels
from mpi_ftp.kernels import caches, winograd
from mpi_ftp.kernels.caches import Caches

SMALL, HERE = Caches(32 << 10, 256 << 10, 0), Caches(48 << 10, 1 << 20, 16 << 20)


def write(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + '\n')


def test_a_core_has_its_share(tmp_path):
    write(tmp_path / 'index0', level='1', type='Data', size='48K', shared_cpu_list='0')
    write(tmp_path / 'index1', level='1', type='Instruction', size='64K', shared_cpu_list='0')
    write(tmp_path / 'index2', level='2', type='Unified', size='1024K', shared_cpu_list='0-3')
    assert caches.found(tmp_path) == Caches(48 << 10, 256 << 10, 0)
    write(tmp_path / 'index3', level='3', type='Unified', size='32M', shared_cpu_list='0-2,8')
    assert caches.found(tmp_path) == Caches(48 << 10, 256 << 10, 8 << 20)
    assert caches.found(tmp_path / 'index0') is None


@pytest.mark.parametrize('sizes', [(128, 64, 152, 152), (256, 128, 76, 76), (512, 256, 38, 38), (1024, 512, 19, 19)])
@pytest.mark.parametrize('pass_', ['forward', 'backward_weights'])
def test_small_caches_take_small_blocks(monkeypatch, sizes, pass_):
    def grouping(found):
        monkeypatch.setattr(winograd, 'caches', lambda: found)
        winograd.grouping.cache_clear()
        filters, channels, h, w = sizes
        return winograd.grouping(pass_, 4, filters // 16, channels // 16, 1, h, w, 1)
    try:
        small, here = grouping(SMALL), grouping(HERE)
    finally:
        winograd.grouping.cache_clear()
    assert small.together <= here.together and (small.piece <= here.piece or small.whole)
    assert sum(small.own) + sum(small.shared) < sum(here.own) + sum(here.shared)
    assert small.tiles == here.tiles == (sizes[2] + 3) // 4 * ((sizes[3] + 3) // 4)


@pytest.mark.parametrize('blocks', [(1, 1), (1, 5), (3, 2), (7, 4), (8, 3)])
def test_filters_are_differentiated_piece_by_piece(monkeypatch, blocks):
    """However many input blocks are transformed at a time, and whether threads share them or the outputs."""
    ib, ob = blocks
    rng = np.random.default_rng(ib)
    x, dy = rng.standard_normal((2, ib, 11, 15, 16), np.float32), rng.standard_normal((2, ob, 9, 13, 16), np.float32)
    found, rows, of = {}, set(), winograd.Sizes.of
    for piece, threads in product((1, 2, 3, 16), (1, 2, 3)):
        monkeypatch.setattr(winograd.Sizes, 'of', lambda caches, piece=piece: replace(of(caches), once_piece=piece))
        winograd.grouping.cache_clear()
        kernels.set_threads(threads)
        df = np.ones((ob, ib, 3, 3, 16, 16), np.float32)
        try:
            grouping = winograd.grouping('backward_weights', 4, ob, ib, 2, 9, 13, threads)
            kernels.conv_backward_weights(df, x, dy, 1, algorithm='winograd4')
        finally:
            kernels.set_threads(1)
            winograd.grouping.cache_clear()
        assert grouping.by_blocks and grouping.piece <= piece
        rows.add(-(-ib // grouping.piece))
        found[piece, threads] = df
    assert {1, ib} <= rows
    one = found.pop((16, 1))
    assert all((df == one).all() for df in found.values())
    direct = np.ones_like(one)
    kernels.conv_backward_weights(direct, x, dy, 1, algorithm='direct')
    assert abs(one - direct).max() < 1e-4 * abs(direct).max()


def test_results_do_not_depend_on_the_caches():
    program = """
import hashlib, numpy as np
from mpi_ftp import kernels
rng, digest = np.random.default_rng(0), hashlib.sha256()
x, w = rng.standard_normal((1, 9, 46, 46, 16), np.float32), rng.standard_normal((10, 9, 3, 3, 16, 16), np.float32)
y, dx = np.empty((1, 10, 44, 44, 16), np.float32), np.empty_like(x)
for algorithm in kernels.ALGORITHMS:
    kernels.conv_forward(y, x, w, 1, algorithm=algorithm)
    kernels.conv_backward_data(dx, y, w, 1, algorithm=algorithm)
    digest.update(y.tobytes() + dx.tobytes())
print(digest.hexdigest())
"""
    def run(sizes):
        return subprocess.run([sys.executable, '-c', program], env={**os.environ, 'MPI_FTP_CACHES': sizes}, capture_output=True, text=True)
    done = [run(sizes) for sizes in ('32K,256K,0', '48K,1M,16M', '48K,2M,16M')]
    assert len({each.stdout for each in done}) == 1 and len(done[0].stdout) == 65, done[0].stderr
    assert 'expected three sizes' in run('lots').stderr
