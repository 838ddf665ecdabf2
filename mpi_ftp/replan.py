"""A run whose ranks or links have become slower plans anew: what drifts is told by waiting times, weights move to the new cuts in memory.

A rank's computing is what is left of its step without waiting; a link's wait is that of the rank that waits least, which waits for nobody but the wire.
"""
from dataclasses import replace
from statistics import median

from .parameters import TRAINED, cut_rows
from .saving import owners

STEPS = 20                  # that tell what is typical, at first and of late
LEAST = 8                   # of them, at least
SLOWER = 1.25               # times the first pace of a rank, and
WORSE = 2.0                 # times the first wait of all ranks, is a drift,
SHARE = 0.1                 # if that wait is so much of a step
GAIN = 0.1                  # of a step, for which a new plan is worth the move
WAITS = 'halo_seconds', 'norm_seconds', 'sum_seconds'


class Watch:
    """What a rank's steps have taken since the last plan: at first, and of late."""

    def __init__(self):
        self.first, self.late = [], []

    def step(self, row):
        """A step's row of metrics.csv."""
        waited = sum(row[name] for name in WAITS)
        figures = row['seconds'] - waited - row['input_seconds'], waited, row['seconds']
        (self.first if len(self.first) < STEPS + 1 else self.late).append(figures)
        del self.late[:-STEPS]

    def typical(self):
        """((computing, waiting, in all) at first, and of late); None while too little is known. The very first step does not count."""
        if len(self.late) < LEAST:
            return None
        return tuple(tuple(map(median, zip(*rows))) for rows in (self.first[1:], self.late))


def drift(machine, typical):
    """(Machine as it is now, what has changed in words), or None where nothing has changed much. typical: of each rank, see Watch."""
    if None in typical:
        return None
    paces = [late[0] / first[0] for first, late in typical]
    base = min(paces)                                       # what all ranks have in common no plan changes
    slow = {rank: pace / base for rank, pace in enumerate(paces) if pace / base > SLOWER}
    words = [f'rank {rank} computes {times:.1f} times slower than before' for rank, times in slow.items()]
    now = replace(machine, speeds=tuple(speed * slow.get(rank, 1.0) for rank, speed in enumerate(machine.speeds)))
    before, waits = (min(each[k][1] for each in typical) for k in (0, 1))
    if waits > WORSE * before and waits > SHARE * median(late[2] for _, late in typical):
        times = waits / max(before, 1e-6)
        words.append(f'messages take {times:.1f} times longer than before')
        links = {name: (latency * times, bandwidth / times) for name, (latency, bandwidth) in (('host_link', now.host_link), ('net_link', now.net_link))}
        now = replace(now, **links, message=now.message * times, **{name: longer(getattr(now, name), times) for name in ('sums', 'fewer')})
    return (now, ', '.join(words)) if words else None


def longer(rows, times):
    """A measured table, its last column multiplied."""
    return tuple((*row[:-1], row[-1] * times) for row in rows)


def move(world, old, new):
    """Bring weights, statistics and momentum from the Parameters of one plan to those of another on the same ranks (collective)."""
    for layer in old.network.layers:
        for name, shape in layer.tensors:
            for part in ('flat', 'momentum')[:2 if name in TRAINED else 1]:
                spans = old.sharing[layer.index]
                for root, span in owners(spans):
                    for first, last in cut_rows(*span, shape, old.dtype):
                        mine = spans[world.rank] == span
                        rows = old.get(layer.index, name, getattr(old, part), (first, last)) if mine else None
                        if len(set(spans)) > 1:
                            rows = world.broadcast(rows, root)
                        store(new, layer.index, name, rows, getattr(new, part), first)


def store(parameters, layer, name, rows, flat, first):
    """Keep what this rank holds of the rows from `first` on."""
    if layer in parameters.channels:
        begin, end = parameters.channels[layer]
        lo, hi = max(begin, first), min(end, first + len(rows))
        if lo < hi:
            parameters.set(layer, name, rows[lo - first:hi - first], flat, lo)
