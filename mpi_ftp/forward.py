"""The verb `forward`: the output of a layer for an array of pictures, on any number of ranks."""
from pathlib import Path

import numpy as np

from . import comm, inference
from .errors import DataError, UsageError
from .files import UNREADABLE, check_apart, check_writable, reason, replacing
from .job import from_arguments
from .network import read_network
from .tile import Tile


def add_arguments(parser):
    inference.add_arguments(parser)
    parser.add_argument('--input', required=True, metavar='X.npy', help='pictures (N, C, H, W), values as the network wants them (0 to 1)')
    parser.add_argument('--layer', type=int, metavar='K', help='layer whose output is written (default: the last)')
    parser.add_argument('--output', required=True, metavar='Y.npy', help='file for the output (N, C, H, W)')


def run(args):
    job = from_arguments(args, required=('cfg', 'weights'))
    if comm.world(job.ranks).rank == 0:
        check_writable(args.output)
        check_apart(args.output, args.input, job.weights, job.cfg)
    try:
        pictures = np.load(args.input, mmap_mode='r')
    except UNREADABLE as error:
        raise DataError(f'{args.input} is not a readable .npy file: {reason(error)}') from None
    if getattr(pictures, 'ndim', None) != 4 or pictures.dtype.kind not in 'buif' or not pictures.size:
        shape = getattr(pictures, 'shape', 'no single array')
        raise DataError(f'{args.input}: expected an array of numbers (N, C, H, W), found {shape} {getattr(pictures, "dtype", "")}'.rstrip())
    whole = read_network(job.cfg, width=pictures.shape[3], height=pictures.shape[2])
    if pictures.shape[1] != whole.shape[0]:
        raise DataError(f'{args.input} has {pictures.shape[1]} channels; {job.cfg} expects {whole.shape[0]}')
    layer = len(whole) - 1 if args.layer is None else args.layer
    if not 0 <= layer < len(whole):
        raise UsageError(f'--layer {layer}: {job.cfg} has layers 0 to {len(whole) - 1}')
    world, model = inference.start(whole, job, len(pictures), layer, weights_in=args.weights_in)
    region = model.picture
    (n0, _, y0, x0), (n1, _, y1, x1) = region.lo, region.hi
    tile = Tile.zeros(region, whole.block(-1), model.dtype)
    tile.set_plain(region, pictures[n0:n1, :, y0:y1, x0:x1].astype(model.dtype))
    model.forward(tile.array)
    out = model.gather(layer)
    if world.rank == 0:
        path = Path(args.output)
        with replacing(path) as temporary, open(temporary, 'wb') as file:
            np.save(file, out)
