"""Files that appear whole or not at all."""
import os
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path):
    """A temporary path beside `path`; when the block ends well it is flushed to the disk and renamed to `path`.

    A reader finds the old file or the new one, never a piece; when the block raises, the old file stays.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)          # the rename itself must reach the disk too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
