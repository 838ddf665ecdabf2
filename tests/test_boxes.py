"""Boxes: overlaps by hand, suppression against Darknet's rule read literally, detections as rows."""
import shutil
import subprocess
import sys

import numpy as np
import pytest

from darknet_reading import overlap
from mpi_ftp import boxes, boxes_math


def some_boxes(k, seed):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(.2, .8, (k, 2)), rng.uniform(.05, .5, (k, 2))])


def ious(a, b):
    return np.array([[boxes_math.iou(*p, *q) for q in b] for p in a])


def test_iou_by_hand():
    a = np.array([[.5, .5, .4, .4], [.1, .1, .2, .2], [.5, .5, 0, 0]])
    b = np.array([[.5, .5, .4, .4], [.7, .5, .4, .4], [.5, .5, .2, .2], [.9, .9, .1, .1], [.5, .5, 0, 0]])
    wanted = [[1, .08 / .24, .25, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, np.nan]]
    assert np.allclose(ious(a, b), wanted, atol=1e-15, equal_nan=True)


def test_iou_of_all_pairs():
    a, b = some_boxes(9, 0), some_boxes(7, 1)
    wanted = [[overlap(p, q) for q in b] for p in a]
    assert np.allclose(ious(a, b), wanted, rtol=1e-13, atol=1e-15)
    assert np.allclose(ious(a.astype(np.float32), b.astype(np.float32)), wanted, rtol=1e-4, atol=1e-6)


def suppressed(rows, thresh):
    """do_nms_sort of one sample, literally."""
    scores, order = rows[:, 6:].copy(), np.arange(len(rows))
    for c in range(scores.shape[1]):
        order = sorted(range(len(rows)), key=lambda k: (-scores[k, c], k))
        for i, a in enumerate(order):
            for b in order[i + 1:] if scores[a, c] else ():
                if overlap(rows[a, 1:5], rows[b, 1:5]) > thresh:
                    scores[b, c] = 0
    return scores


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_nms_is_darknets(dtype):
    rng = np.random.default_rng(2)
    scores = rng.uniform(0, 1, (60, 3)).round(1) * (rng.uniform(size=(60, 3)) < .6)
    rows = np.column_stack([rng.integers(0, 3, 60), some_boxes(60, 3), scores.max(1), scores]).astype(dtype)
    before = rows.copy()
    found = boxes.nms(rows, .45)
    assert np.array_equal(rows, before) and np.array_equal(found[:, :6], rows[:, :6])
    for sample in range(3):
        part = rows[:, 0] == sample
        assert np.array_equal(found[part, 6:], suppressed(rows[part], .45))
    assert 0 < np.count_nonzero(found[:, 6:]) < np.count_nonzero(rows[:, 6:])
    assert np.array_equal(boxes.nms(rows, 1.), rows) and boxes.nms(rows[:0]).shape == (0, 9)


def test_flatten():
    rows = np.array([[1, .1, .2, .3, .4, .9, 0, .5], [0, .5, .6, .7, .8, .9, .2, .6], [0, .5, .5, .5, .5, .9, 0, 0]])
    wanted = [[0, 1, .6, .5, .6, .7, .8], [0, 0, .2, .5, .6, .7, .8], [1, 1, .5, .1, .2, .3, .4]]
    assert np.array_equal(boxes.flatten(rows), wanted)
    assert boxes.flatten(rows[:0]).shape == (0, 7)


def test_clip():
    wanted = [[.5, .5, .2, .2], [.1, .95, .2, .1], [1, .5, 0, 1]]
    assert np.allclose(boxes.clip([[.5, .5, .2, .2], [0, 1, .4, .2], [1.5, .5, .4, 3]]), wanted)


def test_compiled_loops_follow_the_files_they_call(tmp_path):
    """numba by itself would go on with the old helper, whose file is not the caller's."""
    package = tmp_path / 'package'
    package.mkdir()
    shutil.copy(boxes_math.__file__, package)
    for name in ('__init__.py', *boxes_math.FILES[1:]):
        (package / name).touch()
    (package / 'region_loss.py').write_text('from .boxes_math import kernel\nfrom .loss_math import one\n'
                                            '@kernel\ndef two():\n    return one() + 1\n')

    def answer(one):
        (package / 'loss_math.py').write_text(f'from .boxes_math import kernel\n@kernel\ndef one():\n    return {one}\n')
        code = 'from package.region_loss import two; print(two(), sum(two.stats.cache_hits.values()))'
        return subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()

    assert answer(1) == ['2', '0'] and answer(10) == ['11', '0']
    assert subprocess.run([sys.executable, '-c', 'from package.region_loss import two; print(two(), sum(two.stats.cache_hits.values()))'],
                          cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split() == ['11', '1']
