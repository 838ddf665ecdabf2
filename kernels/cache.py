"""Compiled kernels on disk: one file for each function, dtype and CPU, named by a hash of all that went into it.

Numba's own cache does not see a change in the code that writes the vector instructions, keeps an index that concurrent
processes overwrite, and wants a writable source directory. Here a file is complete or counts for nothing, as the digest at its
end tells, and its name says whether it fits, so any number of processes may share a directory.
"""
import functools
import hashlib
import os
import pickle
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from .simd import target, tile

# files whose code ends up in other files' kernels
GENERATORS = ('simd.py', 'micro.py', 'transform.py', 'activations.py', 'maxima.py', 'jit.py', 'direct.py', 'winograd_tiles.py', 'threads.py',
              'naive_elementwise.py')
CONVOLUTIONS = (*GENERATORS, 'convolution.py', 'winograd.py', 'winograd_loops.py', 'native.py', 'phases.py', 'caches.py', 'grouped.py', 'depthwise.py')
DIGEST_BYTES = hashlib.blake2b().digest_size
KEPT_SECONDS = 2 * 86400                                         # a replaced file is deleted when it is older than this


class DiskCache(NullCache):
    """What numba's dispatchers expect of a cache, for one function compiled for one signature.

    Made when the function is defined: a source file that is edited later must not name the code of this process.
    """

    def __init__(self, function, label):
        source = Path(function.__code__.co_filename)
        self.prefix = f'{source.stem}.{function.__qualname__}-{label}-'
        self.name = self.prefix + _hash(source, function.__module__)

    @property
    def path(self):
        return directory() / self.name

    def load_overload(self, signature, target_context):
        target_context.refresh()
        code = _read(self.path)
        if code is None:
            return None
        result = CompileResult._rebuild(target_context, *pickle.loads(code))
        module = getattr(result.library, '_shared_module', None)
        if module is not None:                                  # for linking into functions that call this one: there are none
            module.close()
            result.library._shared_module = None
        return result

    def save_overload(self, signature, result):
        path, code = self.path, dumps(result._reduce())
        with suppress(OSError):                                 # a full disk, a directory that is gone: this process has its code
            _write(path, code, self.prefix)
            for old in path.parent.glob(self.prefix + '*'):
                with suppress(OSError):                         # another process may be faster
                    if old != path and time.time() - old.stat().st_mtime > KEPT_SECONDS:
                        old.unlink()


def _read(path):
    """What was written to this file; None unless all of it is there."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    code, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    return code if hashlib.blake2b(code).digest() == digest else None


def _write(path, code, prefix):
    """At once or not at all. What a process that is killed leaves begins with `prefix`, so that it is cleaned up with the old files."""
    file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=prefix, delete=False)
    try:
        with file:
            file.write(code + hashlib.blake2b(code).digest())        # not waiting for the disk: after a crash the digest tells what is missing
        os.replace(file.name, path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


@functools.cache
def directory():
    """Where this CPU's files are: in $MPI_FTP_CACHE, or the user's cache directory, or, if that cannot be written, a
    temporary directory that is the user's own."""
    _, cpu, features = target()
    name = f'{cpu}-{tile().name}-' + hashlib.sha256(features.encode()).hexdigest()[:8]
    user = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    shared = Path(tempfile.gettempdir(), f'mpi_ftp-{os.getuid()}')
    for root in (os.environ.get('MPI_FTP_CACHE'), os.path.join(user, 'mpi_ftp'), shared):
        if not root or str(root).startswith('~'):           # nobody says where this user's home is
            continue
        root, path = Path(root), Path(root, name)
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
            if _ours(path) and (root != shared or _ours(root)):
                return path
        except OSError:
            continue
    raise OSError('no directory for compiled kernels can be written: set MPI_FTP_CACHE')


def _ours(path):
    """Whether nobody else can put files there: they are code."""
    found = path.lstat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


@functools.cache
def _hash(source, module):
    """module: what is stored is imported again under this name."""
    digest = hashlib.sha256(f'{numba.__version__} {sys.version} {module}'.encode())
    for path in [source] + [source.with_name(name) for name in GENERATORS]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def convolution_hash():
    """Of all code that computes convolutions: what was measured with other code does not count."""
    here = Path(__file__)
    digest = hashlib.sha256()
    for name in CONVOLUTIONS:
        digest.update(here.with_name(name).read_bytes())
    return digest.hexdigest()[:16]
