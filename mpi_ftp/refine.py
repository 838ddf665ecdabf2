"""Improves a plan that a search has found by what the search's states cannot hold: backward cuts, and edges where ranks are not alike; tells what
the model expects of it.
"""
from dataclasses import replace

from .footprint import Footprint
from .part_cost import fits as parts_fit

MANY_CUTS = 8               # along an axis: from so many on only single ones are moved


def refined(model, plan, cuts):
    """The plan with backward cuts, and with edges moved where ranks are not alike."""
    plan = with_cuts(model, with_early_starts(model, plan), cuts)
    return plan if model.layers.even else with_moved_edges(model, plan)


def with_early_starts(model, plan):
    """The plan whose groups begin before their halos are there only where the model finds that worth the pieces in which their first layer is then taken."""
    return replace(plan, groups=tuple(replace(group, early=row['early'] >= 0) for group, row in zip(plan.groups, model.price(plan).groups)))


def with_cuts(model, plan, cuts):
    """The plan with backward cuts: those asked for, or each that the model finds worth its round."""
    if cuts in (None, 'none'):
        return plan
    if cuts != 'auto':
        return replace(plan, groups=tuple(replace(g, cuts=tuple(c for c in cuts if g.start <= c < g.last)) for g in plan.groups))
    if model.ranks == 1:
        return plan
    for number, group in enumerate(plan.groups):
        inner = [i for i in range(group.start, group.last) if not model.network.layers[i].halo_free]
        if not inner or group.parted or len(group.edges[2]) + len(group.edges[3]) <= 4:
            continue
        best = model.price(plan).seconds
        for index in inner:
            trial = replace(plan.groups[number], cuts=tuple(sorted({*plan.groups[number].cuts, index})))
            changed = with_group(plan, number, trial)
            seconds = model.price(changed).seconds
            if seconds < best * .998:
                best, plan = seconds, changed
    return plan


def with_moved_edges(model, plan, fits=None, most=400):
    """The plan with single cut points moved as long as that lowers the predicted step; at most `most` trials.
    fits(plan): whether it may be.

    A cut that runs through several groups in the same place is moved in all of them first, by the same part of the map.
    """
    best, trials = model.price(plan).seconds, 0
    for share in (1 / 16, 1 / 32, 1 / 64, 0):
        improved = True
        while improved and trials < most:
            improved = False
            for changed in moves(plan, share):
                trials += 1
                seconds = model.price(changed).seconds
                if seconds < best * .9995 and (fits is None or fits(changed)):
                    best, plan, improved = seconds, changed, True
                    break
                if trials >= most:
                    break
    return plan


def moves(plan, share):
    """Plans with one cut point, or a run of them, moved either way: by a share of the size in all groups that are cut into as many parts, or (0) by one
    unit in one group. A run gives to one tile what another one loses far from it."""
    for axis in (2, 3, 1):
        unit = 16 if axis == 1 else 1
        counts = sorted({len(g.edges[axis]) for g in plan.groups if len(g.edges[axis]) > 2})
        if share:
            choices = [[n for n, g in enumerate(plan.groups) if len(g.edges[axis]) == count] for count in counts]
        else:
            choices = [[n] for n, g in enumerate(plan.groups) if len(g.edges[axis]) > 2]
        for numbers in choices:
            for first, last in runs(len(plan.groups[numbers[0]].edges[axis]) - 2):
                for sign in (1, -1):
                    changed = plan
                    for number in numbers:
                        moved = with_edges(changed.groups[number], axis, first, last, sign * share, sign * unit)
                        changed = with_group(changed, number, moved) if moved else changed
                    if changed != plan:
                        yield changed


def runs(count):
    """(first, last) of the runs of cut points 1 … count, single ones first; longer ones where they are few."""
    longest = count if count < MANY_CUTS else 1
    return [(first, first + more) for more in range(longest) for first in range(1, count + 1 - more)]


def with_edges(group, axis, first, last, share, unit):
    """The group with the cut points first … last moved; None where no room is left."""
    edges = group.edges[axis]
    step = round(share * edges[-1] / abs(unit)) * abs(unit) if share else unit
    changed = edges[:first] + tuple(edge + step for edge in edges[first:last + 1]) + edges[last + 1:]
    if not step or not edges[first - 1] < changed[first] or not changed[last] < edges[last + 1]:
        return None
    moved = replace(group, edges=group.edges[:axis] + (changed,) + group.edges[axis + 1:])
    return None if group.parted and not parts_fit(moved.edges, group.parts) else moved


def with_group(plan, number, group):
    return replace(plan, groups=plan.groups[:number] + (group,) + plan.groups[number + 1:])


def predicted(model, plan, search=None, footprint=None):
    """The plan with what the model expects of it."""
    plan = with_early_starts(model, plan)
    price = model.price(plan)
    footprint = footprint or Footprint(model.network, plan, model.machine, model.training, model.course)
    peak, fullest = footprint.worst()
    record = {**price.to_json(), 'bytes': peak, 'fullest': fullest, 'memory': footprint.parts(fullest)}
    if search:
        record['grid'], record['samples'] = list(search.main.grid), search.main.parts[0]
    return replace(plan, predicted=plain(record))


def plain(value):
    """Numbers of numpy as Python's, for JSON."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if hasattr(value, 'item') else value
