"""The verb `detect`: boxes found in pictures (or the likeliest classes), drawn and as JSON."""
import json
from pathlib import Path

import numpy as np

from . import comm, inference
from .arguments import fraction, whole
from .augment import input_tile, letterbox
from .draw import draw_boxes
from .errors import DataError, JobError
from .evaluate import gather_boxes, gather_scores, in_picture
from .files import check_writable, replacing
from .job import from_arguments
from .pictures import Loose, load_picture
from .session import classes_of, read_headed
from .sources import PICTURES, read_lines


def add_arguments(parser):
    inference.add_arguments(parser)
    parser.add_argument('--names', metavar='F', help='class names, one a line (default: numbers)')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='pictures, or folders of pictures')
    parser.add_argument('--thresh', type=fraction, default=.5, metavar='T', help='least score that is shown (default: 0.5)')
    parser.add_argument('--nms', type=fraction, default=.45, metavar='R', help='overlap above which the weaker of two boxes is dropped (default: 0.45)')
    parser.add_argument('--top', type=whole(1), default=5, metavar='N', help='classes shown by a classifier (default: 5)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the drawn pictures and detections.json')


def run(args):
    images = listed(args.images)
    job = from_arguments(args, required=('cfg', 'weights'))
    out, network = Path(args.out), read_headed(job.cfg, 'detect with')
    if comm.world(job.ranks).rank == 0:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(f'cannot write the folder {out}: {error.strerror}') from None
        check_writable(out / 'detections.json')
    names = names_of(args.names, network.heads[-1])
    world, model = inference.start(network, job, 1, weights_in=args.weights_in)
    find = find_classes if network.heads[-1].kind == 'softmax' else find_boxes
    record, taken = [], {}
    refused = []
    for image in images:
        picture, wrong = loaded(world, image)
        if wrong:
            refused.append(wrong)
            if world.rank == 0:
                record.append({'image': str(image), 'refused': wrong})
                print(wrong, flush=True)
            continue
        entry, rows = find(world, model, picture, names, args)
        if world.rank == 0:
            record.append({'image': str(image), 'width': picture.shape[1], 'height': picture.shape[0], **entry})
            if rows is not None:
                save_picture(out, image, draw_boxes(picture, rows, names or list(map(str, range(1000)))), taken)
            print(f'{image}: ' + told(entry), flush=True)
    if world.rank == 0:
        with replacing(out / 'detections.json') as temporary:
            temporary.write_text(json.dumps(record, indent=1) + '\n')
    if refused:
        raise DataError(f'{len(refused)} of {len(images)} pictures could not be used, {out / "detections.json"} has the others; the first: {refused[0]}')


def names_of(path, head):
    """The class names of a file, none without one. Raises DataError unless there is one for each class of the head. A classifier takes the first of a longer
    list, as Darknet does: its own lists name 21,842 classes of ImageNet, of which its networks tell the first 1000 apart."""
    names, count = read_lines(path) if path else [], classes_of(head)
    if path and (len(names) < count or len(names) > count and head.kind != 'softmax'):
        raise DataError(f'{path} has {len(names)} class names, but {head.name} tells {count} classes apart')
    return names[:count]


def loaded(world, image):
    """(pixels, None) of a picture file, or (None, why a rank cannot use it), the same on all ranks (collective)."""
    picture, wrong = None, None
    try:
        picture = load_picture(image)
    except DataError as error:
        wrong = str(error)
    found = world.gather(wrong)
    wrong = world.broadcast(found and next(filter(None, found), None))
    return None if wrong else picture, wrong


def listed(paths):
    """The picture files among paths, folders opened. Raises DataError when one is missing or there is none."""
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
            if not inside:
                raise DataError(f'the folder {path} holds no pictures ({" ".join(sorted(PICTURES))})')
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f'the picture {path} does not exist')
    return found


def tile_of(model, picture, draw):
    """This rank's part of the network's input."""
    _, _, h, w = model.picture.shape
    tile = np.zeros((1, 1, h, w, 3) if not model.picture.empty else (0, 0, 0, 0, 3), model.dtype)
    if not model.picture.empty:
        input_tile(tile[0, 0], Loose([picture]), 0, draw, model.picture, *model.network.shape[1:])
    return tile


def find_boxes(world, model, picture, names, args):
    """({'detections': …}, rows [class, score, cx, cy, w, h] to draw) on rank 0."""
    draw = letterbox(picture.shape[:2], model.network.shape[1:])
    model.forward(tile_of(model, picture, draw))
    rows = gather_boxes(world, model, args.thresh, args.nms)
    if world.rank:
        return None, None
    flat = in_picture(rows, draw)
    h, w = picture.shape[:2]
    found = [{'class': named(names, int(c)), 'class_id': int(c), 'score': round(float(score), 6),
              'box': [round(float(v), 2) for v in ((cx - bw / 2) * w, (cy - bh / 2) * h, bw * w, bh * h)]} for _, c, score, cx, cy, bw, bh in flat]
    return {'detections': found}, flat[:, 1:]


def find_classes(world, model, picture, names, args):
    """({'classes': the likeliest ones}, None) on rank 0."""
    model.forward(tile_of(model, picture, letterbox(picture.shape[:2], model.network.shape[1:])))
    scores = gather_scores(model)
    if world.rank:
        return None, None
    best = np.argsort(-scores[0], kind='stable')[:args.top]
    return {'classes': [{'class': named(names, int(c)), 'class_id': int(c), 'score': round(float(scores[0, c]), 6)} for c in best]}, None


def named(names, c):
    return names[c] if c < len(names) else str(c)


def told(entry):
    if 'classes' in entry:
        return ', '.join(f'{found["class"]} {found["score"]:.3f}' for found in entry['classes'])
    counts = {}
    for found in entry['detections']:
        counts[found['class']] = counts.get(found['class'], 0) + 1
    return ', '.join(f'{count} {name}' for name, count in sorted(counts.items())) or 'nothing found'


def save_picture(out, image, drawn, taken):
    """Under the picture's name; pictures of one name from several folders are numbered."""
    taken[image.stem] = taken.get(image.stem, 0) + 1
    number = f'_{taken[image.stem]}' if taken[image.stem] > 1 else ''
    path = out / f'{image.stem}{number}_detections.png'
    with replacing(path) as temporary:
        drawn.save(temporary, format='png')
