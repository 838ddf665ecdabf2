"""Plans under a limit of memory: bytes kept for the backward pass get a price that is raised until a plan fits; fits are checked by footprint.py."""
from .cost import CostModel
from .dynamic import searches_of
from .errors import MemoryRefused
from .footprint import Footprint
from .refine import predicted, refined, with_cuts

PRICES = 0.0, 1e-11, 1e-10, 1e-9, 1e-6       # seconds that a byte kept from forward to backward is worth
LIMITS = 1, 1 / 2, 1 / 4, 1 / 8                # of the whole tape: the most that one group may recompute at once


def within(model, searches, cuts, memory):
    """The cheapest plan whose fullest rank holds at most `memory` bytes. Raises MemoryRefused."""
    candidates, seen, least = {}, {}, None
    for search in searches:
        for plan in thrifty(search):
            candidates.setdefault(plan, search)
    for plan in sorted(candidates, key=lambda plan: model.price(plan).seconds):
        footprint = Footprint(model.network, plan, model.machine, model.training)
        peak, rank = footprint.worst()
        if least is None or peak < least[0]:
            least = peak, rank, footprint
        if peak <= memory:
            return best_of(model, [refined(model, plan, cuts), with_cuts(model, plan, cuts), plan], memory, candidates[plan])
    raise MemoryRefused(refusal(model, least, memory))


def best_of(model, plans, memory, search):
    """The first of some plans, `predicted` filled, that fits; the last one is known to."""
    for plan in plans:
        footprint = Footprint(model.network, plan, model.machine, model.training)
        if footprint.worst()[0] <= memory:
            break
    return predicted(model, plan, search, footprint)


def thrifty(search):
    """Plans that keep and recompute less and less."""
    whole = max(float(search.space.table(way).sums['tape'][-1, 0]) for way in search.ways[:1])
    for share in LIMITS:
        for price in PRICES if share < 1 or search.recompute != 'none' else PRICES[:3]:
            found = search.best(price, share * whole)
            if found:
                yield found[1]


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
    """', or N ranks' where more ranks fit the budget."""
    for ranks in range(model.ranks + 1, min(64, 4 * model.ranks + 8) + 1):
        other = CostModel(model.network, model.machine.placed(ranks), model.batch, ranks, training=model.training)
        for search in searches_of(other, None, 'auto', 'auto', 'auto')[:1]:
            found = search.best(PRICES[-1])
            if found and Footprint(model.network, found[1], other.machine, model.training).worst()[0] <= memory:
                return f', or {ranks} ranks'
    return ''


def mib(nbytes):
    return f'{nbytes / (1 << 20):.0f} MiB'
