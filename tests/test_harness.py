"""The MPI harness itself: an inner pytest over tests that fail, hang, crash or pass on one rank only."""
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

HERE = Path(__file__).parent
HEAD = 'import os, time, pytest\nfrom mpi4py import MPI\nworld = MPI.COMM_WORLD\n'


def run(folder, text, *options):
    """Exit code, output and seconds of a pytest over a file of tests in a tree with this harness."""
    for part in ('tests', 'jobs'):
        (folder / part).mkdir()
    for name in ('conftest.py', 'mpi_run.py'):
        shutil.copy(HERE / name, folder / 'tests')
    shutil.copy(HERE.parent / 'jobs' / 'mpi.env.sh', folder / 'jobs')
    (folder / 'tests' / 'test_inner.py').write_text(HEAD + textwrap.dedent(text))
    (folder / 'pytest.ini').write_text('[pytest]\n')
    began = time.monotonic()
    done = subprocess.run([sys.executable, '-m', 'pytest', '-v', '--color=no', '-p', 'no:cacheprovider', *options],
                          cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def outcomes(output):
    return dict(re.findall(r'^tests/test_inner.py::(\S+) (\w+)', output, re.M))


def test_pass_share_and_skip(tmp_path):
    code, output, seconds = run(tmp_path, '''
        def test_plain():
            assert world.size == 1

        @pytest.mark.mpi(1, 2, 3)
        def test_size(mpi_ranks):
            assert world.size == mpi_ranks

        @pytest.mark.mpi(3)
        @pytest.mark.parametrize('letter', 'ab')
        def test_shared_folder(tmp_path, letter):
            if world.rank == 2:
                (tmp_path / letter).write_text('x')
            world.Barrier()
            assert [p.name for p in tmp_path.iterdir()] == [letter]

        @pytest.mark.mpi(2)
        def test_skip():
            pytest.skip('not today')
        ''')
    assert code == 0, output
    assert outcomes(output) == {'test_plain': 'PASSED', 'test_size[np1]': 'PASSED', 'test_size[np2]': 'PASSED', 'test_size[np3]': 'PASSED',
                                'test_shared_folder[np3-a]': 'PASSED', 'test_shared_folder[np3-b]': 'PASSED', 'test_skip[np2]': 'SKIPPED'}


def test_failures_are_told_and_the_rest_goes_on(tmp_path):
    code, output, seconds = run(tmp_path, '''
        @pytest.mark.mpi(3)
        def test_one_rank_fails():
            assert world.rank != 1, 'this is rank one'

        @pytest.mark.mpi(3)
        def test_one_rank_fails_while_others_wait():
            if world.rank == 2:
                raise ValueError('two is gone')
            world.Barrier()

        @pytest.mark.mpi(3)
        def test_all_fail():
            print('some output')
            assert False

        @pytest.mark.mpi(3)
        def test_crash():
            if world.rank == 1:
                os.abort()
            world.Barrier()

        @pytest.mark.mpi(3)
        def test_ranks_disagree():
            if world.rank == 1:
                pytest.skip('only here')

        @pytest.mark.mpi(3, timeout=2)
        def test_deadlock():
            if world.rank == 1:
                world.recv(source=0)
            world.Barrier()

        @pytest.mark.xfail(strict=True)
        @pytest.mark.mpi(3)
        def test_expected_failure():
            assert world.size == 2

        @pytest.mark.mpi(3)
        def test_good():
            assert world.allreduce(1) == 3
        ''')
    assert code == 1, output
    bad = ['one_rank_fails', 'one_rank_fails_while_others_wait', 'all_fail', 'crash', 'ranks_disagree', 'deadlock']
    assert outcomes(output) == {**{f'test_{name}[np3]': 'FAILED' for name in bad}, 'test_expected_failure[np3]': 'XFAIL',
                                'test_good[np3]': 'PASSED'}
    for piece in ('this is rank one', 'failed on rank 1 of 3', 'two is gone', 'failed on rank 2 of 3', 'failed on ranks 0, 1, 2 of 3',
                  'some output', 'ended with exit code', 'ranks disagree', 'hung: killed after 2 s with 3 ranks', 'in test_deadlock'):
        assert piece in output, (piece, output)
    assert seconds < 60


def test_stop_at_first_failure(tmp_path):
    code, output, _ = run(tmp_path, '''
        @pytest.mark.mpi(2)
        def test_a():
            assert False

        @pytest.mark.mpi(2)
        def test_b():
            pass
        ''', '-x')
    assert code == 1 and outcomes(output) == {'test_a[np2]': 'FAILED'}


def test_broken_file_is_an_error(tmp_path):
    code, output, _ = run(tmp_path, 'import no_such_module\n')
    assert code not in (0, 1, 5) and 'no_such_module' in output
