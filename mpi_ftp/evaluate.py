"""Measures a network on a split: detections of all ranks come together on rank 0, which computes average precision or accuracy."""
import numpy as np

from . import boxes, metrics
from .augment import Options
from .session import Feed


def evaluate(world, model, path, split, reader='all', progress=lambda share: None, thresh=.005, nms=.45):
    """The metrics.Precision (detectors) or metrics.Accuracy (classifiers) of an inference Model on rank 0, None elsewhere.

    Pictures are letterboxed (classified ones: resized and cropped) as Darknet does; boxes are compared in the original picture, with all that it holds.
    progress: called with the share of the pictures that is done.
    """
    network, plan = model.network, model.plan
    detector = network.heads[-1].kind != 'softmax'
    options = Options.from_cfg(network.net.options, network.heads[-1].section.options if detector else None, augment=False)
    found, truths, ignored, done = [], [], [], 0
    with Feed(world, path, split, network.tensor_shape(-1, plan.batch), model.picture, reader, options=options, shuffle=False, once=True,
              dtype=model.dtype) as feed:
        while (batch := feed.next()) is not None:
            tile, truth, ids, draws, _ = batch
            model.forward(tile)
            rows = gather_boxes(world, model, thresh, nms) if detector else gather_scores(model)
            if world.rank == 0:
                for slot in np.flatnonzero(ids >= 0):
                    if detector:
                        flat = in_picture(rows[rows[:, 0] == slot], draws[slot])
                        flat[:, 0] = ids[slot]
                        found.append(flat)
                        known, aside = feed.pictures.boxes(ids[slot]), feed.pictures.uncounted(ids[slot])
                        truths.append(np.insert(np.concatenate([known, aside[:, :5]]), 0, ids[slot], axis=1))
                        ignored.append(np.append(np.zeros(len(known)), aside[:, 5]))
                    else:
                        found.append(rows[slot])
                        truths.append(truth[slot])
            done += int((ids >= 0).sum())
            progress(done / feed.samples)
        classes = feed.classes
    if world.rank:
        return None
    if not detector:
        return metrics.accuracy(np.array(found), np.array(truths))
    return metrics.evaluate(np.concatenate(found), np.concatenate(truths), classes, np.concatenate(ignored))


def gather_boxes(world, model, thresh, nms):
    """All ranks' detections of the mini-batch on rank 0, after suppression: rows [sample, cx, cy, w, h, objectness, scores]."""
    rows = [model.losses[index].detections(x, cells, thresh) for index, (cells, x) in model.outputs.items()]
    parts = world.gather(np.concatenate(rows) if rows else None)
    if world.rank:
        return None
    parts = [p for p in parts if p is not None]
    rows = np.concatenate(parts)
    return boxes.nms(rows[np.lexsort(rows[:, 4::-1].T)], nms)        # an order that does not depend on who found what


def in_picture(rows, draw):
    """Rows [sample, class, score, cx, cy, w, h] in parts of the original picture, cut at its edge, of one sample's from gather_boxes, which change."""
    rows[:, 1:5] = draw.to_picture(rows[:, 1:5])
    flat = boxes.flatten(rows)
    flat[:, 3:] = boxes.clip(flat[:, 3:])
    return flat


def gather_scores(model):
    """Class probabilities (N, classes) of the mini-batch on rank 0."""
    head = model.network.heads[-1].index
    whole = model.gather(head)
    return None if whole is None else whole.reshape(len(whole), -1)
