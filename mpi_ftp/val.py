"""The verb `val`: average precision (or accuracy) of weights on a split of a data set."""
import json
from pathlib import Path

from . import comm, inference
from .arguments import fraction
from .evaluate import evaluate
from .files import check_writable, replacing
from .footprint import EVALUATION
from .job import from_arguments
from .screen import show
from .session import read_headed, splits_of
from .telling import telling


def add_arguments(parser):
    inference.add_arguments(parser, ('data', 'batch', 'reader'))
    parser.add_argument('--split', default='val', metavar='NAME', help='split that is evaluated (default: val)')
    parser.add_argument('--json', metavar='OUT', help='write the result as JSON')
    parser.add_argument('--thresh', type=fraction, default=.005, metavar='R', help='least score of a detection that counts (default: 0.005)')
    parser.add_argument('--nms', type=fraction, default=.45, metavar='R', help='overlap above which the weaker of two boxes is dropped (default: 0.45)')


def run(args):
    split, args.split = args.split, None
    job = from_arguments(args, required=('cfg', 'weights', 'data'))
    world, network = comm.world(job.ranks), read_headed(job.cfg, 'evaluate')
    if args.json and world.rank == 0:
        check_writable(args.json)
    splits_of(world, job, split, network)
    _, model = inference.start(network, job, job.batch or min(8, network.net.int('batch', 1, least=1)), weights_in=args.weights_in, beside=EVALUATION)
    with telling(f'{split} of {Path(job.data).name}', world.rank == 0) as tell:
        result = evaluate(world, model, job.data, split, job.reader, tell, args.thresh, args.nms)
    if world.rank:
        return
    show(result.table(f'{split} of {Path(job.data).name}'))
    if args.json:
        record = {**result.as_dict(), 'cfg': str(job.cfg), 'weights': str(job.weights), 'data': str(job.data), 'split': split,
                  'thresh': args.thresh, 'nms': args.nms}
        with replacing(Path(args.json)) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + '\n')
