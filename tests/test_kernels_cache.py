"""The disk cache of compiled kernels: loaded when it fits, renewed when a generator changes, shared, never in the source tree."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import mpi_ftp
from mpi_ftp import kernels
from mpi_ftp.kernels import cache, copies, jit

CODE = '''
import numpy as np
from mpi_ftp import kernels
view = np.arange(96, dtype=np.float32).reshape(1, 1, 2, 3, 16)
buffer = np.empty(96, np.float32)
kernels.move((buffer, view))
assert (buffer == view.ravel()).all()
'''


@pytest.fixture
def install(tmp_path):
    """A copy of the package, and the environment that uses it with a cache of its own."""
    target = tmp_path / 'site' / 'mpi_ftp'
    target.mkdir(parents=True)
    shutil.copy(mpi_ftp.__file__, target)
    shutil.copytree(Path(kernels.__file__).parent, target / 'kernels', ignore=shutil.ignore_patterns('__pycache__'))
    environment = {**os.environ, 'PYTHONPATH': str(target.parent), 'MPI_FTP_CACHE': str(tmp_path / 'cache'),
                   'PYTHONDONTWRITEBYTECODE': '1', 'XDG_CACHE_HOME': str(tmp_path / 'user'), 'TMPDIR': str(tmp_path)}
    return target, environment, tmp_path


def start(environment):
    return subprocess.Popen([sys.executable, '-c', CODE], env=environment, cwd=environment['TMPDIR'], stderr=subprocess.PIPE, text=True)


def finish(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def packs(place):
    return {path: path.stat().st_mtime_ns for path in place.rglob('copies._move-float32-*')}


def test_cache(install):
    target, environment, tmp_path = install
    cache = tmp_path / 'cache'
    finish(*[start(environment) for _ in range(3)])             # three at once
    first = packs(cache)
    assert len(first) == 1
    finish(start(environment))
    assert packs(cache) == first                                # loaded, not compiled again

    with open(target / 'kernels' / 'micro.py', 'a') as source:
        source.write('# changed\n')
    finish(start(environment))
    assert len(packs(cache)) == 2                               # a generator of instructions changed

    for path in target.rglob('*'):
        path.chmod(0o555 if path.is_dir() else 0o444)
    shutil.rmtree(cache)
    finish(start(environment))
    assert len(packs(cache)) == 1 and not list(target.rglob('*.nbi'))


def test_cache_without_a_writable_choice(install):
    """The next place is taken when one cannot be a directory."""
    _, environment, tmp_path = install
    (tmp_path / 'file').write_text('')
    environment['MPI_FTP_CACHE'] = str(tmp_path / 'file')
    finish(start(environment))
    assert len(packs(tmp_path / 'user' / 'mpi_ftp')) == 1
    environment['XDG_CACHE_HOME'] = str(tmp_path / 'file')
    finish(start(environment))
    assert len(packs(tmp_path / f'mpi_ftp-{os.getuid()}')) == 1


@pytest.fixture
def place(monkeypatch, tmp_path):
    """The directory of compiled kernels, empty."""
    monkeypatch.setattr(cache, 'directory', lambda: tmp_path)
    return tmp_path


def add_anew():
    """Use a kernel as a new process does; whether it was loaded."""
    kernel = jit.Kernel(copies._add.function, copies._add.words, ['float32'])
    one, two = np.ones((1, 1, 2, 3, 16), np.float32), np.zeros((1, 1, 2, 3, 16), np.float32)
    kernel(two, one)
    assert two.all()
    return bool(kernel.compiled['float32'].stats.cache_hits)


def test_a_damaged_file_is_replaced(place):
    assert not add_anew() and add_anew()
    file, = place.iterdir()
    whole = file.read_bytes()
    for damaged in (b'', whole[:10], whole[:-1], whole[:-100], whole[:200] + b'?' + whole[201:], bytes(len(whole))):
        file.write_bytes(damaged)
        assert not add_anew() and add_anew()
    assert list(place.iterdir()) == [file]


def test_a_full_disk_costs_the_file_only(place, monkeypatch):
    def full(*arguments):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', full)
    assert not add_anew() and not list(place.iterdir())


def test_a_directory_that_is_gone_costs_the_file_only(place):
    place.rmdir()
    assert not add_anew() and not place.exists()


def test_old_files_go_though_another_process_is_faster(place):
    add_anew()
    kept, = place.iterdir()
    for name in 'abcde':
        (place / (kept.name[:-16] + name)).write_bytes(b'')
        os.utime(place / (kept.name[:-16] + name), (0, 0))
    for name in 'vwxyz':                                        # listed, but not to be found: as if deleted meanwhile
        (place / (kept.name[:-16] + name)).symlink_to(place / 'nothing')
    kept.unlink()
    add_anew()
    assert [path for path in place.iterdir() if path.exists()] == [kept]


def test_what_a_killed_process_was_writing_goes(place, monkeypatch):
    written, finish = [], os.replace
    monkeypatch.setattr(os, 'replace', lambda *names: written.extend(place.iterdir()) or finish(*names))
    add_anew()
    (kept,), (left,) = place.iterdir(), written
    left.write_bytes(b'')
    os.utime(left, (0, 0))
    kept.unlink()
    add_anew()
    assert list(place.iterdir()) == [kept]


@pytest.fixture
def shared(monkeypatch, tmp_path):
    """The root of the last choice, in a directory where anybody may write; there is no other choice."""
    monkeypatch.delenv('MPI_FTP_CACHE', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', '/dev/null')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    return tmp_path / f'mpi_ftp-{os.getuid()}'


def test_the_last_choice_is_made_for_nobody_else(shared):
    leaf = cache.directory.__wrapped__()
    assert leaf.parent == shared and [path.stat().st_mode & 0o777 for path in (shared, leaf)] == [0o700, 0o700]
    assert cache.directory.__wrapped__() == leaf


@pytest.mark.parametrize('plant', [
    lambda root: root.mkdir() or root.chmod(0o777),
    lambda root: root.mkdir() or root.chmod(0o770),
    lambda root: root.with_name('elsewhere').mkdir(mode=0o700) or root.symlink_to(root.with_name('elsewhere')),
    pytest.param(lambda root: root.mkdir(mode=0o700) or os.chown(root, 12345, 12345), marks=pytest.mark.skipif(os.getuid() != 0, reason='only root gives files away')),
    lambda root: cache.directory.__wrapped__().chmod(0o777)], ids=['open', 'group', 'link', 'foreign', 'leaf'])
def test_what_others_may_write_is_not_trusted(shared, plant):
    plant(shared)
    with pytest.raises(OSError, match='set MPI_FTP_CACHE'):
        cache.directory.__wrapped__()


def test_a_user_without_a_home(shared, monkeypatch, tmp_path):
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert cache.directory.__wrapped__().parent == shared and list(tmp_path.iterdir()) == [shared]


def test_load_reports_progress():
    seen = []
    kernels.load('float64', lambda done, total: seen.append((done, total)))
    assert seen and seen[-1][0] == seen[-1][1] == len(seen)


def test_whatever_computes_convolutions_renews_their_times():
    import ast
    found, left, folder = {'cache', 'layout', 'naive', 'prepared', 'team'}, ['convolution'], Path(kernels.__file__).parent       # these tell no algorithm from another
    for module in left:
        for node in ast.walk(ast.parse((folder / f'{module}.py').read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names = {node.module} if node.module else {each.name for each in node.names if (folder / f'{each.name}.py').exists()}
                left += names - found
                found |= names
    assert 'caches' in left and not {f'{module}.py' for module in left} - set(cache.CONVOLUTIONS)


def test_whatever_ends_up_in_other_files_kernels_renews_them():
    """Functions that numba compiles with their caller, or that write instructions, and come from another file."""
    import ast
    import importlib

    from numba.core.dispatcher import Dispatcher

    from mpi_ftp.kernels.cache import GENERATORS
    found = set()
    for path in Path(kernels.__file__).parent.glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module and path.name != '__init__.py':
                module = importlib.import_module(f'mpi_ftp.kernels.{node.module}')
                if any(isinstance(getattr(module, each.name), Dispatcher) or each.name.startswith('emit') or node.module == 'maxima' for each in node.names):
                    found.add(f'{node.module}.py')
    assert 'naive_elementwise.py' in found and not found - set(GENERATORS), f'not in GENERATORS: {found - set(GENERATORS)}'
