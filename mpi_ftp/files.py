"""Files that appear whole or not at all, and output streams that may break."""
import errno
import io
import os
import re
import signal
import sys
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import JobError

DAMAGED = OSError, RuntimeError, KeyError, IndexError, ValueError, TypeError, AttributeError         # what h5py raises inside files with wrong bytes
UNREADABLE = OSError, ValueError, TypeError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error        # what numpy.load raises for files that are no arrays


def reason(error):
    """Why a file could not be opened, read or written, on one line: HDF5 tells it with the names of its variables."""
    text = ' '.join(str(error).split())
    cut = re.search(r'truncated file: eof = (\d+),.* stored_eof = (\d+)', text)
    if cut:
        return f'it is cut short, {cut[1]} of {cut[2]} bytes are there'
    return os.strerror(error.errno) if getattr(error, 'errno', None) else text


class Lasting:
    """An output stream that outlives its reader: what is written after `| head` has read enough, or after the terminal is gone, is lost, the work goes on.

    refused: the OSError where something else, such as a full disk, kept it from being written; it is for the end of the work to tell.
    """

    def __init__(self, stream):
        self.stream, self.refused = stream, None

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        return self.attempt(self.stream.write, text)

    def flush(self):
        self.attempt(self.stream.flush)

    def attempt(self, act, *args):
        try:
            return act(*args)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                self.refused = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def lasting_streams():
    """Make standard output and error such streams; those that were closed at the start (`>&-`) lead nowhere. A terminal that goes says so by a signal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name in 'stdout', 'stderr':
        stream = getattr(sys, name) or open(os.devnull, 'w')
        stream.reconfigure(errors='surrogateescape')            # names of files may be of any bytes
        setattr(sys, name, Lasting(stream))


def check_writable(path):
    """Raise JobError where `path` cannot be written, before the work whose outcome it is to hold."""
    path = Path(path)
    wrong = (errno.EISDIR if path.is_dir() else errno.ENOENT if not path.parent.exists() else errno.ENOTDIR if not path.parent.is_dir() else
             errno.EACCES if not os.access(path.parent, os.W_OK | os.X_OK) else None)
    if wrong:
        raise JobError(f'cannot write {path}: {os.strerror(wrong)}')


def check_apart(path, *inputs):
    """Raise JobError where `path`, which is to be written, is one of the files that are read."""
    for other in inputs:
        if os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other):
            raise JobError(f'cannot write {path}: it is also what is read; expected another file')


@contextmanager
def replacing(path):
    """A temporary path beside `path`; when the block ends well it is flushed to the disk and renamed to `path`.

    A reader finds the old file or the new one, never a piece; when the block raises, the old file stays.
    Raises JobError when the system does not let it be written (no such folder, no permission, disk full).
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')         # see `remains`
    try:
        yield temporary
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise JobError(f'cannot write {path}: {reason(error)}') from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)          # the rename itself must reach the disk too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Sink(io.FileIO):
    """A new file for HDF5, which after a write that failed raises all kinds of errors and crashes when its file is closed, or the program ends: so it is
    told that all went well. refused: the OSError, after which nothing is written."""
    refused = None

    def write(self, data):
        rest = memoryview(data).cast('B')
        while len(rest) and not self.refused:
            rest = rest[self.attempt(super().write, rest) or 0:]
        return len(data)

    def truncate(self, size=None):
        return self.attempt(super().truncate, size)

    def attempt(self, act, *args):
        try:
            return None if self.refused else act(*args)
        except OSError as error:
            self.refused = error


@contextmanager
def new_hdf5(path):
    """A new HDF5 file, opened, that replaces `path` when the block ends well. Raises JobError as `replacing`."""
    import h5py
    with replacing(path) as temporary, Sink(temporary, 'w+') as sink:
        try:
            with h5py.File(sink, 'w') as file:
                yield file
        finally:
            if sink.refused:
                raise sink.refused


def fixed(texts):
    """Texts as an array for HDF5, UTF-8 of a fixed length (names of files may be of any bytes). Those of any length lie in a heap of HDF5's, in which it goes
    round for ever where a block of the file is lost."""
    import h5py
    import numpy as np
    kept = [text.encode(errors='surrogateescape') for text in texts]
    return np.array(kept, h5py.string_dtype(length=max(map(len, kept), default=0) or 1))


def texts(array):
    """What `fixed` keeps, or texts of any length in files of earlier versions, as a list."""
    return [plain(value) for value in array[:]]


def plain(value):
    """A value as HDF5 gives it, which is bytes where it is a text."""
    return value.decode(errors='surrogateescape') if isinstance(value, bytes) else value


def remains(folder):
    """Remove from a folder that nobody else writes what `replacing` left there when its process was killed."""
    for path in Path(folder).glob('.*.[0-9]*.tmp'):
        path.unlink(missing_ok=True)
