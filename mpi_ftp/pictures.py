"""Labelled pictures in one HDF5 file: the format, its writer and its reader. Knows nothing of networks, tiles or ranks.

    pictures  uint8 (N, Hmax, Wmax, 3), chunks of about 32x32 pixels: a hyperslab reads little more than itself, and
              those beyond a smaller picture's edge are never written, so padding costs no space
    sizes     int32 (N, 2)      height and width of each picture inside its slab
    names     string (N,)       the source's name of each picture
    offsets   int64 (N + 1,)    boxes[offsets[i]:offsets[i + 1]] belong to picture i
    boxes     float64 (M, 5)    class, centre x, centre y, width, height as fractions of the picture
    uncounted float64 (U, 7)    picture number, a row like those of boxes, 1 (difficult) or 2 (a crowd): boxes that are not trained and count neither
              way in evaluation; missing in older files
    labels    int32 (N,)        one class a picture; only in classification sets
    classes   string (K,)       class names
    splits/S  int64 (n,)        picture numbers of split S; splits may overlap
"""
import os
from contextlib import contextmanager

import numpy as np

from .errors import DataError, nearest
from .files import DAMAGED, fixed, new_hdf5, plain, reason, texts
from .picture_checks import check

FORMAT, VERSION = 'mpi_ftp pictures', 1
CHUNK = 32
INDEX_BYTES = 1 << 17          # of the index of chunks that is kept in memory


class Pictures:
    """Reader of one file. Any number of processes may read at once; reads may come from any thread.
    `classes`, `splits` and `attributes` are plain lists and a dict. Raises DataError when the file cannot be used.
    """

    def __init__(self, path):
        self.path = str(path)
        self._file = _open(self.path)
        try:
            self._load()
            check(len(self._pixels), self._pixels.shape[1:3], self._sizes, self._names, self._offsets, self._boxes, self._labels, self._splits, len(self.classes))
        except DAMAGED as error:
            self._file.close()
            raise DataError(f'{self.path}: damaged: {reason(error)}; convert it again') from error

    def _load(self):
        file = self._file
        self.attributes = {name: plain(value) for name, value in file.attrs.items()}
        self.classes, self._names = texts(file['classes']), texts(file['names'])
        self._sizes = file['sizes'][:]
        self._offsets = file['offsets'][:]
        self._boxes = file['boxes'][:]
        self._uncounted = file['uncounted'][:] if 'uncounted' in file else np.empty((0, 7))
        self._labels = file['labels'][:] if 'labels' in file else None
        self._splits = {name: file['splits'][name][:] for name in file['splits']}
        self._pixels = file['pictures']
        self.splits = list(self._splits)

    def __len__(self):
        return len(self._sizes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._file.close()

    @property
    def labelled(self):
        """True for a classification set (one class a picture), False for a detection set (boxes)."""
        return self._labels is not None

    def indices(self, split):
        """Picture numbers of `split`; 'all' is every picture, whether or not a split holds it."""
        if split == 'all':
            return np.arange(len(self))
        if split not in self._splits:
            raise DataError(f'{self.path} has no split "{split}"{nearest(split, self.splits)} (it has {", ".join(self.splits) or "none"}, and "all")')
        return self._splits[split]

    def name(self, i):
        return self._names[i]

    def size(self, i):
        """Height and width in pixels."""
        return int(self._sizes[i, 0]), int(self._sizes[i, 1])

    def boxes(self, i):
        """(k, 5) float64: class, centre x, centre y, width, height as fractions of the picture."""
        return self._boxes[self._offsets[i]:self._offsets[i + 1]]

    def uncounted(self, i):
        """(k, 6): such rows, and 1 (difficult) or 2 (a crowd), of boxes that nobody must find and that may be found."""
        return self._uncounted[self._uncounted[:, 0] == i, 1:]

    def label(self, i):
        """The class number of picture i. Raises DataError in a detection set."""
        if self._labels is None:
            raise DataError(f'{self.path} holds boxes, not one class a picture, which a classifier needs')
        return int(self._labels[i])

    def read(self, i, y0, y1, x0, x1):
        """uint8 (y1 - y0, x1 - x0, 3): rows y0 to y1 and columns x0 to x1, which must lie inside the picture."""
        try:
            return self._pixels[i, y0:y1, x0:x1]
        except DAMAGED as error:
            raise DataError(f'{self.path}: picture {self.name(i)} cannot be read: {reason(error)}') from error


class Loose:
    """Pictures in memory with the reading half of `Pictures`: what to detect on, with nothing known about them."""

    def __init__(self, arrays):
        self._arrays = list(arrays)

    def __len__(self):
        return len(self._arrays)

    def size(self, i):
        return self._arrays[i].shape[:2]

    def read(self, i, y0, y1, x0, x1):
        return np.ascontiguousarray(self._arrays[i][y0:y1, x0:x1])


@contextmanager
def writing(path, classes, shape, labelled=False):
    """A Writer of a new file, which appears as `path` when the block has ended well, and not at all otherwise. Raises JobError where it cannot be written.

    `shape` (Hmax, Wmax) bounds every picture; `labelled` chooses between one class a picture and boxes.
    """
    with new_hdf5(path) as file:
        file['classes'] = fixed(classes)
        h, w = shape
        pixels = file.create_dataset('pictures', (0, h, w, 3), np.uint8, maxshape=(None, h, w, 3), chunks=(1, _chunk(h), _chunk(w), 3))
        writer = Writer(file, pixels, labelled)
        yield writer
        writer.tables()


class Writer:
    """Appends pictures to a file that `writing` made. `splits` {name: picture numbers} and `attributes` may be set until its end."""

    def __init__(self, file, pixels, labelled):
        self._file, self._pixels = file, pixels
        self._names, self._sizes, self._boxes, self._uncounted, self._labels = [], [], [], [], [] if labelled else None
        self.splits, self.attributes = {}, {}

    def add(self, name, pixels, boxes=(), label=None, uncounted=()):
        """Appends one picture, uint8 (h, w, 3), with its (k, 5) boxes and (k, 6) uncounted ones, or its class number; returns its number."""
        number = len(self._names)
        self._names.append(name)
        self._sizes.append(pixels.shape[:2])
        self._boxes.append(np.reshape(np.asarray(boxes, np.float64), (-1, 5)))
        self._uncounted += [(number, *row) for row in uncounted]
        if self._labels is not None:
            self._labels.append(label)
        if number >= self._pixels.shape[0]:
            self._pixels.resize(number + 256, axis=0)
        self._pixels[number, :pixels.shape[0], :pixels.shape[1]] = pixels
        return number

    def tables(self):
        """Writes everything but the pixels."""
        file, count = self._file, len(self._names)
        self._pixels.resize(count, axis=0)
        file['sizes'] = np.array(self._sizes, np.int32).reshape(-1, 2)
        file['names'] = fixed(self._names)
        file['offsets'] = np.cumsum([0] + [len(b) for b in self._boxes], dtype=np.int64)
        file['boxes'] = np.concatenate(self._boxes) if count else np.empty((0, 5))
        file['uncounted'] = np.reshape(np.array(self._uncounted, np.float64), (-1, 7))
        if self._labels is not None:
            file['labels'] = np.array(self._labels, np.int32)
        group = file.create_group('splits', track_order=True)
        for name, numbers in self.splits.items():
            group[name] = np.array(numbers, np.int64)
        for name, value in dict(format=FORMAT, version=VERSION, **self.attributes).items():
            file.attrs[name] = fixed([value]).reshape(()) if isinstance(value, str) else value


def load_picture(path, size=None):
    """uint8 (h, w, 3) of a picture file or open binary file, upright (EXIF), resized to `size` (w, h) if given. Raises DataError when it cannot be
    decoded, or holds more than 8 bits a channel."""
    from PIL import Image, ImageOps
    with _picture(path) as image:
        if image.mode[0] in 'IF':
            raise DataError(f'{_file(path)}: pixels of mode {image.mode}, expected 8 bits a channel')
        image = ImageOps.exif_transpose(image).convert('RGB')
        if size is not None and image.size != tuple(size):
            image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image)


def picture_size(path):
    """(h, w) of a picture file when upright, from its header alone. Raises DataError as `load_picture`."""
    with _picture(path) as image:
        w, h = image.size
        return (w, h) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (h, w)


@contextmanager
def _picture(path):
    """The opened file, of PIL."""
    from PIL import Image, UnidentifiedImageError
    Image.MAX_IMAGE_PIXELS = None            # large aerial pictures are what tiles are for
    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError:
        raise DataError(f'{_file(path)}: not a picture this program can read') from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f'{_file(path)}: cannot be decoded: {reason(error)}') from error


def _chunk(length):
    """The side of a chunk: `length` in equal pieces of at most CHUNK."""
    return -(-length // -(-length // CHUNK))


def _open(path):
    import h5py
    if not os.path.exists(path):
        raise DataError(f'{path} does not exist')
    if not os.path.isfile(path) or not h5py.is_hdf5(path):
        raise DataError(f'{path} is not an HDF5 file; make one with "mpi-ftp convert"')
    try:
        # Readers never lock: the file may lie on NFS, and a finished file is never written again
        file = h5py.File(path, 'r', locking=False)
        found, version = plain(file.attrs.get('format')), file.attrs.get('version')
    except DAMAGED as error:
        raise DataError(f'{path} cannot be opened: {reason(error)}') from error
    if found == FORMAT and version == VERSION:
        small = file.id.get_mdc_config()         # each node of the chunks' index takes ten times what HDF5 counts: 2 MiB become 20
        small.set_initial_size, small.initial_size, small.min_size, small.max_size = True, INDEX_BYTES, INDEX_BYTES, INDEX_BYTES
        file.id.set_mdc_config(small)
        return file
    file.close()
    if found == FORMAT:
        raise DataError(f'{path} has format version {version}, this program reads {VERSION}; convert it again')
    raise DataError(f'{path} was not written by "mpi-ftp convert"')


def _file(path):
    return path if isinstance(path, (str, os.PathLike)) else getattr(path, 'name', 'picture')
