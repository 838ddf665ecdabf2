"""Kinds of values that a job file or an option may have: what is expected, and how the value is made."""
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A type of values: what TOML types it may have, how it is made from them or from text (ValueError: not such a value)."""
    expected: str
    types: tuple
    convert: object
    placeholder: str


def whole(least):
    def convert(value):
        value = int(value)
        if value < least:
            raise ValueError
        return value
    return Kind(f'a whole number of at least {least}', (int,), convert, 'N')


def real(least=None, above=None, below=float('inf')):
    """A finite number: at least `least` or above `above`, and below `below`."""
    def convert(value):
        value = float(value)
        if not (value > above if least is None else value >= least) or not value < below:
            raise ValueError
        return value
    expected = f'a number above {above:g}' if least is None else f'a number of at least {least:g}'
    return Kind(expected + (f' and below {below:g}' if below < float('inf') else ''), (int, float), convert, 'R')


def one_of(*choices):
    return Kind('one of ' + ', '.join(choices), (str, int), lambda value: choices[choices.index(str(value))], '|'.join(choices))


def words_or(convert, *words):
    """One of `words`, else what `convert` makes of the value."""
    return lambda value: value if value in words else convert(value)


def numbers(value):
    """Increasing whole numbers from a TOML list or from '0,4,8'."""
    listed = tuple(map(int, value.split(','))) if isinstance(value, str) else tuple(value)
    if any(type(v) is not int for v in listed) or any(b <= a for a, b in zip(listed, listed[1:])) or min(listed) < 0:
        raise ValueError
    return listed


def starts(value):
    """First layers of groups: numbers, of which the first is 0."""
    listed = numbers(value)
    if listed[0] != 0:
        raise ValueError
    return listed


def a_path(value):
    if not value:
        raise ValueError
    return Path(value)


def parse_grid(value):
    rows, columns = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', value.strip().lower()).groups()
    return int(rows), int(columns)


def parse_size(value):
    """Bytes from '700M', '1.5GiB' or a number; K, M and G are powers of 1024."""
    number, unit = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([kmgKMG]?)(?:i?[bB])?', str(value).strip()).groups()
    return int(float(number) * 1024 ** ' KMG'.index(unit.upper() or ' '))


def parse_memory(value):
    """Bytes, or ((host, bytes), …) from 'pi1=700M,pi2=3G'."""
    if '=' not in str(value):
        return parse_size(value)
    pairs = [part.partition('=') for part in value.split(',')]
    if not all(host.strip() for host, _, _ in pairs) or len({host.strip() for host, _, _ in pairs}) < len(pairs):
        raise ValueError
    return tuple((host.strip(), parse_size(size)) for host, _, size in pairs)


def matched(convert):
    """`convert` with the AttributeError of a regular expression that does not match made a ValueError."""
    def checked(value):
        try:
            return convert(value)
        except AttributeError:
            raise ValueError from None
    return checked


SWITCH = Kind('on or off', (bool, str), lambda value: value if isinstance(value, bool) else {'on': True, 'off': False}[value], 'on|off')
FLAG = Kind('true or false', (bool,), bool, '')
PATH = Kind('a path', (str,), a_path, 'FILE')
WORD = Kind('a word', (str,), str, 'NAME')
SIZE = Kind('a size such as 700M or 1.5G, or sizes by host such as pi1=700M,pi2=3G', (str, int), matched(parse_memory), 'SIZE|HOST=SIZE,…')
GRID = Kind('rows x columns such as 2x3, or auto', (str,), words_or(matched(parse_grid), 'auto'), 'RxC|auto')
PARTS = Kind('rows x columns such as 4x1', (str,), matched(parse_grid), 'RxC')
GROUPS = Kind('per-layer, fused, auto, or the first layers of the groups from 0 on such as 0,4,8', (str, list),
              words_or(starts, 'per-layer', 'fused', 'auto'), '0,4,8|per-layer|fused|auto')
CUTS = Kind('layers such as 2,6, none, auto', (str, list), words_or(numbers, 'none', 'auto'), '2,6|none|auto')
