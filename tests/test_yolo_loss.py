"""[yolo] against a literal slow reading of Darknet's rules; what it refuses."""
import pytest

import darknet_reading
from heads import CLASSES, NET, PIXELS, H, W, agrees, crowd, head, slopes_agree, text, yolo_loss
from mpi_ftp.errors import CfgError
from mpi_ftp.loss import YoloLoss


@pytest.mark.parametrize('ignore, sure', [(.3, 1), (.3, .45), (.5, .2), (2, 2)])
@pytest.mark.parametrize('mask', [(2, 0, 1), (3,), (0, 1, 2, 3)])
def test_yolo_is_darknets(ignore, sure, mask):
    for seed in range(3):
        x, truths = head(seed, channels=len(mask) * (5 + CLASSES)), crowd(seed)
        reading = darknet_reading.yolo(x, truths, PIXELS, mask, NET[1:], ignore, sure)
        _, dx, _ = agrees(yolo_loss(mask, ignore_thresh=ignore, truth_thresh=sure), reading, x, truths, 0)
        slopes_agree(reading, x, dx, seed)


@pytest.mark.parametrize('change, why', [
    (dict(mask='0,0,1'), 'different anchors'), (dict(mask='0,1,4'), 'from 0 to 3'), (dict(mask='x'), 'whole numbers'), (dict(map='m'), 'map=m'),
    (dict(mask='0,1'), '18 channels'), (dict(rescore=1), 'no key "rescore"')])
def test_yolo_refuses(change, why):
    good = text(dict(anchors=PIXELS, num=4, mask=(0, 1, 2), classes=CLASSES, jitter=.3, random=1))
    assert YoloLoss(good, (27, H, W), NET).mask == (0, 1, 2)
    with pytest.raises(CfgError, match=why):
        YoloLoss({**good, **text(change)}, (27, H, W), NET)
