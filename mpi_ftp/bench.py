"""The verb `bench`: a whole training step of a network on one rank, beside PyTorch's of the same network, taking turns in one run.

Ours is the Model that `train` runs: forward, loss, backward and the optimizer, in this process. PyTorch runs in processes of its own: tuned, in both
memory layouts (malloc keeps its pages, 1 x 1 filters go to oneDNN), and as a user gets it (NCHW, nothing set).
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from . import comm
from . import job as jobs
from . import kernels
from .arguments import numbers
from .comm import Alone
from .errors import CfgError, UsageError
from .model import Model
from .network import read_network
from .plan import by_hand
from .screen import show as show_table
from .session import load_kernels, losses_of

KEYS = 'cfg', 'threads', 'winograd'
SIDES, BATCHES = '608,416', '1,4'
MALLOC = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(2 ** 34)}
CONTESTANTS = {'NHWC, tuned': ('NHWC', MALLOC), 'NCHW, tuned': ('NCHW', MALLOC), 'as is': ('plain', {})}
TURN = 2                    # steps at a time


def add_arguments(parser):
    jobs.add_arguments(parser, keys=KEYS)
    parser.add_argument('--sides', metavar='N,…', type=numbers, default=SIDES, help=f'heights and widths of the picture (default: {SIDES})')
    parser.add_argument('--batches', metavar='N,…', type=numbers, default=BATCHES, help=f'samples in a step (default: {BATCHES})')
    parser.add_argument('--seconds', metavar='S', type=float, default=10.0, help='time for each side and batch (default: 10)')
    parser.add_argument('--torch-python', metavar='FILE', default=sys.executable, help='an interpreter that has PyTorch (default: this one)')
    parser.add_argument('--no-torch', action='store_true', help='leave PyTorch out')


def run(args):
    """Of several ranks one measures and the others wait."""
    world = comm.world()
    if world.rank == 0:
        measure(args)
    world.rest()


def measure(args):
    job = jobs.from_arguments(args, required=('cfg',))
    world = Alone()
    load_kernels(world, job, losses_of(read_network(job.cfg)))
    rows = []
    for side in args.sides:
        for batch in args.batches:
            network = read_network(job.cfg, width=side, height=side)
            rows.append((side, batch, race(network, batch, args.seconds, None if args.no_torch else args.torch_python)))
    show(rows)


def race(network, batch, seconds, python):
    """{contestant: median seconds of a step}, all taking turns for about so many seconds; the interpreter `python` has PyTorch, or is None."""
    theirs = {}
    try:
        if python:
            theirs = {name: Opponent(python, network, batch, *how) for name, how in CONTESTANTS.items()}
        ours = Ours(network, batch)
        contestants = {'ours': ours, **theirs}
        times, begun = {name: [] for name in contestants}, time.perf_counter()
        while not times['ours'] or time.perf_counter() - begun < seconds:
            for name, contestant in contestants.items():
                times[name] += contestant.steps(TURN)
    finally:
        for opponent in theirs.values():
            opponent.close()
    return {name: median(taken) for name, taken in times.items()}


class Ours:
    """The network under the plan of one rank, with random pictures and truths."""

    def __init__(self, network, batch):
        self.model = Model(network, by_hand(network, 1, batch, (1, 1), [0]), Alone(), np.float32, losses=losses_of(network))
        self.model.parameters.initialise(1)
        rng, (_, channels, h, w) = np.random.default_rng(1), network.tensor_shape(-1, batch)
        self.picture = rng.random((batch, 1, h, w, channels), np.float32)
        boxes = np.array([[0, .5, .5, .2, .3], [0, .3, .4, .1, .1]])
        self.truths = [0 if network.heads[-1].kind == 'softmax' else boxes for _ in range(batch)]
        self.batch = batch
        self.steps(2)

    def steps(self, count):
        """[seconds] of so many steps."""
        clock = time.process_time if kernels.get_threads() == 1 else time.perf_counter
        taken = []
        for _ in range(count):
            begun = clock()
            self.step()
            taken.append(clock() - begun)
        return taken

    def step(self):
        self.model.forward(self.picture, self.truths, seen=1 << 20)
        self.model.backward(reduce=False)
        self.model.optimizer.step(1e-5 / self.batch, .9, 5e-4 * self.batch)


class Opponent:
    """A process that runs torch_step.py. Raises UsageError where the interpreter has no PyTorch."""

    def __init__(self, python, network, batch, layout, environment):
        _, channels, h, w = network.tensor_shape(-1, batch)
        asked = {'layers': description(network), 'batch': batch, 'channels': channels, 'height': h, 'width': w, 'layout': layout,
                 'threads': kernels.get_threads()}
        clean = {name: value for name, value in os.environ.items() if name not in MALLOC and not name.startswith(('OMP_', 'PYTHON'))}
        try:
            self.process = subprocess.Popen([python, str(Path(__file__).with_name('torch_step.py'))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE, text=True, env={**clean, **environment})
        except OSError as error:
            raise UsageError(f'bench: cannot run {python}: {error.strerror}') from None
        if self.ask(json.dumps(asked)) != 'ready\n':
            said = (self.close() or 'nothing').strip().splitlines()[-1]
            raise UsageError(f'bench: {python} cannot run PyTorch ({said}); name one that can with --torch-python, or give --no-torch')

    def ask(self, line):
        try:
            self.process.stdin.write(line + '\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            return ''
        return self.process.stdout.readline()

    def steps(self, count):
        return json.loads(self.ask(str(count)))

    def close(self):
        """End the process; what it wrote to its error stream."""
        return self.process.communicate()[1]


def description(network):
    """The layers before the head as torch_step.py wants them. Raises CfgError for a kind that it does not know."""
    layers, last = [], -1
    for layer in network.layers:
        if layer.is_head:
            break
        if layer.kind not in ('convolutional', 'maxpool') or layer.inputs != (last,):
            raise CfgError(f'{layer.name}: bench compares chains of [convolutional] and [maxpool] layers with PyTorch; give --no-torch')
        last = layer.index
        if layer.kind == 'maxpool':
            _, h, w = layer.in_shapes[0]
            size, stride = layer.window.size, layer.window.stride
            if (h - size) // stride + 1 != layer.out_shape[1] or (w - size) // stride + 1 != layer.out_shape[2]:
                raise CfgError(f'{layer.name}: its windows reach past the map, which PyTorch has no equal to; give --no-torch')
            layers.append({'kind': 'maxpool', 'size': size, 'stride': stride})
        else:
            rows = layer.rows
            layers.append({'kind': 'convolutional', 'inputs': layer.in_shapes[0][0], 'filters': layer.filters, 'size': rows.size, 'stride': rows.stride,
                           'pad': rows.pad, 'dilation': rows.dilation, 'groups': layer.groups, 'normalize': layer.normalize,
                           'activation': layer.activation})
    return layers


def show(rows):
    from rich.table import Table
    names = list(rows[0][2])
    plural = 's' * (kernels.get_threads() > 1)
    table = Table(title=f'milliseconds of a training step, {kernels.get_threads()} thread{plural}', box=None)
    for name in ['picture', 'batch', 'ours'] + [f'PyTorch {name}' for name in names[1:]] + ['to the best tuned', 'to it as is'][:len(names) - 1]:
        table.add_column(name, justify='right')
    for side, batch, times in rows:
        cells = [f'{1e3 * times[name]:.1f}' for name in names]
        if len(names) > 1:
            tuned = min(taken for name, taken in times.items() if name.endswith('tuned'))
            cells += [f'{tuned / times["ours"]:.2f}x', f'{times["as is"] / times["ours"]:.2f}x']
        table.add_row(f'{side}x{side}', str(batch), *cells)
    show_table(table, 120)
