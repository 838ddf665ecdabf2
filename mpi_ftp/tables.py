"""Seconds read out of measured tables: against the size of an array, and against size and number of ranks. Knows no network and no plan."""


def against_size(points, nbytes):
    """Seconds for so many bytes, of ((bytes, seconds), …), increasing: by straight lines, the last one goes on."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if nbytes <= x1:
            break
    if nbytes <= x0 or x1 == x0:
        return y0 * max(1.0, nbytes / x0)
    return max(0.0, y0 + (y1 - y0) * (nbytes - x0) / (x1 - x0))


def by_ranks(rows):
    """{ranks: ((bytes, seconds), …)} of ((ranks, bytes, seconds), …)."""
    found = {}
    for ranks, nbytes, seconds in rows:
        found[ranks] = found.get(ranks, ()) + ((nbytes, seconds),)
    return found


def against_ranks(tables, ranks, nbytes):
    """Seconds for so many bytes over `ranks` ranks, of {ranks: points}: between two numbers of ranks by a straight line; None outside all of them."""
    below, above = max((n for n in tables if n <= ranks), default=None), min((n for n in tables if n >= ranks), default=None)
    if below is None or above is None:
        return None
    first, last = (against_size(tables[n], nbytes) for n in (below, above))
    return first if below == above else first + (last - first) * (ranks - below) / (above - below)
