"""Finds the plan with the lowest predicted step: how each group is cut, where groups begin, backward cuts, what to recompute under a budget."""
from dataclasses import dataclass
from itertools import product

import numpy as np

from .budget import within
from .cost import CostModel, at_work
from .dynamic import HIDDEN, MIXES, PARTS, Search, checked_cuts, searches_of
from .errors import PlanError
from .footprint import Course, Footprint
from .layer_cost import ITEM
from .plan import per_layer
from .refine import predicted, refined
from .shares import lame, orders
from .space import WHOLE, Mix

WORTH = .005                # of a step: what sums must take for another view of them to be worth a search
FEWER, MANY = (1, 2), (4, 12)   # ranks that may be idle because fewer divide the samples or the maps better, where there are more than four, and fewer than twelve
CUTS = 1.1                  # times as long as others a plan may take before it has backward cuts
NEARLY = .9                 # of a rank's time alone: small tiles may be as much faster
ALSO = 2                    # numbers of idle ranks that are tried under a limit of memory, too
REFINED = 6                 # plans, the best ones, that are refined
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

    some = sorted({0, lame(machine.speeds)} if grid is None and layout == 'auto' else {0})
    fewer = grid is None and layout == 'auto' and training and len(set(machine.hosts)) > 1
    found, alone = [], 0.0
    for idle, order in product(fewer_at_work(ranks, some) if fewer else some, orders(machine, batch)):
        if found and alone / throughput(machine, order, ranks - idle) > min(entry.seconds for entry in found):
            continue
        each = searches(order, idle=idle)
        for group, slack in (each, SLACK), (by_pixels(each), CUTS):
            found += fastest(group, found, slack) if group else []
        if ranks - idle == 1 and not alone:
            alone = NEARLY * found[0].seconds * throughput(machine, order, 1)
    if not found:
        raise PlanError(f'no plan of layout {layout} exists for this network on {ranks} ranks')
    free = best_refined(found, cuts)
    memory = memory if memory is None or isinstance(memory, tuple) else (memory,) * ranks
    if memory is None or free.predicted['bytes'] <= min(memory) or Footprint(network, free, machine, training, course).over(memory)[0] <= 0:
        return free
    quick = dict.fromkeys(ranks - entry.search.model.workers for entry in sorted(found, key=lambda entry: entry.seconds))
    return within(searches, machine, memory, cuts, orders(machine, batch), list(dict.fromkeys([*list(quick)[:ALSO], *some])))


def fewer_at_work(ranks, some):
    """Numbers of idle ranks to try: `some`, and those that leave counts with many divisors, or all but one or two; few at work first, whose searches are short
    and bound the others."""
    rich = {count << k for count in (1, 3) for k in range(ranks.bit_length())}
    counts = {count for count in range(1, ranks) if count in rich or MANY[0] < ranks < MANY[1] and ranks - count in FEWER}
    return sorted({*some, *(ranks - count for count in counts)}, reverse=True)


def throughput(machine, order, workers):
    """Of the first ranks in an order, one of the machine's pace being 1."""
    return sum(1 / speed for speed in machine.among((order or range(len(machine.hosts)))[:workers]).speeds)


def by_pixels(searches):
    """The same searches for plans that only cut rows and columns, nothing where they are such: backward cuts, which are found later, serve these most."""
    return [Search(s.space, s.main, [WHOLE], s.starts, s.recompute, s.by_hand, 'spatial', s.parts) for s in searches
            if s.layout == 'auto' and s.main.parts[0] == 1 and len(s.ways) > 2]


@dataclass(frozen=True)
class Found:
    """A plan and the search that found it; its exact seconds, those without sums of gradients, those of the backward pass and of all sums."""
    plan: object
    search: object
    seconds: float
    other: float
    behind: float
    sums: float

    @staticmethod
    def priced(plan, search):
        price, model = search.model.price(plan), search.model.among(at_work(plan))
        sums = sum(float(model.extent(group)[1]['sums'][0, group.start]) for group in plan.groups)
        return Found(plan, search, price.seconds, price.seconds - price.parts['gradient_sums'], price.parts['backward'], sums)

    def seen(self, mix):
        """Seconds by the tables."""
        return mix.of(self.other, self.behind, self.sums)


def best_refined(found, cuts):
    """The plan with the shortest step of those Found, the best of them refined."""
    best = {}
    for entry in sorted(found, key=lambda entry: entry.seconds):
        best.setdefault(entry.plan, entry.search)
    plans = [(refined(search.model, plan, cuts), search) for plan, search in list(best.items())[:REFINED]]
    plan, search = min(plans, key=lambda entry: entry[1].model.price(entry[0]).seconds)
    return predicted(search.model, plan, search)


def fastest(searches, known=(), slack=SLACK):
    """Plans Found, the best of each search in several views of sums of gradients: how much of them hides behind the backward pass is only known of a whole
    plan. After a middling Mix the others, then those between the best and its neighbours. In no view they take much longer than plans that are known."""
    model, found, views = searches[0].model, {}, [{} for _ in searches]

    def least(mix):
        return min((max(entry.seconds, entry.seen(mix)) for entry in (*known, *found.values())), default=np.inf)

    def tried(mix):
        bound = (least(mix) if known or found else quick(searches[0], mix)) * slack
        for search, views_of in zip(searches, views):
            if not foreseen(views_of, mix):
                result = search.mixed(mix).best(bound=bound)
                views_of[mix] = result and result[1]
                if result and result[1] not in found:
                    bound, found[result[1]] = min(bound, result[0] * slack), Found.priced(result[1], search)

    tried(MIXES[0])
    weights = ITEM * sum(model.layers.counts.values())
    if model.training and not model.layers.one_host and model.machine.sum_seconds(weights) > WORTH * least(MIXES[0]):
        for mix in MIXES[1:]:
            tried(mix)
        best = min(found.values(), key=lambda entry: entry.seconds, default=None)
        for mix in between(next(mix for views_of in views for mix, plan in views_of.items() if plan == best.plan)) if best else ():
            tried(mix)
    return list(found.values())


def foreseen(views, mix):
    """Whether it is known what a search finds: nothing where it does not with all sums hidden, and between two Mixes of the same plan that plan. views:
    {Mix: Plan or None}."""
    if HIDDEN in views and views[HIDDEN] is None:
        return True
    shown = {each.shown: plan for each, plan in views.items() if each.hidden == mix.hidden}
    below, above = max((s for s in shown if s < mix.shown), default=None), min((s for s in shown if s > mix.shown), default=None)
    return below is not None and above is not None and shown[below] is not None and shown[below] == shown[above]


def quick(first, mix):
    """Seconds of a quick plan, a group for each layer, which bounds all that are found."""
    if first.starts is not None:
        return np.inf
    found = Search(first.space, first.main, first.ways, per_layer(first.network), first.recompute, first.by_hand, first.layout).mixed(mix).best()
    return found[0] if found else np.inf


def between(mix):
    """The Mixes half way to the neighbours of one of MIXES."""
    shown = sorted(each.shown for each in MIXES if each.hidden == mix.hidden)
    place = shown.index(mix.shown)
    return [Mix((mix.shown + other) / 2, mix.hidden) for other in (*shown[max(0, place - 1):place], *shown[place + 1:place + 2])]
