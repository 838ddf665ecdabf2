"""Pictures for people: frames where the boxes are, plates inside the picture, curves from rows and files."""
import csv

import numpy as np
import pytest
from PIL import Image

from mpi_ftp import draw

NAMES = 'red', 'white', 'platelet'


def grey(h, w):
    return np.full((h, w, 3), 200, np.uint8)


def painted(image, c):
    """Rows and columns of the pixels that have the colour of class c."""
    return np.nonzero((np.asarray(image) == draw.colour(c)).all(-1))


def test_colours_differ():
    colours = np.array([draw.colour(c) for c in range(21)], int)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(21, dtype=int)
    assert distance.min() >= 30 and distance[:7, :7].min() >= 100
    assert len({draw.colour(c) for c in range(80)}) == 80


@pytest.mark.parametrize('h, w', [(96, 96), (480, 640), (1500, 900)])
def test_a_frame_lies_on_its_box(h, w):
    picture = grey(h, w)
    image = draw.draw_boxes(picture, [[1, np.nan, .5, .6, .4, .5]], NAMES)
    assert image.size == (w, h) and (picture == 200).all()
    y, x = painted(image, 1)
    width = max(1, round(min(h, w) / 200))
    assert (x.min(), x.max()) == pytest.approx((.3 * w, .7 * w), abs=1) and y.max() == pytest.approx(.85 * h, abs=1)
    assert y.min() < .35 * h - 8                              # the plate stands above the frame
    below = y[(x > .31 * w + width) & (x < .69 * w - width) & (y > .5 * h)]
    assert len(set(below)) == width


def test_plates_stay_inside_and_the_best_is_on_top():
    rows = [[0, .9, .02, .02, .04, .04], [2, .5, .99, .5, .02, .1], [1, .3, .5, .5, .5, .5], [0, .8, .5, .5, .5, .5]]
    image = draw.draw_boxes(grey(120, 160), rows, NAMES)
    assert painted(image, 1)[0].max() < 30 <= painted(image, 0)[0].max()        # its frame is wholly under the better one of class 0
    y, x = painted(image, 2)
    assert x.max() == 159 and x.min() < 120 and len(y) > 300
    inside = np.asarray(image)[:12, :30]
    assert (inside == draw.colour(0)).all(-1).sum() > 50


def test_scores_and_unknown_classes():
    plain, scored, unknown = (len(painted(draw.draw_boxes(grey(300, 300), [row], NAMES), row[0])[0])
                              for row in ([0, np.nan, .5, .5, .2, .2], [0, .75, .5, .5, .2, .2], [7, np.nan, .5, .5, .2, .2]))
    assert scored > 1.1 * plain and unknown > plain
    assert np.array_equal(np.asarray(draw.draw_boxes(Image.fromarray(grey(50, 60)), np.empty((0, 6)), NAMES)), grey(50, 60))
    assert draw.draw_boxes(Image.new('L', (40, 30)), [[0, .5, .5, .5, .5, .5]], NAMES).mode == 'RGB'


def orange(path):
    return (np.asarray(Image.open(path).convert('RGB')) == (255, 127, 14)).all(-1).sum()


def test_training_curve(tmp_path):
    rows = [{'iteration': i, 'loss': 50 / (1 + i), 'mAP50': '', 'seconds': .1} for i in range(50)]
    draw.plot_training(tmp_path / 'plain.png', rows, 'a run')
    assert orange(tmp_path / 'plain.png') == 0
    rows[20]['mAP50'], rows[49]['mAP50'], rows[30]['loss'] = .25, .5, float('nan')
    with open(tmp_path / 'metrics.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw.plot_training(tmp_path / 'full.png', tmp_path / 'metrics.csv')
    assert orange(tmp_path / 'full.png') > 100
    draw.plot_training(tmp_path / 'empty.png', [])
    draw.plot_training(tmp_path / 'one.png', rows[:1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty.png', 'full.png', 'metrics.csv', 'one.png', 'plain.png']


def test_smoothed():
    values = np.arange(100.)
    assert np.allclose(draw.smoothed(values, .1)[5:95], values[5:95]) and draw.smoothed(values, .1)[0] == 2.5
    values[50] = np.nan
    assert draw.smoothed(values, .1)[50] == 50 and np.isnan(draw.smoothed([np.nan, 1.], 0)[0])
    assert len(draw.smoothed([])) == 0
