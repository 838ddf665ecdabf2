"""[region] against a literal slow reading of Darknet's rules; what it refuses."""
from itertools import product

import numpy as np
import pytest

import darknet_reading
from heads import ANCHORS, CLASSES, NET, H, W, agrees, crowd, head, region_loss, region_options, slopes_agree, text
from mpi_ftp.errors import CfgError
from mpi_ftp.loss import RegionLoss, summary
from mpi_ftp.region import NOTHING, Region


@pytest.mark.parametrize('softmax, rescore, bias_match, seen', [*product((0, 1), (0, 1), (0, 1), (0, 12799, 12800))])
def test_region_is_darknets(softmax, rescore, bias_match, seen):
    options = region_options(softmax=softmax, rescore=rescore, bias_match=bias_match)
    for seed in range(3):
        x, truths = head(seed), crowd(seed)
        reading = darknet_reading.region(x, truths, seen, ANCHORS, **options)
        _, dx, stats = agrees(region_loss(**options), reading, x, truths, seen)
        assert stats['truths'] == sum(map(len, truths)) and (reading.weight[:, :, 4] == 0).any()
        slopes_agree(reading, x, dx, seed)


def test_no_truths_no_samples():
    loss, x = region_loss(), head(1)
    empty = [np.empty((0, 5))] * 3
    reading = darknet_reading.region(x, empty, 20000, ANCHORS, **region_options())
    _, _, stats = agrees(loss, reading, x, empty, 20000)
    averages = summary(stats)
    assert np.isnan(averages['iou']) and averages['count'] == 0 and 0 < averages['any_objectness'] < 1
    for nothing in (Region((1, 0, 2, 2), (1, 0, 2, 2)), NOTHING, Region((0, 0, 2, 2), (3, 27, 2, 5))):
        value, dx, stats = loss(np.empty(nothing.shape), nothing, crowd(1), 0)
        assert value == 0 and dx.shape == nothing.shape and not any(stats.values())


@pytest.mark.parametrize('change, why', [
    (dict(thrash=.5), 'did you mean "thresh"'), (dict(thresh='half'), 'thresh=half must be made of finite numbers'),
    (dict(thresh='1,2'), 'one number'), (dict(thresh='nan'), 'finite'), (dict(num='2.5'), 'whole numbers'), (dict(num=0), 'at least 1'), (dict(anchors='1,2,3'), '6 numbers above 0'),
    (dict(anchors='1,2,3,4,5,-6'), 'above 0'), (dict(classes=5), '30 channels, but the layer before it has 27'), (dict(coords=5), 'coords=5'),
    (dict(background=1), 'background=1'), (dict(tree='data/9k.tree'), 'tree=data/9k.tree'), (dict(map='m'), 'map=m')])
def test_region_refuses(change, why):
    good = text(dict(anchors=ANCHORS, num=3, classes=CLASSES, jitter=.2, random=1, absolute=1, log=1))
    RegionLoss(good, (27, H, W), NET)
    with pytest.raises(CfgError, match=why):
        RegionLoss({**good, **text(change)}, (27, H, W), NET)
