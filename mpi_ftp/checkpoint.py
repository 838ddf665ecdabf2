"""Checkpoints: all tensors and everything a run needs to go on, in one HDF5 file that does not depend on the number of ranks.

/tensors/NAME is a plain array (a name may contain /), /meta/KEY a JSON text. Knows no network and no ranks: whoever saves hands over
pieces of tensors as they arrive, whoever reads asks for rows of a tensor.
"""
import json
from pathlib import Path

import numpy as np

from .errors import WeightsError
from .files import DAMAGED, new_hdf5, reason

FORMAT = 1


def versions():
    """Versions of what computed the numbers, for the record."""
    import platform

    import h5py
    import numpy

    from mpi_ftp import __version__
    return {'mpi_ftp': __version__, 'python': platform.python_version(), 'numpy': numpy.__version__, 'h5py': h5py.__version__}


def save(path, tensors, meta):
    """Write a checkpoint that replaces `path` once it is complete on the disk.

    tensors: iterable of (name, shape, pieces), where pieces yields (first row, rows) in any order and covers each row once (ValueError if
    not); only one piece is held at a time. meta: JSON-able values by name (job, plan, cfg, iteration, seen, loader, seed, …).
    """
    with new_hdf5(path) as file:
        group = file.create_group('tensors')
        for name, shape, pieces in tensors:
            written = 0
            for first, rows in pieces:
                if not written:
                    dataset = group.create_dataset(name, shape, rows.dtype)
                dataset[first:first + len(rows)] = rows
                written += len(rows)
            if written != shape[0]:
                raise ValueError(f'{name} of shape {shape} came with {written} rows')
        for key, value in {**meta, 'format': FORMAT, 'versions': versions()}.items():
            # of a fixed length, see files.fixed
            file.create_dataset(f'meta/{key}', data=np.bytes_(json.dumps(value, default=as_json)))


def as_json(value):
    """What json cannot write by itself: paths and numpy's numbers."""
    return str(value) if isinstance(value, Path) else value.item()


class Checkpoint:
    """A checkpoint opened for reading; use it in a `with` block, or close() it.

    meta: the dict that was saved. Raises WeightsError when the file is missing, broken or from a newer program.
    """

    def __init__(self, path):
        import h5py
        self.path, self.shapes = path, {}
        try:
            # nobody writes into a finished checkpoint, so no locks: they fail on network file systems
            self.file = h5py.File(path, 'r', locking=False)
        except FileNotFoundError:
            raise WeightsError(f'the checkpoint {path} does not exist') from None
        except OSError as error:
            raise WeightsError(f'{path} is not a readable checkpoint: {reason(error)}') from None
        try:
            self.meta = {key: json.loads(text[()]) for key, text in self.file['meta'].items()}
            newer = self.meta.get('format', 0) > FORMAT
            self.file['tensors'].visititems(self._tensor)
        except DAMAGED as error:
            self.close()
            raise WeightsError(f'{path} is an HDF5 file but no checkpoint of mpi_ftp, or damaged: {reason(error)}') from None
        if newer:
            self.close()
            raise WeightsError(f'{path} has checkpoint format {self.meta["format"]}; this program reads up to {FORMAT}, use a newer one')

    def _tensor(self, name, node):
        """Note the shape of an array of numbers."""
        if getattr(node, 'dtype', None) is not None and node.dtype.kind == 'f':
            self.shapes[name] = node.shape

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self.file.close()

    def __contains__(self, name):
        return name in self.shapes

    def read(self, name, first=None, last=None):
        """Rows [first, last) of a tensor's first axis; only these are read from the disk. WeightsError if there is no such tensor."""
        if name not in self.shapes:
            raise WeightsError(f'the checkpoint {self.path} has no tensor "{name}"; was it made with another network?')
        try:
            tensor = self.file['tensors'][name]
            return tensor[first:last] if tensor.shape else tensor[()]
        except DAMAGED as error:
            raise WeightsError(f'{self.path}: tensor "{name}" cannot be read: {reason(error)}') from None
