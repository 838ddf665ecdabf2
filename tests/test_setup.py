"""jobs/setup.sh sourced by a shell that somebody types in, over a tree whose .venv is already there."""
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tree(tmp_path):
    (tmp_path / 'jobs').mkdir()
    (tmp_path / '.venv/bin').mkdir(parents=True)
    for name in 'jobs/setup.sh', 'jobs/mpi.env.sh', 'setup.cfg', 'pyproject.toml':
        shutil.copy(ROOT / name, tmp_path / name)
    for name, does in ('python', f'exec {sys.executable} "$@"'), ('mpirun', 'cat >/dev/null\nshift 2\nexec "$@"'):      # reads what is typed, as mpirun does
        (tmp_path / '.venv/bin' / name).write_text(f'#!/bin/sh\n{does}\n')
        (tmp_path / '.venv/bin' / name).chmod(0o755)
    read = b''.join((tmp_path / name).read_bytes() for name in ('setup.cfg', 'pyproject.toml'))
    (tmp_path / '.venv/stamp').write_text(hashlib.sha256(read + f'{tmp_path} openmpi\n'.encode()).hexdigest() + '  -\n')
    return tmp_path


def typed(tree, *lines):
    """Standard output and error of an interactive shell in `tree`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(('OMPI_', 'PMIX_', 'PRTE_')) and name not in ('MPI', 'MPIRUN')}
    done = subprocess.run(['bash', '--norc', '--noprofile', '-i'], cwd=tree, input='\n'.join(lines) + '\n', capture_output=True, text=True,
                          timeout=60, env=clean, start_new_session=True)
    return done.stdout, done.stderr


def test_the_shell_keeps_its_options_and_survives_a_failing_command(tree):
    told, errors = typed(tree, 'before=$-', '. jobs/setup.sh', 'false', 'echo "$unset_variable"', '[ "$before" = $- ] && echo same options',
                         'command -v mpirun', 'echo $OMP_NUM_THREADS')
    assert told.split('\n')[-4:-1] == ['same options', f'{tree}/.venv/bin/mpirun', '1'], errors


def test_a_refusal_leaves_the_shell_open(tree):
    told, errors = typed(tree, 'MPI=nonsense . jobs/setup.sh', 'echo "code $?"')
    assert told == 'code 1\n'
    assert 'setup: MPI=nonsense: expected openmpi, mpich or system' in errors


MPIRUN = '''#!/bin/bash
set -o pipefail
case "$1" in
--version) echo "mpirun (Open MPI) 5.0" && seq 100000 || exit 141 ;;
--hostfile) echo "started with $*" ;;
*) shift 2 && exec "$@" ;;
esac
'''


def test_a_cluster_is_counted_and_its_mpi_known(tree):
    shutil.copy(ROOT / 'jobs/cluster.sh', tree / 'jobs')
    (tree / '.venv/bin/mpirun').write_text(MPIRUN)
    (tree / 'hosts').write_text('# boards\npi1 max_slots=4 slots=2\npi2 slots=3 max-slots=8\npi3\n')
    (tree / 'job.toml').write_text('')
    done = subprocess.run(['bash', 'jobs/cluster.sh', 'hosts', 'job.toml'], cwd=tree, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and '== 6 ranks on 3 machines' in done.stdout and f'started with --hostfile {tree}/hosts' in done.stdout, done.stderr


def test_a_file_system_without_locks_is_told(tree):
    (tree / '.venv/bin/flock').write_text('#!/bin/sh\nexit 1\n')
    (tree / '.venv/bin/flock').chmod(0o755)
    done = subprocess.run(['bash', 'jobs/setup.sh'], cwd=tree, capture_output=True, text=True, timeout=60, env={**os.environ, 'PATH': f'{tree}/.venv/bin:{os.environ["PATH"]}'})
    assert done.returncode == 0 and 'has no locks' in done.stderr


@pytest.mark.parametrize('words, folder', [('', 'runs/a'), ('--run b', 'b'), ('--run=b --iterations 3 --run "c d"', 'c d'), ('--runs b', 'runs/a')])
def test_scripts_look_for_the_end_of_a_run_where_its_options_put_it(words, folder):
    text = (ROOT / 'jobs/setup.sh').read_text()
    function = text[text.index('run_folder() {'):text.index('find_python() {')]
    done = subprocess.run(['bash', '-euc', f'{function}\nrun_folder runs/a {words}'], capture_output=True, text=True, timeout=60)
    assert done.stdout == folder + '\n' and not done.stderr
