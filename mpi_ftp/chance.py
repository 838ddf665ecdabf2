"""Random numbers that depend on integer keys alone: the same on every rank, machine and version of numpy."""
import numpy as np


class Chance:
    """Random numbers that are a function of integer keys: splitmix64 (Steele, Lea, Flood 2014) over the keys."""

    def __init__(self, *keys):
        self._state = 0
        for key in keys:
            self._state = _mix((self._state ^ (key & _MASK)) + _STEP & _MASK)

    def uniform(self, low, high):
        """A float between `low` and `high`, which may come in any order."""
        self._state = self._state + _STEP & _MASK
        return low + (high - low) * ((_mix(self._state) >> 11) * 2. ** -53)

    def coin(self):
        return self.uniform(0, 1) < .5

    def integer(self, low, high):
        """A whole number from `low` to `high`, both included."""
        low, high = min(low, high), max(low, high)
        return low + int(self.uniform(0, high - low + 1))

    def factor(self, largest):
        """A factor between 1 and `largest`, or half the time its inverse (rand_scale)."""
        value = self.uniform(1, largest)
        return value if self.coin() else 1 / value


_MASK, _STEP = 2 ** 64 - 1, 0x9E3779B97F4A7C15


def _mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return z ^ z >> 31


def shuffled(count, seed, epoch):
    """A permutation of 0 ... count - 1, the order of `epoch`: sorted by a hash of (seed, epoch, number)."""
    first = np.uint64(Chance(seed, epoch)._state)
    z = first + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.argsort(z ^ z >> np.uint64(31), kind='stable')
