"""The verb `accuracy`: short trainings of several networks, sizes, batches, groupings, grids and ranks; seconds and bytes predicted beside measured.

Every training is a process of its own, as a user would start it, on random pictures. Knows only what a run leaves in its folder.
"""
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from . import comm
from .arguments import whole
from .errors import JobError, UsageError, nearest
from .files import check_writable, replacing
from .launcher import of_launcher
from .screen import show as show_table

WARM = 2                    # steps that are not counted
NET = '[net]\nwidth={side}\nheight={side}\nchannels=3\nbatch={batch}\nmomentum=0.9\ndecay=0.0005\nlearning_rate=0.0001\n'
CONV = '[convolutional]\nbatch_normalize={norm}\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation={activation}\n'
POOL = '[maxpool]\nsize=2\nstride=2\n'
SHORTCUT = '[shortcut]\nfrom=-3\nactivation=leaky\n'
HEAD = ('[region]\nanchors=1.3,1.7, 3.2,4.0, 5.1,8.1, 9.5,4.8, 11.2,10.0\nbias_match=1\nclasses=3\ncoords=4\nnum=5\nsoftmax=1\njitter=.3\nrescore=1\n'
        'object_scale=5\nnoobject_scale=1\nclass_scale=1\ncoord_scale=1\nabsolute=1\nthresh=.6\nrandom=0\n')


def conv(filters, size=3, stride=1, activation='leaky', norm=1):
    return CONV.format(filters=filters, size=size, stride=stride, activation=activation, norm=norm)


def chain(text):
    """Layers from words: M a pool, 64 a 3 x 3 convolution, 64' a 1 x 1 one."""
    return ''.join(POOL if word == 'M' else conv(int(word.rstrip("'")), 1 if word.endswith("'") else 3) for word in text.split())


def block(filters, stride=1):
    return conv(filters, 3, stride) + conv(filters, activation='linear') + SHORTCUT


NETWORKS = {
    'yolov2': chain("32 M 64 M 128 64' 128 M 256 128' 256 M 512 256' 512 256'"),                      # its first 16 layers
    'tiny': chain('16 M 32 M 64 M 128 M 256 M 512 1024 512'),
    'resnet18': conv(64, 7, 2) + POOL + block(64) * 2 + ''.join(block(f, 2) + block(f) for f in (128, 256, 512)),
}


@dataclass(frozen=True)
class Case:
    """A training: ranks, network, side of its picture, pictures in a step, further words of the command line."""
    ranks: int
    network: str
    side: int
    batch: int = 1
    words: str = ''

    def __str__(self):
        return f'{self.ranks} {self.network} {self.side} {self.batch} {self.words}'.strip()

    def cfg(self):
        return NET.format(side=self.side, batch=self.batch) + NETWORKS[self.network] + conv(40, 1, activation='linear', norm=0) + HEAD


CASES = (
    Case(1, 'yolov2', 608), Case(1, 'yolov2', 416), Case(1, 'yolov2', 416, 4), Case(1, 'yolov2', 608, 1, '--recompute all'),
    Case(1, 'yolov2', 416, 1, '--groups per-layer --recompute all'), Case(1, 'tiny', 416), Case(1, 'tiny', 416, 4), Case(1, 'tiny', 608, 2),
    Case(1, 'resnet18', 224), Case(1, 'resnet18', 224, 8), Case(1, 'resnet18', 320, 2, '--recompute all'), Case(1, 'yolov2', 320, 2, '--threads 1'),
    Case(2, 'yolov2', 608), Case(2, 'yolov2', 608, 1, '--grid 2x1 --groups fused'), Case(2, 'yolov2', 416, 1, '--grid 1x2 --groups per-layer'),
    Case(2, 'yolov2', 416, 1, '--grid 2x1 --groups 0,4,8 --backward-cuts none'), Case(2, 'yolov2', 416, 4), Case(2, 'tiny', 416),
    Case(2, 'tiny', 416, 4, '--grid 2x1 --recompute all'), Case(2, 'tiny', 608, 1, '--grid 1x2 --groups 0,6'), Case(2, 'resnet18', 224, 8),
    Case(2, 'resnet18', 320, 1, '--grid 1x2'), Case(4, 'yolov2', 416, 1, '--grid 2x2'), Case(4, 'tiny', 416, 4),
)


def add_arguments(parser):
    parser.add_argument('--cases', metavar='N,…', help=f'which of the {len(CASES)} trainings (default: all), from 1; --list tells them')
    parser.add_argument('--list', action='store_true', help='list the trainings and end')
    parser.add_argument('--iterations', metavar='N', type=whole(WARM + 1), default=12, help=f'steps of each, of which {WARM} are not counted (default: 12)')
    parser.add_argument('--json', metavar='FILE', help='add what was measured to this file; what it holds of other trainings is shown, too')


def run(args):
    """Of several ranks one starts the trainings, or lists them, and the others wait."""
    world = comm.world()
    if world.rank == 0:
        compare(args)
    world.rest()


def compare(args):
    if args.list:
        print('\n'.join(f'{number:3} {case}' for number, case in enumerate(CASES, 1)))
        return
    if args.json:
        check_writable(args.json)
    cases, rows = chosen(args.cases), read(args.json)
    with tempfile.TemporaryDirectory() as folder:
        data = random_pictures(Path(folder, 'pictures.h5'))
        for case in cases:
            rows[str(case)] = measured(case, data, Path(folder), args.iterations)
            print(f'{case}: ' + told(rows[str(case)]), flush=True)
            if args.json:
                with replacing(args.json) as temporary:
                    temporary.write_text(json.dumps(rows, indent=1))
    show(rows)


def read(path):
    if not path or not Path(path).exists():
        return {}
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise JobError(f'{path} is not what `mpi-ftp accuracy` wrote: {error}') from None


def chosen(text):
    """The cases of '1,3,5'. Raises UsageError."""
    words = [str(n) for n in range(1, len(CASES) + 1)] if text is None else text.split(',')
    for word in words:
        if not (word.isdecimal() and 1 <= int(word) <= len(CASES)):
            raise UsageError(f'--cases {text}: expected numbers from 1 to {len(CASES)} with commas between{nearest(word, map(str, range(1, len(CASES) + 1)))}')
    return [CASES[int(word) - 1] for word in words]


def random_pictures(path, count=8, shape=(320, 400)):
    """A data set of noise with a few boxes."""
    from .pictures import writing
    rng = np.random.default_rng(1)
    with writing(path, ['a', 'b', 'c'], shape) as writer:
        for i in range(count):
            boxes = np.column_stack([rng.integers(0, 3, 4), rng.uniform(.3, .7, (4, 2)), rng.uniform(.1, .5, (4, 2))])
            writer.add(f'noise {i}', rng.integers(0, 256, (*shape, 3), np.uint8), boxes)
        writer.splits['train'] = range(count)
    return path


def measured(case, data, folder, iterations):
    """{predicted and measured seconds and bytes} of one training. Raises JobError where it fails."""
    cfg, place = folder / 'network.cfg', Path(tempfile.mkdtemp(dir=folder)) / 'run'
    cfg.write_text(case.cfg())
    words = [sys.executable, '-m', 'mpi_ftp', 'train', '--cfg', cfg, '--data', data, '--run', place, '--val-split', 'none', '--iterations', iterations,
             '--checkpoint-every', 10 ** 9, *case.words.split()]
    if case.ranks > 1:
        words = [launcher(), '-n', case.ranks, *words]
    mine = [name for name in os.environ if name == 'NUMBA_NUM_THREADS' or of_launcher(name)]          # set for this process, not for those
    environment = {name: value for name, value in os.environ.items() if name not in mine}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=folder, env=environment)
    if done.returncode:
        raise JobError(f'the training {case} ended with exit code {done.returncode}: {" ".join(done.stderr.split())[-400:]}')
    with open(place / 'metrics.csv') as file:
        seconds = [float(row['seconds']) for row in csv.DictReader(file)][WARM:]
    predicted = json.loads((place / 'plan.json').read_text())['predicted']
    peaks = re.findall(r'peak memory of ranks ([\d ]+) MiB', (place / 'log.txt').read_text())[-1].split()
    return {'seconds': median(seconds), 'bytes': max(map(int, peaks)) << 20, 'predicted seconds': predicted['seconds'], 'predicted bytes': predicted['bytes'],
            'parts': predicted['parts'], 'memory': predicted['memory']}


def launcher():
    """mpirun: the user's, else the one beside this Python."""
    beside = Path(sys.executable).parent / 'mpirun'
    return os.environ.get('MPIRUN') or (str(beside) if beside.exists() else 'mpirun')


def errors(row):
    """(of the step, of memory): predicted over measured, less one."""
    return row['predicted seconds'] / row['seconds'] - 1, row['predicted bytes'] / row['bytes'] - 1


def told(row):
    step, memory = errors(row)
    return (f'{1e3 * row["predicted seconds"]:.1f} ms predicted, {1e3 * row["seconds"]:.1f} measured ({100 * step:+.1f} %); '
            f'{row["predicted bytes"] >> 20} MiB predicted, {row["bytes"] >> 20} measured ({100 * memory:+.1f} %)')


def show(rows):
    """The table, and the median and the worst error."""
    from rich.table import Table
    table = Table(box=None, header_style='bold')
    for name in ('ranks, network, side, batch', 'ms predicted', 'measured', 'error %', 'MiB predicted', 'measured', 'error %'):
        table.add_column(name, justify='left' if name.startswith('ranks') else 'right')
    for name, row in rows.items():
        step, memory = errors(row)
        table.add_row(name, f'{1e3 * row["predicted seconds"]:.1f}', f'{1e3 * row["seconds"]:.1f}', f'{100 * step:+.1f}',
                      str(row['predicted bytes'] >> 20), str(row['bytes'] >> 20), f'{100 * memory:+.1f}')
    show_table(table, 130)
    for name, found in zip(('step', 'memory'), zip(*map(errors, rows.values()))):
        sizes = [100 * abs(error) for error in found]
        print(f'{name}: median error {median(sizes):.1f} %, worst {max(sizes):.1f} %, of {len(sizes)}')
