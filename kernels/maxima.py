"""The first maximum of a pool's window as vector instructions: who wins, and who gets the gradient. Ties go to the first; a NaN wins."""


def first_maximum(e, values):
    """(the largest of vectors in row-major order; for each but the first, whether it beats all before it, None for the first)."""
    best, wins = values[0], [None]
    for value in values[1:]:
        win = e.b.or_(e.b.fcmp_ordered('>', value, best), e.b.fcmp_unordered('uno', value, value))
        best = e.b.select(win, value, best)
        wins.append(win)
    return best, wins


def shares(e, wins, gradient):
    """What each place of a window gets of its gradient: all goes to the last one that beat all before it."""
    found, rest = [], gradient
    for win in reversed(wins):
        found.insert(0, rest if win is None else e.b.select(win, rest, e.zero))
        rest = rest if win is None else e.b.select(win, e.zero, rest)
    return found
