"""Darknet's .cfg text: read into Sections, checked key by key, written back. Knows names of keys, not what a layer does.

A file is a list of sections; the first is [net], every other one is a layer. Lines starting with # or ; are comments; white space has
no meaning, not even inside a line. Keys are as in Darknet's parser.c, plus `dilation` of a convolution and `groups`, `group_id` of a route.
"""
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from mpi_ftp.errors import CfgError, nearest

ALIASES = {'network': 'net', 'conv': 'convolutional', 'deconv': 'deconvolutional', 'conn': 'connected', 'max': 'maxpool',
           'avg': 'avgpool', 'soft': 'softmax', 'lrn': 'normalization'}

# keys that every layer may have, and those of each kind
COMMON = 'truth onlyforward stopbackward dontsave dontload numload dontloadscales learning_rate smooth'
KEYS = {kind: frozenset(keys.split()) | (frozenset(COMMON.split()) if kind != 'net' else frozenset()) for kind, keys in {
    'net': 'batch subdivisions height width channels inputs learning_rate momentum decay policy burn_in power step scale steps scales gamma '
           'max_batches angle aspect hue saturation exposure min_crop max_crop min_ratio max_ratio center clip random notruth time_steps '
           'adam B1 B2 eps flip',
    'convolutional': 'filters size stride pad padding groups dilation activation batch_normalize binary xnor flipped dot',
    'deconvolutional': 'filters size stride pad padding activation batch_normalize',
    'local': 'filters size stride pad activation',
    'connected': 'output activation batch_normalize',
    'maxpool': 'size stride padding',
    'avgpool': '',
    'dropout': 'probability',
    'softmax': 'groups temperature tree spatial noloss',
    'route': 'layers groups group_id',
    'shortcut': 'from activation alpha beta',
    'reorg': 'stride reverse flatten extra',
    'upsample': 'stride scale',
    'crop': 'crop_height crop_width flip angle saturation exposure noadjust shift',
    'region': 'anchors bias_match classes coords num softmax jitter rescore object_scale noobject_scale class_scale coord_scale mask_scale '
              'absolute thresh random log sqrt background max classfix tree map',
    'yolo': 'mask anchors classes num jitter ignore_thresh truth_thresh random max map',
    'detection': 'classes coords rescore side num softmax sqrt jitter object_scale noobject_scale class_scale coord_scale max forced random reorg',
    'cost': 'type scale ratio noobj thresh', 'activation': 'activation', 'logistic': '', 'l2norm': '', 'batchnorm': '',
    'normalization': 'alpha beta kappa size', 'iseg': 'classes ids',
    'rnn': 'output activation batch_normalize shortcut', 'lstm': 'output batch_normalize', 'gru': 'output batch_normalize tanh',
    'crnn': 'output_filters hidden_filters activation batch_normalize shortcut',
}.items()}

# keys without effect on what is trained here: read, kept when written back, listed by `ignored`
CROPS = frozenset('angle aspect min_crop max_crop min_ratio max_ratio center'.split())        # of [net]: for [softmax], which looks at crops
IGNORED = {'net': frozenset('inputs notruth B1 B2 eps'.split()),
           'region': frozenset('log sqrt classfix absolute mask_scale random'.split()), 'yolo': frozenset(['random']),
           'crop': frozenset('angle saturation exposure shift'.split()), 'cost': frozenset(['type'])}

# keys that change the mathematics in ways not trained here: accepted with their neutral value alone
NEUTRAL = {'net': {'adam': 0, 'time_steps': 1, 'random': 0, 'clip': 0}, 'convolutional': {'binary': 0, 'xnor': 0, 'flipped': 0, 'dot': 0},
           'region': {'tree': None, 'map': None, 'background': 0}, 'yolo': {'map': None}, 'softmax': {'tree': None},
           'reorg': {'flatten': 0, 'extra': 0}, 'cost': {'scale': 1, 'ratio': 0, 'noobj': 1, 'thresh': 0}}
NEUTRAL_COMMON = {'numload': 0, 'dontloadscales': 0, 'smooth': 0, 'learning_rate': 1, 'stopbackward': 0, 'onlyforward': 0, 'truth': 0}


@dataclass(frozen=True)
class Section:
    """One [kind] with its options as text. `line` and `lines[key]` count from 1 in `path`; 0 for what was added by a program.

    The typed getters `int float ints floats flag choice` raise CfgError; a key without a default must be there.
    """
    kind: str
    line: int = 0
    options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))
    lines: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))
    path: str = '<text>'

    def error(self, key, expected):
        """A CfgError that names file, line and key, for callers that check more than types."""
        if key in self.options:
            return CfgError(f'{self.path}:{self.lines.get(key, self.line)}: [{self.kind}] {key}={self.options[key]}: {expected}')
        near = nearest(key, self.options) if key else ''
        return CfgError(f'{self.path}:{self.line}: [{self.kind}]{f" {key} is missing" if key else ""}: {expected}{near}')

    def __contains__(self, key):
        return key in self.options

    def _get(self, key, default, convert, expected):
        if key not in self.options:
            if default is None:
                raise self.error(key, expected)
            return default
        try:
            return convert(self.options[key])
        except ValueError:
            raise self.error(key, f'expected {expected}') from None

    def int(self, key, default=None, least=None):
        """A whole number, not below `least`."""
        def convert(text):
            value = int(text)
            if least is not None and value < least:
                raise ValueError
            return value
        return self._get(key, default, convert, 'a whole number' + (f' of at least {least}' if least is not None else ''))

    def float(self, key, default=None, least=None):
        """A finite floating point number, not below `least`."""
        def convert(text):
            value = float(text)
            if not abs(value) < float('inf') or least is not None and value < least:
                raise ValueError
            return value
        return self._get(key, default, convert, 'a number' + (f' of at least {least}' if least is not None else ''))

    def flag(self, key, default=False):
        """True or False from 1 or 0."""
        return self._get(key, default, lambda text: ('0', '1').index(text) == 1, '0 or 1')

    def ints(self, key, default=None):
        """A tuple of whole numbers separated by commas."""
        return self._get(key, default, lambda text: tuple(map(int, text.rstrip(',').split(','))), 'whole numbers separated by commas')

    def floats(self, key, default=None):
        """A tuple of floating point numbers separated by commas."""
        return self._get(key, default, lambda text: tuple(map(float, text.rstrip(',').split(','))), 'numbers separated by commas')

    def choice(self, key, choices, default=None):
        """One of the words `choices`."""
        value = self._get(key, default, str, 'one of ' + ', '.join(choices))
        if key in self.options and value not in choices:
            raise self.error(key, f'expected one of {", ".join(choices)}{nearest(value, choices)}')
        return value

    def replace(self, **options):
        """The same section with options set (lists are joined by commas) or, when None, taken away."""
        merged = {k: v for k, v in {**self.options, **options}.items() if v is not None}
        return replace(self, options=MappingProxyType({k: as_text(v) for k, v in merged.items()}))


def as_text(value):
    if isinstance(value, (list, tuple)):
        return ','.join(map(as_text, value))
    return str(int(value)) if isinstance(value, bool) else f'{value:.9g}' if isinstance(value, float) else str(value)


def read_cfg(path):
    """The Sections of a .cfg file, the first being [net]; CfgError names file and line of what is wrong."""
    try:
        text = Path(path).read_text(encoding='utf-8')
    except OSError as error:
        raise CfgError(f'cannot read the network {path}: {error.strerror}') from None
    except UnicodeDecodeError:
        raise CfgError(f'{path} is not a text file; expected a Darknet .cfg') from None
    return parse(text, str(path))


def parse(text, path='<text>'):
    """The Sections of .cfg text; `path` only names it in messages."""
    heads, bodies = [], []
    for number, raw in enumerate(text.splitlines(), 1):
        line = ''.join(raw.replace('\ufeff', '').split('#')[0].split(';')[0].split())
        if not line:
            continue
        if line.startswith('['):
            if not line.endswith(']') or len(line) < 3:
                raise CfgError(f'{path}:{number}: "{raw.strip()}": expected a section such as [convolutional]')
            heads.append((ALIASES.get(line[1:-1], line[1:-1]), number))
            bodies.append({})
            continue
        key, equals, value = line.partition('=')
        if not heads:
            raise CfgError(f'{path}:{number}: "{raw.strip()}" stands before the first section; expected [net]')
        if not (key and equals and value):
            raise CfgError(f'{path}:{number}: "{raw.strip()}": expected key=value')
        first = bodies[-1].setdefault(key, (value, number))
        if first[0] != value:
            raise CfgError(f'{path}:{number}: [{heads[-1][0]}] {key}={value}, but line {first[1]} says {key}={first[0]}')
    sections = tuple(Section(kind, number, MappingProxyType({k: v for k, (v, _) in body.items()}),
                             MappingProxyType({k: n for k, (_, n) in body.items()}), path)
                     for (kind, number), body in zip(heads, bodies))
    if not sections or sections[0].kind != 'net':
        raise CfgError(f'{path}: expected [net] as the first section, found {f"[{sections[0].kind}]" if sections else "none"}')
    for section in sections:
        check(section)
    return sections


def check(section):
    """Refuse kinds and keys that Darknet does not know, and values whose meaning is not trained here."""
    kind, known = section.kind, KEYS.get(section.kind)
    if known is None:
        raise CfgError(f'{section.path}:{section.line}: unknown section [{kind}]{nearest(kind, [*KEYS, *ALIASES])}')
    for key in section.options:
        if key not in known:
            raise CfgError(f'{section.path}:{section.lines.get(key, section.line)}: unknown key "{key}" in [{kind}]{nearest(key, known)}')
        if key in NEUTRAL.get(kind, ()) or kind != 'net' and key in NEUTRAL_COMMON:
            neutral = {**NEUTRAL_COMMON, **NEUTRAL.get(kind, {})}[key]
            if neutral is None or section.float(key) != neutral:
                raise section.error(key, 'not trained here; leave the key out' + (f' or set it to {neutral}' if neutral is not None else ''))


def ignored(sections):
    """'file:line: [kind] key=value' for every key that has no effect here."""
    classifier = [s.kind for s in sections if s.kind in ('region', 'yolo', 'softmax')][-1:] == ['softmax']
    without = IGNORED if classifier else {**IGNORED, 'net': IGNORED['net'] | CROPS}
    return [f'{s.path}:{s.lines.get(key, s.line)}: [{s.kind}] {key}={s.options[key]}'
            for s in sections for key in s.options if key in without.get(s.kind, ())]


def write(sections):
    """The text of a .cfg; `parse(write(s))` gives the same kinds and options."""
    return '\n'.join(f'[{s.kind}]\n' + ''.join(f'{k}={v}\n' for k, v in s.options.items()) for s in sections)
