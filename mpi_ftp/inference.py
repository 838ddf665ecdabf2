"""A network with its weights for inference on the ranks at hand: what `val`, `detect` and `forward` share."""
from dataclasses import replace

import numpy as np

from . import comm, job
from .curves import Class, Curve
from .errors import MemoryRefused, WeightsError
from .footprint import Course, Footprint
from .limits import resident
from .machine import Machine, read_machine
from .model import Model
from .plan import by_hand, per_layer
from .network import Network
from .planning import budgets
from .saving import WeightsSource
from .search import find_plan
from .session import load_kernels, losses_of
from .subtiles import with_parts

KEYS = ('cfg', 'weights', 'grid', 'groups', 'layout', 'parts', 'memory', 'machine', 'threads', 'winograd', 'dtype', 'ranks')


def add_arguments(parser, more=()):
    """The options of the command line that say which network runs how."""
    job.add_arguments(parser, keys=KEYS + tuple(more))
    parser.add_argument('--weights-in', choices=('memory', 'file'),
                        help='file: memory holds the weights of the group at work, the others wait in $TMPDIR or /var/tmp (default: file where '
                        'nothing else keeps to --memory)')


def near_square(ranks):
    """The grid of all ranks that is nearest to a square, with at least as many rows as columns."""
    columns = next(c for c in range(int(ranks ** .5), 0, -1) if ranks % c == 0)
    return ranks // columns, columns


def planned(world, network, batch, job, last=None, paged=None, beside=0):
    """(plan of a forward pass on the ranks of `world`, whether weights wait in a file), collective: by prediction where a machine or a limit of memory is
    given, else by hand. paged: as the user chose; None: where no plan fits the limit otherwise. beside: bytes that the verb takes beside the model.
    """
    if not (job.machine or job.memory):
        return plan_inference(network, world.size, batch, job, last), bool(paged)
    machine = world.from_first(lambda: read_machine(job.machine)) if job.machine else typical_machine(world)
    machine = replace(machine, base=world.maximum(resident()) + beside, peak=0)
    memory = None if job.memory is None else budgets(world, job.memory)
    groups = job.groups if isinstance(job.groups, str) or last is None else [start for start in job.groups if start <= last]

    def find():
        for choice in (False, True) if paged is None and memory is not None else (bool(paged),):
            course = Course(paged=choice, ahead=2 if beside else 0, dtype=job.dtype)          # mini-batches of pictures wait where a data set is read
            try:
                if job.parts:
                    return fitting(network, plan_inference(network, world.size, batch, job, last), machine, memory, course, job.parts), choice
                return find_plan(network, world.size, batch, machine, grid=None if job.grid == 'auto' else job.grid, groups=groups, memory=memory,
                                 layout=job.layout, training=False, course=course), choice
            except MemoryRefused as error:
                refused = error
        raise refused
    return world.from_first(find)


def fitting(network, plan, machine, memory, course, parts):
    """The plan. Raises MemoryRefused where a rank takes more than its bytes of `memory` (None: whatever it takes)."""
    if memory is not None:
        over, rank = Footprint(network, plan, machine.placed(plan.ranks), training=False, course=course).over(memory)
        if over > 0:
            raise MemoryRefused(f'parts of {"x".join(map(str, parts))} take {memory[rank] + over >> 20} MiB, more than the {memory[rank] >> 20} MiB of rank {rank}')
    return plan


def typical_machine(world):
    """A Machine that nobody measured, for plans that must only fit: rates of one core of a PC, hosts as they are."""
    conv, other = Class('convolutional', 64, 64, 3, activation='leaky', normalize=True), Class('maxpool', 64, 64, 2, 2)
    curves = [Curve(conv, 'forward', (100, 10000), (2e-4, 1.5e-2)), Curve(conv, 'finish', (100, 10000), (1e-5, 1e-3)), Curve(other, 'forward', (100, 10000), (1e-5, 1e-3))]
    names = world.broadcast(world.gather(world.host))
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return Machine(tuple(curves), hosts=tuple(number[name] for name in names), names=tuple(number), speeds=(1.0,) * world.size, note='typical, not measured')


def plan_inference(network, ranks, batch, job, last=None):
    """Groups by hand (those up to layer `last`), or one for each layer that reads a neighbourhood: nothing is computed twice."""
    grid = near_square(ranks) if job.grid == 'auto' else job.grid
    starts = {'auto': None, 'per-layer': None, 'fused': [0]}.get(job.groups, job.groups) if isinstance(job.groups, str) else job.groups
    starts = per_layer(network) if starts is None else starts
    if last is not None:
        starts = [start for start in starts if start <= last]
    plan = by_hand(network, ranks, batch, grid, starts)
    return with_parts(network, plan, job.parts, training=False) if job.parts else plan


def start(network, job, batch, last=None, weights_in=None, beside=0):
    """(world, inference Model with the job's weights) on the ranks at hand (collective). last: run only the layers up to this one;
    weights_in: 'memory', 'file' or None, see `planned`; beside: bytes that the verb takes beside the model."""
    world = comm.world(job.ranks)
    losses = losses_of(network)
    weights = WeightsSource(job.weights, world, network)         # what is wrong with it is told before seconds are spent
    needed = {layer.index for layer in network.layers if layer.tensors and (last is None or layer.index <= last)}
    if needed - weights.covered:
        raise WeightsError(f'{job.weights} covers {len(needed & weights.covered)} layers with weights, {job.cfg} has {len(needed)}: expected a full file')
    load_kernels(world, job, losses)
    part = network if last is None else Network(network.shape, network.layers[:last + 1], network.net, network.path)
    plan, paged = planned(world, part, batch, job, last, weights_in and weights_in == 'file', beside)
    if paged and not weights_in and world.rank == 0:
        print('with all weights in memory no plan keeps to --memory: they wait in a file, memory holds those of the group at work', flush=True)
    model = Model(part, plan, world, np.dtype(job.dtype), training=False, losses=losses, paged=paged)
    weights.fill(model.parameters)
    return world, model
