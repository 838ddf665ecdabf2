"""Whether the tables of a data set fit each other: what they point to is read, and what is read is counted by class, with no further look."""
import numpy as np


def check(count, most, sizes, names, offsets, boxes, labels, splits, classes):
    """ValueError where they do not. count, most: pictures, and the height and width of the slab of each; classes: how many; the others are what
    pictures.py reads."""
    own = boxes[:, 0] if labels is None else labels
    for name, fits in (('sizes', sizes.shape == (count, 2) and (1 <= sizes) & (sizes <= most)), ('names', len(names) == count),
                       ('offsets', len(offsets) == count + 1 and np.diff(offsets, prepend=0, append=len(boxes)) >= 0),
                       ('boxes', np.isfinite(boxes)), ('labels', labels is None or len(labels) == count), ('classes', (0 <= own) & (own < classes)),
                       *((f'splits/{split}', (0 <= numbers) & (numbers < count)) for split, numbers in splits.items())):
        if not np.all(fits):
            raise ValueError(f'{name} do not fit the rest')
