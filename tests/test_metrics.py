"""Average precision against examples worked out by hand and a literal reading of the VOC and COCO rules; top-1 and top-5."""
import io
import json

import numpy as np
import pytest

from darknet_reading import overlap
from mpi_ftp import metrics

NAMES = 'red', 'white', 'platelet'


def shifted(iou):
    """A box that overlaps (.5, .5, .2, .2) with this IoU."""
    return [.5 + .2 * (1 - iou) / (1 + iou), .5, .2, .2]


def test_one_class_by_hand():
    # Two pictures, three truths. By falling score: hit, false alarm (elsewhere), hit, false alarm (second on one truth).
    truths = [[0, 0, .5, .5, .2, .2], [0, 0, .1, .1, .1, .1], [1, 0, .5, .5, .2, .2]]
    found = [[0, 0, .9, *shifted(.8)], [1, 0, .8, .1, .1, .1, .1], [1, 0, .7, *shifted(.62)], [0, 0, .6, *shifted(.9)]]
    result = metrics.evaluate(found, truths, NAMES)
    # recall 1/3 1/3 2/3 2/3, precision 1 1/2 2/3 1/2, envelope 1 2/3 2/3 1/2
    assert result.ap50[0] == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    # recall 0 ... .33 has precision 1, .34 ... .66 has 2/3, nothing beyond
    assert result.coco[0, 0] == pytest.approx((34 + 33 * 2 / 3) / 101)
    # at 0.65 the third detection fails: recall 1/3, precision 1
    assert result.coco[3, 0] == pytest.approx(34 / 101)
    # at 0.85 only the last one hits: recall 1/3, precision 1/4
    assert result.coco[7, 0] == pytest.approx(34 / 4 / 101) and result.coco[9, 0] == 0
    assert np.isnan(result.ap50[1:]).all() and result.map50 == result.ap50[0]
    assert result.truths.tolist() == [3, 0, 0] and result.detections.tolist() == [4, 0, 0]


def test_voc_and_coco_differ_on_a_taken_truth():
    # Both detections overlap the first truth most; VOC calls the second a false alarm, COCO gives it the other truth.
    truths = [[0, 0, .5, .5, .2, .2], [0, 0, .53, .5, .2, .2]]
    found = [[0, 0, .9, .5, .5, .2, .2], [0, 0, .8, .51, .5, .2, .2]]
    result = metrics.evaluate(found, truths, NAMES)
    assert result.ap50[0] == pytest.approx(.5) and result.coco[0, 0] == pytest.approx(1)


def test_difficult_truths_count_neither_way():
    truths = [[0, 0, .5, .5, .2, .2], [0, 0, .1, .1, .1, .1]]
    found = [[0, 0, .9, .1, .1, .1, .1], [0, 0, .85, .1, .1, .1, .1], [0, 0, .8, .5, .5, .2, .2]]
    result = metrics.evaluate(found, truths, NAMES, ignored=[0, 1])
    assert result.ap50[0] == result.coco[0, 0] == pytest.approx(1) and result.truths[0] == 1
    assert metrics.evaluate(found, truths, NAMES).ap50[0] == pytest.approx(.5 + .5 * 2 / 3)
    everything = metrics.evaluate(found, truths, NAMES, ignored=[1, 1])
    assert np.isnan(everything.map50) and everything.as_dict()['mAP50'] is None


def test_of_equal_overlaps_voc_takes_a_truth_that_counts():
    truths = [[0, 0, .5, .5, .2, .2]] * 2
    assert metrics.evaluate([[0, 0, .9, .5, .5, .2, .2]], truths, NAMES, ignored=[1, 0]).ap50[0] == 1


@pytest.mark.parametrize('inside, precision', [(.48, .5), (.52, 1)])
def test_half_of_a_detection_in_a_crowd_is_enough(inside, precision):
    """Of its own area, however large the crowd is."""
    truths = [[0, 0, .3, .5, .2, .2], [0, 0, .8, .8, .1, .1]]
    found = [[0, 0, .9, .3 + .2 * (1 - inside), .5, .2, .2], [0, 0, .8, .8, .8, .1, .1]]
    result = metrics.evaluate(found, truths, NAMES, ignored=[2, 0])
    assert result.ap50[0] == result.coco[0, 0] == pytest.approx(precision)


def test_detections_inside_a_crowd_are_no_false_alarms():
    truths = [[0, 0, .5, .5, .8, .8], [0, 0, .5, .5, .2, .2]]
    found = [[0, 0, .9, .3, .3, .1, .1], [0, 0, .85, .9, .9, .1, .1], [0, 0, .8, .5, .5, .2, .2]]        # inside, a quarter inside, the other truth
    result = metrics.evaluate(found, truths, NAMES, ignored=[2, 0])
    assert result.ap50[0] == pytest.approx(.5) and result.coco[0, 0] == pytest.approx(.5) and result.truths[0] == 1
    assert metrics.evaluate(found[::2], truths, NAMES, ignored=[2, 0]).ap50[0] == 1


def test_the_hundred_best_of_a_picture():
    truths = [[0, 0, .5, .5, .2, .2]]
    found = [[0, 0, 1 - k / 1000, .1, .1, .05, .05] for k in range(100)] + [[0, 0, .1, .5, .5, .2, .2]]
    result = metrics.evaluate(found, truths, NAMES)
    assert result.ap50[0] == pytest.approx(1 / 101) and result.coco[0, 0] == 0
    assert metrics.evaluate(found[1:], truths, NAMES).coco[0, 0] == pytest.approx(1 / 100)


def literal(found, truths, difficult, c, thresh, voc):
    """Outcomes in order of falling score, by the books."""
    taken, outcomes = set(), []
    for d in sorted((k for k in range(len(found)) if found[k][1] == c), key=lambda k: -found[k][2]):
        mine = [t for t in range(len(truths)) if truths[t][0] == found[d][0] and truths[t][1] == c]
        at = {t: overlap(found[d][3:], truths[t][2:]) for t in mine}
        usable = [t for t in mine if at[t] >= thresh and (voc or difficult[t] or t not in taken)]
        if not voc and any(not difficult[t] for t in usable):
            usable = [t for t in usable if not difficult[t]]
        best = max(usable, key=at.get, default=None)
        if best is None:
            outcomes.append(0)
        elif difficult[best]:
            outcomes.append(-1)
        else:
            outcomes.append(int(best not in taken))
            taken.add(best)
    return np.array(outcomes, int)


def test_random_crowds_against_the_books():
    rng = np.random.default_rng(0)
    truths = np.column_stack([rng.integers(0, 6, 80), rng.integers(0, 3, 80), rng.uniform(.3, .7, (80, 2)), rng.uniform(.2, .4, (80, 2))])
    near = np.repeat(truths, 3, axis=0)
    near[:, 2:] *= rng.uniform(.8, 1.2, near[:, 2:].shape)
    found = np.column_stack([near[:, :2], rng.permutation(240) / 240, near[:, 2:]])
    difficult = rng.uniform(size=80) < .2
    result = metrics.evaluate(found, truths, NAMES, difficult)
    for c in range(3):
        count = sum(~difficult & (truths[:, 1] == c))
        for thresh, row in zip(metrics.COCO_THRESHOLDS, result.coco):
            assert row[c] == pytest.approx(metrics.points(*metrics.curve(literal(found, truths, difficult, c, thresh, False), count)))
        assert result.ap50[c] == pytest.approx(metrics.area(*metrics.curve(literal(found, truths, difficult, c, .5, True), count)))
    assert result.map50_95 == pytest.approx(result.coco.mean()) and .05 < result.map50_95 < result.map50 < .95
    shuffled = metrics.evaluate(rng.permutation(found), truths, NAMES, difficult)
    assert np.array_equal(shuffled.coco, result.coco)


def test_table_and_dictionary():
    from rich.console import Console
    truths = [[0, 0, .5, .5, .2, .2], [0, 1, .5, .5, .2, .2]]
    result = metrics.evaluate([[0, 0, .9, .5, .5, .2, .2]], truths, NAMES)
    told = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert told['mAP50'] == .5 and told['classes'][2] == {'name': 'platelet', 'AP50': None, 'AP50_95': None, 'truths': 0, 'detections': 0}
    console = Console(file=io.StringIO(), width=80)
    console.print(result.table())
    text = console.file.getvalue()
    assert 'platelet' in text and '100.0 %' in text and '50.0 %' in text
    nothing = metrics.evaluate([], truths, NAMES)
    assert nothing.map50 == nothing.map50_95 == 0


def test_accuracy():
    scores = np.array([[.1, .5, .2, .1, .05, .05], [.3, .1, .2, .2, .1, .1], [.3, .3, .1, .1, .1, .1], [.3, .2, .2, .1, .1, .1]])
    assert metrics.accuracy(scores, [1, 3, 1, 5]) == metrics.Accuracy(4, 1, 3)
    assert metrics.accuracy(scores[:, :3], [1, 0, 0, 2]) == metrics.Accuracy(4, 3, 4)
    assert metrics.accuracy(np.full((2, 10), np.nan), [0, 1]) == metrics.Accuracy(2, 0, 0)
    total = metrics.accuracy(scores, [1, 3, 1, 5]) + metrics.Accuracy(4, 1, 1)
    assert total.as_dict() == {'top1': .25, 'top5': .5, 'count': 8} and metrics.Accuracy().as_dict()['top1'] is None
    assert total.table().row_count == 1
