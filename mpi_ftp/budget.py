"""Plans under a limit of memory: bytes kept for the backward pass get a price that is raised until a plan fits; fits are checked by footprint.py."""
from dataclasses import replace
from itertools import pairwise

from .cost import CostModel
from .dynamic import searches_of
from .errors import MemoryRefused
from .footprint import Footprint
from .part_cost import fits
from .refine import predicted, with_cuts, with_group, with_moved_edges
from .shares import by_memory, roomy_orders, uneven
from .subtiles import with_parts

PRICES = 0.0, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 16.0, 256.0      # what all bytes kept from forward to backward are worth, in steps
LIMITS = 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32        # of the whole tape: the most that one group may recompute at once
SPARE = 1, 1 / 2, 1 / 4                         # of what a rank could fill besides the process, where that was not enough
SLACK = 1.05                                    # what a plan may cost by the tables, which know no overlap, to be worth a look
SQUEEZED = 6                                    # plans that are taken in more parts where none fits
TRIED = 3                                       # ways to cut large maps that are tried under a limit of memory


def within(ask, machine, memory, cuts, orders, idle=(0,)):
    """The cheapest plan that leaves every rank within its bytes of `memory`, a tuple by rank. ask(order, shares, idle) -> [Search]; orders, idle: to ask
    for. Raises MemoryRefused."""
    budget = Budget(memory)
    budget.try_all(ask, machine, orders, idle)
    if budget.best is None:
        if budget.least is None:
            raise MemoryRefused(f'no plan of this layout fits {mib(min(memory))}')
        raise MemoryRefused(refusal(budget, enough(ask, machine, budget, orders, idle), more_ranks(budget)))
    _, plan, search = budget.best
    model = search.model
    finished = with_cuts(model, plan, cuts)
    plan = finished if budget.fits(search, finished) else plan
    if not model.layers.even or any(any(way.shares) for way in search.ways):
        plan = with_moved_edges(model, plan, lambda changed: budget.fits(search, changed))
    return predicted(model, plan, search)


class Budget:
    """The best plan found so far that fits, (seconds, Plan, Search), and the one that lacks least, (bytes, rank, Footprint, CostModel); of all plans that
    were `seen`, the bytes that a rank lacks and the Search."""

    def __init__(self, memory):
        self.memory, self.best, self.least, self.seen, self.known = memory, None, None, {}, {}

    def try_all(self, ask, machine, orders, idle):
        """Look for plans with shares by speed, and where ranks differ in memory with shares by that."""
        for order in orders:
            for few in idle:
                promise = promising(ask(order, idle=few))
                self.try_searches(promise, LIMITS)
        if uneven(self.memory) and self.least:
            self.try_shares(ask, machine, {search.main.parts for search in promise})
        if self.best is None:
            self.squeeze()

    def try_shares(self, ask, machine, mains):
        """Spare ranks with little memory: those that lack some even so do nothing in the end. mains: parts of the ways to cut large maps that are tried."""
        ranks, orders = range(len(self.memory)), roomy_orders(machine, self.memory)
        for spare in SPARE:
            for order in orders if spare == 1 or not self.best else ():
                for shares in by_memory([machine.speeds[rank] for rank in order or ranks], self.rooms(order, spare)):
                    self.try_searches([search for search in ask(order, shares) if search.main.parts in mains], LIMITS[::2])
        poor = sum(self.least[2].total(rank) > self.memory[rank] for rank in ranks)
        for few in range(1, min(poor + 1, len(ranks))) if not self.best else ():
            self.try_searches(promising(ask(orders[0], idle=few)), LIMITS[::2])

    def rooms(self, order, spare):
        """Bytes by tile that a rank may fill: without the process, and without the weights that the leanest plan leaves there; of ranks that lack some
        under that plan the part `spare`."""
        footprint = self.least[2]
        parts = [footprint.parts(rank) for rank in range(len(self.memory))]
        most = sum(sum(p.values()) - p['process'] for p in parts)
        rooms = [[min(nbytes - p['process'] - spent, most) * (spare if sum(p.values()) > nbytes else 1) for nbytes, p, spent in zip(self.memory, parts, held)]
                 for held in ([0] * len(parts), [p['parameters'] for p in parts])]
        return [[room[rank] for rank in order] if order else room for room in rooms]

    def try_searches(self, searches, limits):
        for search in searches:
            for limit in limits:
                self.try_prices(search, limit * largest(search))

    def try_prices(self, search, limit):
        """Halve the prices of bytes until the lowest is known for which a plan fits: what costs more takes less memory and more time."""
        prices = [price * unit(search) for price in (PRICES if search.model.training else PRICES[:1])]
        low, high, trial = 0, len(prices) - 1, len(prices) - 1
        while low <= high:
            found = search.best(prices[trial], limit, cap=self.best[0] * SLACK if self.best else float('inf'))
            if found is None:
                return
            if self.fits(search, found[1]):
                seconds, high = search.model.price(found[1]).seconds, trial - 1
                if self.best is None or seconds < self.best[0]:
                    self.best = seconds, found[1], search
            elif trial == len(prices) - 1:
                return
            else:
                low = trial + 1
            trial = (low + high) // 2

    def squeeze(self):
        """Where nothing fits as it was found: take the groups of the plans that need least in more parts, then in as few as the limit allows. A search
        bounds what a group keeps; what kernels work in, and what other groups hold meanwhile, it does not know."""
        for plan, (_, search) in sorted(self.seen.items(), key=lambda entry: entry[1][0])[:SQUEEZED]:
            for parts in search.parts:
                changed = with_parts(search.model.network, heads_apart(search.model.network, plan), parts, search.model.training)
                if possible(changed) and self.fits(search, changed):
                    changed = self.loosened(search, changed)
                    seconds = search.model.price(changed).seconds
                    if self.best is None or seconds < self.best[0]:
                        self.best = seconds, changed, search

    def loosened(self, search, plan):
        """The plan with each group in turn in those parts, or whole, that take least time and still fit."""
        for number, group in enumerate(plan.groups):
            if group.parted:
                trials = [with_group(plan, number, replace(group, parts=other)) for other in ((1, 1), *search.parts)]
                quick = sorted(filter(possible, trials), key=lambda trial: search.model.price(trial).seconds)
                plan = next(trial for trial in quick if self.fits(search, trial))
        return plan

    def fits(self, search, plan):
        """Whether no rank holds more than it may."""
        if plan not in self.seen:
            model = search.model
            footprint = Footprint(model.network, plan, model.machine, model.training, model.course, self.known)
            rank = footprint.heaviest()
            over = footprint.total(rank) - self.memory[rank]
            if over <= 0 or self.least is None or over < self.least[0]:       # else others need not be looked at
                over, rank = footprint.over(self.memory)
            self.seen[plan] = over, search
            if self.least is None or over < self.least[0]:
                self.least = over, rank, footprint, model
        return self.seen[plan][0] <= 0


def possible(plan):
    """Whether every tile of a group in parts has as many rows and columns."""
    return all(fits(group.edges, group.parts) for group in plan.groups if group.parted)


def heads_apart(network, plan):
    """The plan with heads in groups of their own, which cannot be taken in parts, where they are cut as what they read."""
    groups = []
    for group in plan.groups:
        starts = [index for index in range(group.start + 1, group.stop) if network.layers[index].is_head and not group.cuts
                  and network.layers[index - 1].out_shape == network.layers[index].out_shape]
        groups += [replace(group, start=a, stop=b) for a, b in pairwise([group.start, *starts, group.stop])]
    return replace(plan, groups=tuple(groups))


def promising(searches):
    """The few ways to cut large maps that are fastest when memory does not count, and when it does most."""
    quick, thrifty = ([entry for entry in ((search.best(price * unit(search), largest(search)), number) for number, search in enumerate(searches)) if entry[0]]
                      for price in (PRICES[0], PRICES[-1]))
    order = [number for found in zip(sorted(quick, key=lambda e: e[0][0]), sorted(thrifty, key=lambda e: e[0][0])) for _, number in found]
    return [searches[number] for number in list(dict.fromkeys(order))[:TRIED]]


def unit(search):
    """Seconds a byte at which the whole tape is worth a step."""
    return float(search.rest[0]) / largest(search)


def largest(search):
    """Bytes of the whole tape, all layers in one group."""
    tables = [search.space.table(way) for way in (search.ways if search.tail is not None else search.ways[:1])]
    return max([1.0, *(float(table.sums['tape'].max()) for table in tables if table)])


def enough(ask, machine, budget, orders, idle, rounds=4):
    """Bytes by rank with which a plan is found: those of the plan that lacks least, raised until there is one; None where that takes too long."""
    for _ in range(rounds):
        footprint = budget.least[2]
        need = [(-(-footprint.total(rank) >> 20) + 1) << 20 for rank in range(len(budget.memory))]
        memory = tuple(max(pair) for pair in zip(budget.memory, need)) if uneven(budget.memory) else (max(need),) * len(need)
        if not uneven(budget.memory):
            return memory
        budget = Budget(memory)
        budget.try_all(ask, machine, orders, idle)
        if budget.best:
            return memory
    return None


def refusal(budget, would_do, others):
    """One sentence: who lacks how much, where most of it goes, and what would do."""
    (over, rank, footprint, model), memory = budget.least, budget.memory
    machine, count = model.everyone, f'{model.ranks} rank{"s" * (model.ranks > 1)}'
    parts = dict(footprint.parts(rank))
    process = parts.pop('process')
    part, nbytes = max(parts.items(), key=lambda item: item[1])
    layer = max(model.network.layers, key=lambda layer: footprint_of(footprint, rank, layer))
    where = f'its process takes {mib(process)}, {part} {mib(nbytes)}; the largest layer is {layer.name}' if nbytes >> 20 else 'its process alone takes more'
    who = f'rank {rank} on {machine.host(rank)}' if machine.names else f'rank {rank}'
    text = (f'no plan fits {mib(min(memory))} on {count}: {who}' if not uneven(memory) else f'no plan fits the memory of {count}: {who} may hold {mib(memory[rank])} and')
    text += f' lacks {mib(over)} even with everything recomputed ({where})'
    if would_do:
        hosts = {machine.host(r): want for r, want in enumerate(would_do) if want > memory[r]}
        amounts = [f'{would_do[0] >> 20}M'] if not uneven(memory) else [f'{host}={want >> 20}M' for host, want in hosts.items()]
        text += f'; --memory {",".join(amounts)} would do'
    return text + others


def footprint_of(footprint, rank, layer):
    return max(s[rank].held[layer.index].size for s in footprint.shares if layer.index in s[rank].held)


def more_ranks(budget):
    """', or N ranks' where some larger number, each with as little as the poorest now, fits the budget, without parts."""
    model, memory = budget.least[3], min(budget.memory)
    for ranks in sorted({model.ranks + 1, model.ranks + 2, model.ranks * 3 // 2 + 1, *(model.ranks * k for k in (2, 3, 4, 6, 8))}):
        if ranks > 64:
            break
        other = CostModel(model.network, model.everyone, model.batch, ranks, training=model.training, course=model.course)
        search = searches_of(other, None, 'auto', 'auto', 'auto', ())[0]
        found = search.best(PRICES[-1] * unit(search), largest(search) * LIMITS[3])
        if found and Footprint(model.network, found[1], other.machine, model.training, model.course).worst()[0] <= memory:
            return f', or {ranks} ranks'
    return ''


def mib(nbytes):
    return f'{nbytes / (1 << 20):.0f} MiB' if nbytes >> 20 else f'{nbytes / (1 << 10):.0f} KiB'
