"""[softmax] against its formula and finite differences; what it refuses."""
import numpy as np
import pytest

from heads import differences, softmax_case, text
from mpi_ftp.errors import CfgError, DataError, PlanError
from mpi_ftp.loss import SoftmaxLoss
from mpi_ftp.region import Region


@pytest.mark.parametrize('groups, temperature, shape', [(1, 1, (12, 1, 1)), (1, 2.5, (12, 1, 1)), (3, .5, (12, 1, 1)), (2, 1, (3, 2, 2))])
def test_softmax(groups, temperature, shape):
    loss, x, truths = softmax_case(groups, temperature, shape)
    cells = Region.whole(x.shape)
    value, dx, stats = loss(x, cells, truths)
    z = x.reshape(4, groups, -1)
    p = np.exp(z / temperature) / np.exp(z / temperature).sum(-1, keepdims=True)
    t = np.zeros((4, 12))
    for row, truth in zip(t, truths):
        row[truth] = 1
    assert np.allclose(dx.reshape(4, -1), p.reshape(4, -1) - t, rtol=0, atol=1e-14)
    assert np.allclose(loss.activate(x), p.reshape(x.shape), rtol=1e-13)
    assert stats['cost'] == pytest.approx(-(t * np.log(p.reshape(4, -1))).sum(), rel=1e-13)
    found = differences(lambda moved: loss(moved, cells, truths)[0], x, range(x.size), 1e-6)
    assert np.allclose(dx.ravel(), found, rtol=0, atol=1e-8)
    halves = [loss(x[a:b], Region((a, 0, 0, 0), (b, *shape)), truths) for a, b in ((0, 1), (1, 4))]
    assert np.array_equal(np.concatenate([h[1] for h in halves]), dx) and sum(h[0] for h in halves) == pytest.approx(value, rel=1e-14)
    assert loss(x.astype(np.float32) * 100, cells, truths)[1].dtype == np.float32
    assert loss(x[:0], Region((2, 0, 0, 0), (2, *shape)), truths)[0] == 0


def test_softmax_refuses():
    loss, x, _ = softmax_case(1, 1)
    for bad in (12, -1, [0, 1]):
        with pytest.raises(DataError, match='sample 0: truth'):
            loss(x, Region.whole(x.shape), [bad] * 4)
    with pytest.raises(PlanError, match='whole samples'):
        loss(x[:, :6], Region((0, 0, 0, 0), (4, 6, 1, 1)), [0] * 4)
    for options, why in ((dict(groups=5), 'divide'), (dict(tree='a.tree'), 'tree'), (dict(temperature=0), 'above 0'), (dict(spatial=1), 'spatial'),
                         (dict(noloss=1), 'noloss'), (dict(temprature=1), 'did you mean "temperature"')):
        with pytest.raises(CfgError, match=why):
            SoftmaxLoss(text(options), (12, 1, 1))
