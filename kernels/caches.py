"""The caches of the CPU at hand, as far as one core can count on them: what blocks of work are sized by.

The environment variable MPI_FTP_CACHES, e.g. 48K,1M,16M, stands for other sizes of the three levels, a core's share of each.
"""
import functools
import os
from dataclasses import dataclass
from pathlib import Path

from . import Setting

UNITS = {'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}


@dataclass(frozen=True)
class Caches:
    """Bytes of each level: its size over the cores that share it; l3 is 0 where there is none."""
    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 8 << 20


@functools.cache
def caches():
    """The Caches from the environment, the kernel's files, or where neither tells them the defaults."""
    named = os.environ.get('MPI_FTP_CACHES')
    if named:
        try:
            l1, l2, l3 = map(parse, named.split(','))
        except (ValueError, KeyError):
            raise Setting(f'MPI_FTP_CACHES is {named!r}; expected three sizes such as 48K,1M,16M') from None
        return Caches(l1, l2, l3)
    return found(Path('/sys/devices/system/cpu/cpu0/cache')) or Caches()


def found(folder):
    """The Caches of a folder of Linux's sysfs, or None."""
    levels = {}
    for index in folder.glob('index*'):
        try:
            level, kind, size, shared = ((index / name).read_text().strip() for name in ('level', 'type', 'size', 'shared_cpu_list'))
            if kind != 'Instruction':
                levels[int(level)] = parse(size) // sharers(shared)
        except (OSError, ValueError, KeyError):
            continue
    return Caches(levels.get(1, Caches.l1), levels[2], levels.get(3, 0)) if 2 in levels else None


def parse(text):
    """Bytes of 48K, 1M or a number."""
    return int(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else int(text)


def sharers(cpus):
    """How many CPUs a list such as 0-3,8 names."""
    spans = [span.split('-') for span in cpus.split(',')]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)
