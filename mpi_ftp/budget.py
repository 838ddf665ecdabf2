"""Plans under a limit of memory: bytes kept for the backward pass get a price that is raised until a plan fits; fits are checked by footprint.py."""
from .cost import CostModel
from .dynamic import searches_of
from .errors import MemoryRefused
from .footprint import Footprint
from .refine import predicted, refined, with_cuts

PRICES = 0.0, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 16.0, 256.0      # what all bytes kept from forward to backward are worth, in steps
LIMITS = 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32        # of the whole tape: the most that one group may recompute at once
TRIED = 3                                       # ways to cut large maps that are tried under a limit of memory


def within(model, searches, cuts, memory):
    """The cheapest plan whose fullest rank holds at most `memory` bytes. Raises MemoryRefused."""
    budget = Budget(model, memory)
    for search in promising(searches):
        for limit in LIMITS:
            budget.try_prices(search, limit * largest(search))
    if budget.best is None:
        raise MemoryRefused(refusal(model, budget.least, memory))
    _, plan, search = budget.best
    return best_of(model, [refined(model, plan, cuts), with_cuts(model, plan, cuts), plan], memory, search)


class Budget:
    """The best plan found so far that fits, (seconds, Plan, Search), and the least that was found, (bytes, rank, Footprint)."""

    def __init__(self, model, memory):
        self.model, self.memory, self.best, self.least, self.footprints = model, memory, None, None, {}

    def try_prices(self, search, limit):
        """Halve the prices of bytes until the lowest is known for which a plan fits: what costs more takes less memory and more time."""
        prices = [price * unit(search) for price in (PRICES if self.model.training else PRICES[:1])]
        low, high, trial = 0, len(prices) - 1, len(prices) - 1
        while low <= high:
            found = search.best(prices[trial], limit)
            if found is None:
                return
            if self.fits(found[1]):
                seconds, high = self.model.price(found[1]).seconds, trial - 1
                if self.best is None or seconds < self.best[0]:
                    self.best = seconds, found[1], search
            elif trial == len(prices) - 1:
                return
            else:
                low = trial + 1
            trial = (low + high) // 2

    def fits(self, plan):
        if plan not in self.footprints:
            self.footprints[plan] = footprint = Footprint(self.model.network, plan, self.model.machine, self.model.training, self.model.course)
            peak, rank = footprint.worst()
            if self.least is None or peak < self.least[0]:
                self.least = peak, rank, footprint
        return self.footprints[plan].worst()[0] <= self.memory


def promising(searches):
    """The few ways to cut large maps that are fastest when memory does not count, and when it does most."""
    quick, thrifty = ([entry for entry in ((search.best(price * unit(search), largest(search)), number) for number, search in enumerate(searches)) if entry[0]]
                      for price in (PRICES[0], PRICES[-1]))
    order = [number for found in zip(sorted(quick, key=lambda e: e[0][0]), sorted(thrifty, key=lambda e: e[0][0])) for _, number in found]
    return [searches[number] for number in list(dict.fromkeys(order))[:TRIED]]


def best_of(model, plans, memory, search):
    """The first of some plans, `predicted` filled, that fits; the last one is known to."""
    for plan in plans:
        footprint = Footprint(model.network, plan, model.machine, model.training, model.course)
        if footprint.worst()[0] <= memory:
            break
    return predicted(model, plan, search, footprint)


def unit(search):
    """Seconds a byte at which the whole tape is worth a step."""
    return float(search.rest[0]) / largest(search)


def largest(search):
    """Bytes of the whole tape, all layers in one group."""
    return max(float(search.space.table(way).sums['tape'].max()) for way in search.ways[:1])


def refusal(model, least, memory):
    """One sentence: who lacks how much, where most of it goes, and what would do."""
    peak, rank, footprint = least
    part, nbytes = max(((p, b) for p, b in footprint.parts(rank).items() if p != 'process'), key=lambda item: item[1])
    layer = max(model.network.layers, key=lambda layer: footprint_of(footprint, rank, layer))
    return (f'no plan fits {mib(memory)} on {model.ranks} rank{"s" * (model.ranks > 1)}: rank {rank} lacks {mib(peak - memory)} even with everything recomputed '
            f'(most goes to {part}, {mib(nbytes)}; the largest layer is {layer.name}); --memory {-(-peak >> 20) + 1}M would do{more_ranks(model, memory)}')


def footprint_of(footprint, rank, layer):
    return max(s[rank].held[layer.index].size for s in footprint.shares if layer.index in s[rank].held)


def more_ranks(model, memory):
    """', or N ranks' where some larger number fits the budget, without parts."""
    for ranks in sorted({model.ranks + 1, model.ranks + 2, model.ranks * 3 // 2 + 1, *(model.ranks * k for k in (2, 3, 4, 6, 8))}):
        if ranks > 64:
            break
        other = CostModel(model.network, model.machine.placed(ranks), model.batch, ranks, training=model.training, course=model.course)
        search = searches_of(other, None, 'auto', 'auto', 'auto', ())[0]
        found = search.best(PRICES[-1] * unit(search), largest(search) * LIMITS[3])
        if found and Footprint(model.network, found[1], other.machine, model.training, model.course).worst()[0] <= memory:
            return f', or {ranks} ranks'
    return ''


def mib(nbytes):
    return f'{nbytes / (1 << 20):.0f} MiB'
