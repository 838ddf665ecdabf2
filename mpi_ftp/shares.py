"""Which rank takes which tile, and how large a share of the work each may take where ranks differ in speed or in memory.

A tile's number is its place in the product of the cuts; shares are given tile by tile. Numbers only: what a share costs is not known here.
"""
import numpy as np

from .ways import MANY

ALIKE = 1.1                 # times as fast, or as much memory: no difference
LAME = 3.0                  # times slower than the quickest: a rank may be better left out
SLIGHT = .02               # of the largest room: what a rank is given that has none
NEAR = .02                  # of a share: two shares that are the same


def orders(machine, batch):
    """Orders of ranks (the rank of each tile, () as they are numbered) worth a search: all as they are where ranks are alike, else quick hosts first,
    and dealt into two rows, so that each half of the samples has quick and slow ones."""
    speeds, count = machine.speeds, len(machine.hosts)
    if max(speeds) <= ALIKE * min(speeds):
        return [()]
    quick = by_host(machine, speeds)
    found = [quick, quick[::2] + quick[1::2]] if batch > 1 and count % 2 == 0 and count <= MANY else [quick]
    return distinct(found, speeds)


def roomy_orders(machine, memory):
    """Orders of ranks that put those with much memory first; memory: bytes by rank."""
    return distinct([by_host(machine, [-nbytes for nbytes in memory]), *([] if min(machine.speeds) == max(machine.speeds) else [by_host(machine, machine.speeds)])],
                    list(zip(machine.speeds, memory)))


def by_host(machine, values):
    """Ranks with the hosts of least value first; those of a host stay together."""
    means = {host: np.mean([v for v, h in zip(values, machine.hosts) if h == host]) for host in set(machine.hosts)}
    return tuple(sorted(range(len(machine.hosts)), key=lambda rank: (means[machine.hosts[rank]], machine.hosts[rank], rank)))


def distinct(found, values):
    """Orders in which other values follow each other; () for that of the numbers."""
    by_values = {}
    for order in found:
        by_values.setdefault(tuple(values[rank] for rank in order), () if order == tuple(range(len(order))) else order)
    natural = tuple(values)
    return [() if key == natural else order for key, order in by_values.items()]


def lame(speeds):
    """How many ranks are so slow that a plan may do without them."""
    return sum(speed > LAME * min(speeds) for speed in speeds)


def uneven(memory):
    """Whether budgets of ranks, bytes, differ."""
    return max(memory) > ALIKE * min(memory)


def by_memory(speeds, rooms):
    """Shares of tiles, sums 1, that spare ranks with little memory: no larger than by speed and by room, or by room alone.

    speeds: seconds by tile, relative to each other; rooms: several estimates of the bytes that each tile may take, lists by tile.
    """
    quick = normal(1 / np.array(speeds, float))
    found = [quick]
    for room in (np.maximum(room, SLIGHT * max(room)) for room in rooms if max(room) > 0):
        for shares in (normal(np.minimum(quick, normal(room))), normal(room)):
            if all(np.abs(shares - other).max() > NEAR * shares.min() for other in found):
                found.append(shares)
    return [tuple(shares.tolist()) for shares in found[1:]]


def normal(values):
    return values / values.sum()
