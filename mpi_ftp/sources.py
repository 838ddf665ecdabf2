"""What labelled pictures look like on other people's disks: the terms that the readers of each kind share, archives, and
the simplest kind, a folder a class.

A reader takes a folder and the class names (None: those found) and returns a Source: which picture files, with which
boxes or class, in which splits. Pictures are not opened here.
"""
import re
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .errors import DataError, nearest

PICTURES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif', '.ppm', '.pgm'}
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
               'testing': 'test', 'trainval': 'trainval'}
DIFFICULT, CROWD = 1, 2
ORDER = ['train', 'val', 'test', 'trainval']


@dataclass(frozen=True)
class Item:
    """One picture file. `boxes`: (class name, left, top, right, bottom), in pixels or, if `fractions`, in parts of the
    picture; `size`: the (h, w) its annotation states; `label`: its class name in a classification set;
    `uncounted`: boxes that are not trained and count neither way, and then DIFFICULT or CROWD."""
    name: str
    path: Path
    boxes: list = field(default_factory=list)
    label: str | None = None
    splits: tuple = ()
    fractions: bool = False
    size: tuple | None = None
    uncounted: list = field(default_factory=list)


@dataclass
class Source:
    """`items` in a fixed order, all class names in order, split names in order (none: not stated), and `refused`:
    (name, reason) of what could not be used."""
    items: list
    classes: list
    splits: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    labelled: bool = False


@contextmanager
def unpacked(source, beside):
    """The folder of pictures: `source` itself, or a temporary one in `beside` with an archive's contents. Raises DataError."""
    if source.is_dir() or source.suffix.lower() in ('.json', '.data'):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix='.convert-', dir=beside) as folder:
        try:
            if zipfile.is_zipfile(source):
                zipfile.ZipFile(source).extractall(folder)
            elif tarfile.is_tarfile(source):
                with tarfile.open(source) as archive:
                    for member in archive:                       # Debian's Python 3.11.2 has no filter that would look
                        if not (member.isfile() or member.isdir()) or member.name.startswith('/') or '..' in Path(member.name).parts:
                            raise tarfile.ReadError(f'{member.name} is a link or lies outside of it')
                    archive.extraction_filter = getattr(tarfile, 'data_filter', None)
                    archive.extractall(folder)
            else:
                raise DataError(f'{source}: expected a folder, or a .tar.gz or .zip file of one')
        except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataError(f'{source} cannot be unpacked: {error}') from error
        yield Path(folder)


def read_text(path):
    """The text of a file. Raises DataError when it is not text."""
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: cannot be read as text: {getattr(error, "strerror", None) or "it is not UTF-8"}') from None


def read_lines(path):
    """The lines of a text file that are not empty."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_names(path):
    """Class names, one a line."""
    names = read_lines(path)
    double = {name for name in names if names.count(name) > 1}
    if double or not names:
        raise DataError(f'{path}: ' + (f'class name "{min(double)}" twice' if double else 'no class names in it'))
    return names


def split_order(name):
    """Sorting key: train, val, test, trainval, then others by name."""
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def relative(path, root):
    """The path as a picture's name: from `root` on."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def folder(root, names=None):
    """A folder a class, with the pictures of the class anywhere below it; train/, val/, test/ above them are splits."""
    while len(inner := _folders(root)) == 1 and inner[0].name not in SPLIT_NAMES and _folders(inner[0]):
        root = inner[0]
    parts = _folders(root)
    staged = parts and all(part.name in SPLIT_NAMES for part in parts)
    groups = [(SPLIT_NAMES[part.name], part) for part in parts] if staged else [('', root)]
    classes = sorted({path.name for _, group in groups for path in _folders(group)}, key=_natural)
    if not classes:
        raise DataError(f'{root}: no folder a class with pictures in it')
    source = Source([], names or classes, sorted({s for s, _ in groups if s}, key=split_order), labelled=True)
    if names and (unknown := [name for name in classes if name not in names]):
        raise DataError(f'{root}: folder "{unknown[0]}" is not among the class names{nearest(unknown[0], names)}')
    for split, group in groups:
        for part in _folders(group):
            for path in sorted(part.rglob('*')):
                if path.is_file() and not path.name.startswith('.'):
                    source.items.append(Item(relative(path, root), path, label=part.name,
                                             splits=(split,) if split else ()))
    return source


def _natural(name):
    """Sorting key that puts "10" after "9"."""
    return [(0, int(part), '') if part.isdecimal() else (1, 0, part) for part in re.split(r'(\d+)', name) if part]


def _folders(root):
    """Sub-folders that hold a picture at any depth."""
    return sorted((p for p in root.iterdir() if p.is_dir() and not p.name.startswith('.')
                   and any(q.suffix.lower() in PICTURES for q in p.rglob('*'))), key=lambda p: _natural(p.name))
