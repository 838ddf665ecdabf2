"""What a run needs, declared once: every key of a job file (TOML) is also an option of the command line, which wins.

A value that is not given is None and falls back to the network's [net] section, or is chosen by the program. Relative paths in a job
file are relative to the job file's folder, on the command line to the current one.
"""
import dataclasses
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from .errors import JobError, nearest
from .kinds import CUTS, FLAG, GRID, GROUPS, PARTS, PATH, SIZE, SWITCH, WORD, one_of, real, whole
from .waiting import cores

MOST_THREADS = 16           # that a host with fewer cores is given: a job for boards may be tried on a laptop


def key(kind, help, default=None):
    return field(default=default, metadata={'kind': kind, 'help': help})


@dataclass(frozen=True)
class Job:
    """The resolved description of a run; None where [net] or the program decides."""
    cfg: Path = key(PATH, 'network, a Darknet .cfg')
    data: Path = key(PATH, 'data set, HDF5 as written by `mpi-ftp convert`')
    weights: Path = key(PATH, 'Darknet .weights to begin with, full or cut off, at iteration 1 (default: random from the seed)')
    run: Path = key(PATH, 'folder for everything the run writes (default: runs/ and the name of the job or the network)')
    resume: bool = key(FLAG, 'go on from the checkpoint in the run folder', False)
    split: str = key(WORD, 'split that is trained on', 'train')
    val_split: str = key(WORD, 'split that is evaluated; none: no evaluation (default: val, where the data set has it)')
    batch: int = key(whole(1), 'pictures to an iteration (default: [net] batch)')
    subdivisions: int = key(whole(1), 'pieces in which a batch is computed (default: [net] subdivisions)')
    iterations: int = key(whole(1), 'number of iterations (default: [net] max_batches)')
    epochs: float = key(real(above=0), 'number of passes over the split, instead of iterations')
    seed: int = key(whole(0), 'of initial weights, shuffling and augmentation', 0)
    learning_rate: float = key(real(0), 'default: [net] learning_rate')
    momentum: float = key(real(0, below=1), 'default: [net] momentum')
    decay: float = key(real(0), 'default: [net] decay')
    batch_norm: str = key(one_of('live', 'frozen'), 'frozen: use and keep the running statistics that the weights came with', 'live')
    augment: bool = key(SWITCH, 'jitter, flip and colours as [net] and the last layer say', True)
    grid: tuple = key(GRID, 'how the picture is cut among ranks', 'auto')
    groups: tuple = key(GROUPS, 'layers that run without halo exchange between them', 'auto')
    layout: str = key(one_of('auto', 'spatial', 'samples', 'tail'),
                      'spatial: maps by rows and columns alone; samples: data parallel; tail: rows and columns, then the smallest maps on one rank', 'auto')
    backward_cuts: tuple = key(CUTS, 'further layers before which gradients of halos are exchanged', 'auto')
    recompute: str = key(one_of('all', 'none', 'auto'), 'groups whose inner outputs are computed again in the backward pass', 'auto')
    parts: tuple = key(PARTS, 'parts in which a rank takes its tile of a group, one after the other, in training of those that recompute (default: whole)')
    memory: int = key(SIZE, 'what one rank may hold, everywhere or by host (default, and for hosts not named: its share of what is free there)')
    machine: Path = key(PATH, 'measured constants of hosts and links (default: measured at start)')
    threads: int = key(whole(1), 'threads to a rank (default: cores shared among the ranks of a host)')
    dtype: str = key(one_of('float32', 'float64'), 'float64 runs the slow reference kernels', 'float32')
    winograd: str = key(one_of('off', '2', '4', 'auto'), 'largest tile of the fast 3x3 convolution', 'auto')
    overlap: bool = key(SWITCH, 'compute while halos and gradients travel', True)
    deterministic: bool = key(FLAG, 'add gradients in the order of ranks wherever they run, so that the bits of a sum do not depend on their hosts', False)
    halos: str = key(one_of('full', 'half'), 'half: pixels travel in half precision', 'full')
    gradients: str = key(one_of('full', 'half'), 'half: sums of gradients travel in half precision, what rounding takes is added the next time', 'full')
    replan: bool = key(SWITCH, 'plan anew at the end of an epoch where a rank or a link has become slower', True)
    reader: str = key(one_of('all', 'one'), 'ranks that read the data set; `one` hands out tiles where only its host has the file', 'all')
    checkpoint_every: int = key(whole(1), 'iterations between checkpoints', 100)
    val_every: int = key(whole(0), 'iterations between evaluations; 0: only at the end', 0)
    ranks: int = key(whole(1), 'refuse to run on any other number of ranks')

    def toml(self):
        """A job file that says the same, with absolute paths; options equal to None are left out."""
        given = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if getattr(self, f.name) is not None]
        return ''.join(f'{name} = {toml_value(name, value)}\n' for name, value in given)


FIELDS = {f.name: f for f in dataclasses.fields(Job)}


def toml_value(name, value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if name in ('grid', 'parts') and isinstance(value, tuple):
        value = 'x'.join(map(str, value))
    if name == 'memory' and isinstance(value, tuple):
        value = ','.join(f'{host}={size}' for host, size in value)
    if isinstance(value, tuple):
        return str(list(value))
    text = str(value.absolute() if isinstance(value, Path) else value)
    return '"' + ''.join({'"': '\\"', '\\': '\\\\'}.get(c, c if ord(c) >= 32 and ord(c) != 127 else f'\\u{ord(c):04x}') for c in text) + '"'


def read_job(path):
    """The values given by a job file, as a dict; JobError names file, line, key and what was expected."""
    path = Path(path)
    try:
        text = path.read_text(encoding='utf-8')
        values = tomllib.loads(text)
    except OSError as error:
        raise JobError(f'cannot read the job {path}: {error.strerror}') from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(f'{path} is not a TOML job file: {error}') from None
    job = {}
    for name, value in values.items():
        found = re.search(rf'^\s*"?{re.escape(name)}"?\s*[=.]|^\s*\[+{re.escape(name)}', text, re.M)
        where = f'{path}:{text.count(chr(10), 0, found.end()) + 1 if found else 1}'
        if isinstance(value, dict) or isinstance(value, list) and value and isinstance(value[0], dict):
            raise JobError(f'{where}: [{name}]: tables are not used here, every key stands at the top')
        if name not in FIELDS:
            raise JobError(f'{where}: unknown key "{name}"{nearest(name, FIELDS)}')
        kind = FIELDS[name].metadata['kind']
        if type(value) not in kind.types:
            raise JobError(f'{where}: {name} = {value!r}: expected {kind.expected}')
        job[name] = converted(kind, value, f'{where}: {name} = {value!r}')
        if kind is PATH:
            job[name] = path.absolute().parent / job[name]
    return job


def converted(kind, value, shown):
    try:
        return kind.convert(value)
    except (ValueError, KeyError, TypeError):
        raise JobError(f'{shown}: expected {kind.expected}') from None


def add_arguments(parser, keys=None):
    """Offer the keys (default: all, and a job file) as options of an argparse parser."""
    if keys is None:
        parser.add_argument('job', nargs='?', metavar='JOB.toml', help='job file; options win over it')
    for name, declared in FIELDS.items():
        if keys is not None and name not in keys:
            continue
        kind, default = declared.metadata['kind'], declared.default
        text = declared.metadata['help'] + ('' if default in (None, False) else f' (default: {"on" if default is True else default})')
        value = {'action': 'store_true'} if kind is FLAG else {'metavar': kind.placeholder}
        parser.add_argument('--' + name.replace('_', '-'), dest=name, default=None, help=text, **value)


def from_arguments(args, required=()):
    """The Job of parsed arguments: defaults, then the job file, then options. Raises JobError."""
    file = getattr(args, 'job', None)
    values = read_job(file) if file else {}
    for name, declared in FIELDS.items():
        given = getattr(args, name, None)
        if given is not None:
            kind = declared.metadata['kind']
            values[name] = converted(kind, given, f'--{name.replace("_", "-")} {given}')
            if kind is PATH:
                values[name] = values[name].absolute()
    for name in required:
        if values.get(name) is None:
            raise JobError(f'{f"{file}: " if file else ""}{name} is missing: give --{name.replace("_", "-")} or a job file with {name} = …')
    if 'iterations' in values and 'epochs' in values:
        if getattr(args, 'epochs', None) is None and getattr(args, 'iterations', None) is not None:
            del values['epochs']
        elif getattr(args, 'iterations', None) is None and getattr(args, 'epochs', None) is not None:
            del values['iterations']
        else:
            raise JobError('both iterations and epochs are given; expected one of them')
    if (values.get('threads') or 0) > max(MOST_THREADS, cores()):
        raise JobError(f'threads = {values["threads"]}: this host has {cores()} core{"s" * (cores() > 1)} for this process')
    if values.get('run') is None and (file or values.get('cfg')):
        values['run'] = Path('runs', Path(file or values['cfg']).stem).absolute()
    return Job(**values)
