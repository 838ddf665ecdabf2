"""The plan of a run: by hand where the job says so, else found by the cost model; made by one rank, the same on all."""
import json
from dataclasses import replace

from .errors import PlanError
from .footprint import Footprint
from .machine import Machine, measure
from .search import find_plan
from .subtiles import with_parts


def mini_batch(network, job):
    """(pictures in an iteration, pictures computed at a time) from the job or [net]. Raises PlanError."""
    batch = job.batch or network.net.int('batch', 1)
    pieces = job.subdivisions or network.net.int('subdivisions', 1)
    if job.batch and not job.subdivisions and batch % pieces:
        pieces = 1
    if batch % pieces:
        raise PlanError(f'batch {batch} does not divide into subdivisions of equal size; expected subdivisions to be a divisor, not {pieces}')
    return batch, batch // pieces


def plan_run(world, network, batch, job):
    """(Plan, Machine) of a training run on the ranks of `world` (collective). Raises PlanError, MemoryRefused."""
    if job.machine:
        try:
            machine = Machine.from_json(json.loads(job.machine.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlanError(f'{job.machine} is not a machine file: {error}') from None
    else:
        machine = measure(world, network, batch)
    plan, refused = None, None
    if world.rank == 0:
        try:
            found = find_plan(network, world.size, batch, machine, grid=None if job.grid == 'auto' else job.grid, groups=job.groups,
                              cuts=job.backward_cuts, recompute=job.recompute, memory=job.memory)
            plan = in_parts(network, found, machine, job)
        except Exception as error:          # told by all ranks, or the others would wait for a plan
            refused = error
    plan, refused = world.broadcast((plan, refused))
    if refused:
        raise refused
    return plan, machine


def in_parts(network, plan, machine, job):
    """The plan with the parts that the job asks for, and what it then holds."""
    if job.parts is None:
        return plan
    plan = with_parts(network, plan, job.parts)
    footprint = Footprint(network, plan, machine.placed(plan.ranks))
    peak, fullest = footprint.worst()
    return replace(plan, predicted={**plan.predicted, 'bytes': int(peak), 'fullest': int(fullest), 'memory': footprint.parts(fullest)})
