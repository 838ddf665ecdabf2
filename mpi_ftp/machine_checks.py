"""What a machine file must hold: which keys, and values of which type. Knows nothing of what they mean."""
import math
from collections.abc import Callable
from dataclasses import dataclass

from .errors import PlanError, nearest

# without these nothing is known of a run's hosts; files that were written before the others came do without those
NEEDED = 'curves', 'copy', 'add', 'sgd', 'host_link', 'net_link', 'hosts', 'speeds', 'cores', 'threads'


@dataclass(frozen=True)
class Type:
    """What values are expected, and whether a value is one of them."""
    expected: str
    fits: Callable


def number(value):
    return type(value) in (int, float) and 0 <= value < math.inf


def above(value):
    return number(value) and value > 0


def whole(value):
    return type(value) is int and value >= 0


def text(value):
    return type(value) is str


def row(*kinds):
    return lambda value: isinstance(value, (list, tuple)) and len(value) == len(kinds) and all(fits(part) for fits, part in zip(kinds, value))


def rows(fits):
    return lambda value: isinstance(value, (list, tuple)) and all(map(fits, value))


def growing(value):
    return rows(above)(value) and all(a < b for a, b in zip(value, value[1:])) and len(value) > 0


NUMBER, ABOVE = Type('a number of at least 0', number), Type('a number above 0', above)
WHOLE, TEXT = Type('a whole number of at least 0', whole), Type('text', text)
COUNT = Type('a whole number of at least 1', lambda value: whole(value) and value > 0)
LINK = Type('seconds and bytes a second, two numbers', row(number, above))
BY_RANKS = Type('rows of ranks, bytes and seconds', rows(row(whole, whole, number)))
TYPES = {
    **dict.fromkeys('copy add sgd call head message labour meeting picture'.split(), NUMBER), **dict.fromkeys(('strain', 'halos', 'gradients'), ABOVE),
    **dict.fromkeys(('host_link', 'net_link'), LINK), **dict.fromkeys(('base', 'peak'), WHOLE), **dict.fromkeys(('cores', 'threads'), COUNT),
    **dict.fromkeys(('note', 'signature'), TEXT), **dict.fromkeys(('fewer', 'gathers', 'scatters'), BY_RANKS),
    'sums': Type('rows of bytes and seconds', rows(row(whole, number))),
    'hosts': Type('the host number of each rank', lambda value: rows(whole)(value) and len(value) > 0),
    'speeds': Type('a number above 0 for each rank', rows(above)), 'names': Type('names of hosts', rows(text)),
    'algorithms': Type('rows of pass, channels, filters, height, width, algorithm and seconds', rows(row(text, whole, whole, whole, whole, text, number))),
    'sources': Type('rows of a key and where it comes from', rows(row(text, text))),
    'curves': Type('a list of curves, at least one', lambda value: isinstance(value, (list, tuple)) and len(value) > 0),
}
FLAG = Type('true or false', lambda value: type(value) is bool)
CURVE = {**dict.fromkeys('inputs outputs size stride groups'.split(), COUNT), **dict.fromkeys('kind activation algorithm pass'.split(), TEXT),
         **dict.fromkeys(('normalize', 'first'), FLAG), 'pixels': Type('growing numbers above 0', growing), 'seconds': Type('as many numbers as pixels', rows(number))}


def check(record, types, needed, where=''):
    """Raises PlanError unless `record` has the keys `needed`, and no others than those of `types`, each with such a value."""
    if not isinstance(record, dict):
        raise PlanError(f'{where}expected keys with values, found {shown(record)}')
    for key in needed:
        if key not in record:
            raise PlanError(f'{where}the key "{key}" is missing')
    for key, value in record.items():
        if key not in types:
            raise PlanError(f'{where}there is no key "{key}"{nearest(key, types)}')
        if not types[key].fits(value):
            raise PlanError(f'{where}{key} = {shown(value)}: expected {types[key].expected}')


def check_machine(record):
    """Raises PlanError unless `record` is that of a Machine."""
    check(record, TYPES, NEEDED)
    if len(record['speeds']) != len(record['hosts']):
        raise PlanError(f'{len(record["speeds"])} speeds, but {len(record["hosts"])} hosts: expected one of each for every rank')
    for number, curve in enumerate(record['curves'], 1):
        check(curve, CURVE, CURVE, f'curve {number}: ')
        if len(curve['seconds']) != len(curve['pixels']):
            raise PlanError(f'curve {number}: {len(curve["seconds"])} seconds for {len(curve["pixels"])} pixels')


def shown(value):
    """A value as JSON tells it, cut where it is long."""
    import json
    told = json.dumps(value)
    return told if len(told) < 60 else told[:56] + ' ...'
