"""The plan of a run: by hand where the job says so, else found by the cost model; made by one rank, the same on all, within what each host has."""
import math
import time
from dataclasses import replace
from statistics import median

import numpy as np

from . import kernels
from .augment import Options, draw, input_tile
from .cost import CostModel
from .errors import JobError, MemoryRefused, PlanError, nearest
from .footprint import Course, Footprint
from .layer_times import ROOM
from .limits import available, forget_peak, peak, resident
from .machine import read_machine, write_machine
from .measuring import measure, signature
from .pictures import Loose
from .region import Region
from .replan import GAIN, drift
from .search import find_plan
from .subtiles import with_parts
from .telling import telling

LEAST_ROOM = 4 << 20        # bytes that it takes to measure anything
UNLIMITED = 1 << 62


def mini_batch(network, job):
    """(pictures in an iteration, pictures computed at a time) from the job or [net]. Raises PlanError, CfgError."""
    batch = job.batch or network.net.int('batch', 1, least=1)
    pieces = job.subdivisions or network.net.int('subdivisions', 1, least=1)
    if job.batch and not job.subdivisions and batch % pieces:
        pieces = 1
    if batch % pieces:
        raise PlanError(f'batch {batch} does not divide into subdivisions of equal size; expected subdivisions to be a divisor, not {pieces}')
    return batch, batch // pieces


def course_of(network, job, splits):
    """The Course of a run on data with such splits (see session.splits_of)."""
    evaluates = job.val_split != 'none' if job.val_split else 'val' in splits
    total = math.inf if job.epochs else job.iterations or network.net.int('max_batches', 0) or math.inf
    return Course(evaluates, total > min(job.checkpoint_every, job.val_every if evaluates and job.val_every else math.inf), frozen=job.batch_norm == 'frozen',
                  dtype=job.dtype)


def plan_run(world, network, batch, job, course=Course()):
    """(Plan, Machine) of a training run on the ranks of `world` (collective). Raises PlanError, MemoryRefused."""
    memory = budgets(world, job.memory)
    forget_peak()
    room = min(ROOM, max(LEAST_ROOM, (min(memory) - world.maximum(resident())) // 3))       # what measures must fit as well
    machine = known_machine(world, network, batch, job, room)
    machine = replace(machine, base=world.maximum(resident()), peak=world.maximum(peak()), picture=machine.picture or world.maximum(picture_seconds()))
    kernels.set_rates(machine.algorithms)
    with telling('planning', world.rank == 0):
        return world.from_first(lambda: fitting(network, world.size, batch, machine, job, memory, course)), machine


def plan_again(world, network, batch, job, plan, machine, watch, course=Course()):
    """(why, seconds that the old plan takes now, Plan, Machine) where a new plan pays, else None (collective)."""
    seen, memory = world.gather(watch.typical()), budgets(world, job.memory)

    def find():
        changed = drift(machine, seen)
        if not changed:
            return None
        now, why = changed
        before = CostModel(network, now, batch, plan.ranks, course=course, order=plan.order).price(plan).seconds
        try:
            new = fitting(network, plan.ranks, batch, now, job, memory, course)
        except (MemoryRefused, PlanError):                  # nothing better than what runs
            return None
        return (why, before, new, now) if new.predicted['seconds'] < (1 - GAIN) * before else None
    return world.from_first(find)


def known_machine(world, network, batch, job, room):
    """The job's machine file, measured and written again where it belongs to another processor, library or number of threads; else measured (collective)."""
    if not job.machine:
        return measured(world, network, batch, room=room).sending(job.halos, job.gradients)
    machine = world.from_first(lambda: read_machine(job.machine))          # which other hosts need not have
    if not machine.signature and world.rank == 0:
        print(f'{job.machine} was not measured on these ranks ({machine.note or "nor does it say where"}): `mpi-ftp profile` measures them', flush=True)
    if machine.signature and world.broadcast(machine.signature != signature()):
        if world.rank == 0:
            print(f'{job.machine} was measured on {machine.signature}, this is {signature()}: measuring again', flush=True)
        machine = measured(world, network, batch, room=room)
        if world.rank == 0:
            write_machine(job.machine, machine)
        world.barrier()
    return machine.sending(job.halos, job.gradients)


def measured(world, network, batch, **options):
    """The Machine of the ranks at hand, see `measure` (collective)."""
    with telling('measuring layers and links', world.rank == 0) as tell:
        return measure(world, network, batch, progress=tell, **options)


def picture_seconds(side=256):
    """Seconds to prepare a pixel of the network's input."""
    pictures, options = Loose([np.full((side, side, 3), 127, np.uint8)]), Options()
    out, whole, samples = np.zeros((side, side, 3), np.float32), Region((0, 0, 0, 0), (1, 3, side, side)), []
    for sample in range(4):
        begun = time.thread_time()
        input_tile(out, pictures, 0, draw(0, 0, sample, options, (side, side), (side, side)), whole, side, side)
        samples.append(time.thread_time() - begun)
    return median(samples) / side ** 2


def fitting(network, ranks, batch, machine, job, memory, course=Course()):
    """The fastest plan that keeps to the job and, on each rank, to its bytes of `memory`; `predicted` says how many mini-batches of pictures to prepare
    `ahead`: as many as `course` says, or none where that is too much."""
    def find(memory, course=course):
        found = find_plan(network, ranks, batch, machine, grid=None if job.grid == 'auto' else job.grid, groups=job.groups,
                          cuts=job.backward_cuts, recompute=job.recompute, memory=memory, layout=job.layout, course=course)
        found = in_parts(network, found, machine, job, course)
        return replace(found, predicted={**found.predicted, 'ahead': course.ahead})

    try:
        plan = find(memory)
    except MemoryRefused:
        course = replace(course, ahead=0)
        plan = find(memory, course)
    if machine.crowd * machine.threads > machine.cores and job.grid == 'auto' and job.parts is None:
        other = with_idle_ranks(network, batch, machine, job, ranks, course)
        plan = sooner(plan, other) if other and lacking(network, other, machine, memory, course)[0] <= 0 else plan
    over, rank = lacking(network, plan, machine, memory, course)
    if over > 0:
        raise MemoryRefused(f'parts of {"x".join(map(str, job.parts))} take {memory[rank] + over >> 20} MiB, more than the {memory[rank] >> 20} MiB of rank {rank}')
    return plan


def lacking(network, plan, machine, memory, course):
    """(bytes, rank) of the rank that lacks most under a plan, negative where all have enough."""
    if plan.predicted['bytes'] <= min(memory):
        return plan.predicted['bytes'] - min(memory), plan.predicted['fullest']
    return Footprint(network, plan, machine.placed(plan.ranks), course=course).over(memory)


def with_idle_ranks(network, batch, machine, job, ranks, course=Course()):
    """The fastest plan on as many ranks as a host has cores for, the others idle; None on several hosts.

    Ranks that share a core compute no faster than one of them alone would, but smaller tiles, and so more of every halo and of every filter's transform.
    """
    if len(set(machine.hosts)) > 1:
        return None
    work = max(1, machine.cores // machine.threads)
    alone = replace(machine, hosts=machine.hosts[:work], speeds=machine.speeds[:work], sums=(), meeting=0.0)
    found = find_plan(network, work, batch, alone, groups=job.groups, cuts=job.backward_cuts, recompute=job.recompute, layout=job.layout,
                      course=course)
    return replace(found, ranks=ranks)


def sooner(plan, other):
    """The plan with the shorter step."""
    return other if other.predicted['seconds'] < plan.predicted['seconds'] else plan


def budgets(world, memory):
    """Bytes that each rank may hold (collective): as given for all ranks or by host, else its share of what is free on its host. Raises JobError."""
    here = world.host_comm()
    here.barrier()
    free = available() if here.rank == 0 else None          # asked once, before others take it
    free = here.broadcast(free)
    mine = UNLIMITED if free is None else resident() + free // here.size
    found = world.gather((world.host, mine))
    return given(memory, *world.broadcast(found and tuple(zip(*found))))


def given(memory, hosts, found):
    """A tuple of bytes by rank from `--memory`, where it names a rank's host, else from those found."""
    if not isinstance(memory, tuple):
        return tuple(found) if memory is None else (memory,) * len(hosts)
    named = dict(memory)
    for host in named:
        if host not in hosts:
            raise JobError(f'--memory names {host}, but the ranks run on {", ".join(dict.fromkeys(hosts))}{nearest(host, hosts)}')
    return tuple(named.get(host, free) for host, free in zip(hosts, found))


def in_parts(network, plan, machine, job, course=Course()):
    """The plan with the parts that the job asks for, and what it then holds."""
    if job.parts is None:
        return plan
    plan = with_parts(network, plan, job.parts)
    footprint = Footprint(network, plan, machine.placed(plan.ranks), course=course)
    peak, fullest = footprint.worst()
    return replace(plan, predicted={**plan.predicted, 'bytes': int(peak), 'fullest': int(fullest), 'memory': footprint.parts(fullest)})
