"""Finds the plan with the lowest predicted step: how each group is cut, where groups begin, backward cuts, what to recompute under a budget."""
from itertools import product

import numpy as np

from .budget import within
from .cost import CostModel
from .dynamic import MIXES, PARTS, Search, checked_cuts, searches_of
from .errors import PlanError
from .footprint import Course, Footprint
from .layer_cost import ITEM
from .plan import per_layer
from .refine import predicted, refined
from .shares import lame, orders
from .space import WHOLE, Mix

WORTH = .005                # of a step: what sums must take for another view of them to be worth a search
LINKED = 1 / 4              # of a step in messages: half of the ranks, half of these, … may be worth a search
FEWER, MANY = (1, 2), 4     # ranks that may be idle because fewer divide the samples or the maps better, where there are more than so many
SLACK = 1.02                # the tables know no overlap of sums of gradients: a little more by them may be less


def find_plan(network, ranks, batch, machine, grid=None, groups='auto', cuts='auto', recompute='auto', memory=None, layout='auto', training=True, course=Course()):
    """The fastest Plan by the cost model, `predicted` filled with seconds, parts, groups and bytes.

    grid: (rows, columns), (samples, rows, columns) or None; groups: 'auto', 'per-layer', 'fused' or first layers; cuts: backward cuts, 'auto', 'none' or layers;
    recompute: 'auto', 'all', 'none'; memory: bytes that no rank may exceed, one number or a tuple by rank; layout: one of LAYOUTS: of maps by
    rows and columns, of samples alone (data parallel), or by rows and columns first and the tail on one rank. training False: of a forward pass;
    course: see footprint.py. Raises PlanError and MemoryRefused.
    """
    machine = machine.placed(ranks)
    if not training:
        recompute, cuts = 'none', 'none'
    checked_cuts(network, cuts)
    parts = PARTS if cuts in (None, 'auto', 'none') else ()

    def searches(order=(), shares=(), idle=0):
        model = CostModel(network, machine, batch, ranks, training=training, course=course, order=order, idle=idle)
        return searches_of(model, grid, groups, recompute, layout, parts, shares)

    def tried(idle):
        several = [searches(order, idle=number) for order, number in product(orders(machine, batch), idle)]
        return [fastest(each) for group in several for each in (group, by_pixels(group)) if each]

    some = sorted({0, lame(machine.speeds)} if grid is None and layout == 'auto' else {0})
    free = best_refined(tried(some), cuts)
    fewer = sorted({ranks - 1, *(halvings(ranks) if waits(free) else []), *(FEWER if ranks > MANY else [])} - {*some})
    if fewer and grid is None and layout == 'auto' and training and len(set(machine.hosts)) > 1:
        free, some = min(free, best_refined(tried(fewer), cuts), key=lambda plan: plan.predicted['seconds']), some + fewer
    memory = memory if memory is None or isinstance(memory, tuple) else (memory,) * ranks
    if memory is None or free.predicted['bytes'] <= min(memory) or Footprint(network, free, machine, training, course).over(memory)[0] <= 0:
        return free
    return within(searches, machine, memory, cuts, orders(machine, batch), some)


def waits(plan):
    """Whether links take so much of a step that fewer ranks may be faster."""
    parts = plan.predicted['parts']
    return parts['exchange'] + parts['norm_sums'] + parts['gradient_sums'] > LINKED * plan.predicted['seconds']


def halvings(ranks):
    """How many ranks are idle where half of them work, half of these, and so on down to two."""
    idle, at_work = [], ranks
    while at_work > 2:
        at_work = -(-at_work // 2)
        idle.append(ranks - at_work)
    return idle


def by_pixels(searches):
    """The same searches for plans that only cut rows and columns, nothing where they are such: backward cuts, which are found later, serve these most."""
    return [Search(s.space, s.main, [WHOLE], s.starts, s.recompute, s.by_hand, 'spatial', s.parts) for s in searches
            if s.layout == 'auto' and s.main.parts[0] == 1 and len(s.ways) > 2]


def best_refined(found, cuts):
    """The plan with the shortest step of some (Plan, Search), refined."""
    plans = [(refined(search.model, plan, cuts), search) for plan, search in found]
    plan, search = min(plans, key=lambda entry: entry[1].model.price(entry[0]).seconds)
    return predicted(search.model, plan, search)


def fastest(searches):
    """(Plan, Search) with the least exact price among the best of each search in several views of sums of gradients: how much of them hides behind the
    backward pass is only known of a whole plan. After a middling Mix the others, then those between the best and its neighbours."""
    model, best = searches[0].model, None

    def tried(mix):
        nonlocal best
        for plan, search in cheapest(searches, mix, best[0] if best else None):
            seconds = model.price(plan).seconds
            if best is None or seconds < best[0]:
                best = seconds, plan, search, mix

    tried(MIXES[0])
    if best is None:
        raise PlanError(f'no plan of layout {searches[0].layout} exists for this network on {model.ranks} ranks')
    if model.training and not model.layers.one_host and model.machine.sum_seconds(ITEM * sum(model.layers.counts.values())) > WORTH * best[0]:
        for mix in MIXES[1:]:
            tried(mix)
        for mix in between(best[3]):
            tried(mix)
    _, plan, search, mix = best
    for other in searches:
        other.mixed(mix)
    return plan, search


def between(mix):
    """The Mixes half way to the neighbours of one of MIXES."""
    shown = sorted(each.shown for each in MIXES if each.hidden == mix.hidden)
    place = shown.index(mix.shown)
    return [Mix((mix.shown + other) / 2, mix.hidden) for other in (*shown[max(0, place - 1):place], *shown[place + 1:place + 2])]


def cheapest(searches, mix, known=None):
    """(Plan, Search) of each search that comes near the best. A quick first plan, a group for each layer, bounds all that follow, if no plan is `known` of
    which the seconds do."""
    first, bound = searches[0], known or np.inf
    if not known and first.starts is None:
        quick = Search(first.space, first.main, first.ways, per_layer(first.network), first.recompute, first.by_hand, first.layout).mixed(mix).best()
        if quick:
            bound = quick[0]
            yield quick[1], first
    for search in searches:
        result = search.mixed(mix).best(bound=bound * SLACK)
        if result:
            bound = min(bound, result[0])
            yield result[1], search
