"""The command line as a process: what it prints, what it exits with, alone and under mpirun."""
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpi_run import under_mpirun
from mpi_ftp import __main__ as main
from mpi_ftp.errors import UsageError

ROOT = Path(__file__).parent.parent
VERB = '''
import sys, time, types
from mpi_ftp import __main__ as main, comm
from mpi_ftp.errors import DataError

def run(args):
    world = comm.world()
    if args.what == 'refuse-all':
        raise DataError('the data are gone')
    if args.what == 'refuse-late' and world.rank in (1, 2):
        time.sleep(.1 * (3 - world.rank))
        raise DataError(f'the data of rank {world.rank} are gone')
    if args.what == 'crash' and world.rank == 1:
        raise ZeroDivisionError('no number')
    if args.what == 'crash-all':
        raise ZeroDivisionError('no number')
    if args.what == 'full' and world.rank == 0:
        raise OSError(28, 'No space left on device')
    if args.what == 'ranks':
        comm.world(17)
    if args.what != 'fine':
        world.barrier()

sys.modules['mpi_ftp.fake'] = types.SimpleNamespace(add_arguments=lambda parser: parser.add_argument('what'), run=run)
main.VERBS['fake'] = ('fake', 'a verb of this test')
main.main()
'''


def launch(tmp_path, ranks, *words):
    """Exit code, lines of the program on stderr, seconds of the fake verb under mpirun."""
    script = tmp_path / 'verb.py'
    script.write_text(VERB)
    command = under_mpirun(ranks, sys.executable, str(script), *words)
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, re.findall(r'^ ?(mpi-ftp: .*)', done.stderr, re.M), time.monotonic() - began, done.stderr


def alone(*words):
    done = subprocess.run([sys.executable, '-m', 'mpi_ftp', *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_help_lists_every_verb_without_importing_one():
    code, out, _ = alone('--help')
    assert code == 0 and all(f'  {verb} ' in out for verb in main.VERBS)
    probe = 'import sys, mpi_ftp.__main__ as m\ntry: m.main(["--help"])\nexcept SystemExit: pass\nprint(sorted({"numpy", "numba", "mpi4py", "h5py"} & set(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', probe], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == '[]'


def test_version_and_nothing():
    assert re.fullmatch(r'mpi-ftp \d+\.\d+\.\d+\n', alone('--version')[1])
    assert alone()[0] == 2


@pytest.mark.parametrize('words, message', [
    (['trian'], 'mpi-ftp: unknown verb "trian", did you mean "train"?; expected one of train, val'),
    (['convert', 'voc', 'a', 'b', '--siez', '3x3'], 'mpi-ftp: convert: unknown option --siez, did you mean "--size"?; see `mpi-ftp convert --help`'),
    (['profile', 'out', '--cfg', 'c', '--seconds', '0'], 'mpi-ftp: profile: argument --seconds: 0: expected seconds, a number above 0; see'),
    (['profile', 'out', '--cfg', 'c', '--seconds=-1'], 'mpi-ftp: profile: argument --seconds: -1: expected seconds, a number above 0; see'),
    (['scaling', '--cfg', 'c', '--seconds', 'nan'], 'mpi-ftp: scaling: argument --seconds: nan: expected seconds'),
    (['anchors', '--data', 'd', '--num', '0'], 'mpi-ftp: anchors: argument --num: 0: expected a whole number of at least 1; see'),
    (['anchors', '--data', 'd', '--seed=-1'], 'mpi-ftp: anchors: argument --seed: -1: expected a whole number of at least 0; see'),
    (['convert', 'voc'], 'mpi-ftp: convert: the following arguments are required: SOURCE, OUT.h5; see'),
])
def test_usage_errors_are_one_sentence(words, message):
    code, out, err = alone(*words)
    assert code == 2 and out == '' and err.startswith(message) and err.count('\n') == 1


@pytest.mark.parametrize('words, environment, threads', [
    (['train', '--threads', '3'], {'NUMBA_NUM_THREADS': '2'}, 3), (['train', '--threads=3'], {}, 3), (['val'], {'NUMBA_NUM_THREADS': '2'}, 2),
    (['detect', '--', '--threads', '3'], {'NUMBA_NUM_THREADS': '2'}, 2), (['val'], {'OMPI_COMM_WORLD_LOCAL_SIZE': '100000', 'NUMBA_NUM_THREADS': '²'}, 1),
    (['val'], {'OMPI_COMM_WORLD_LOCAL_SIZE': '100000'}, 1), (['val'], {'SLURM_TASKS_PER_NODE': '100000(x2)', 'SLURM_PROCID': '0'}, 1),
])
def test_threads_are_set_before_numba(words, environment, threads):
    assert main.thread_environment(words, environment) == threads
    assert environment['NUMBA_NUM_THREADS'] == str(threads) and environment['OPENBLAS_NUM_THREADS'] == '1'


def test_threads_of_a_job_file(tmp_path):
    (tmp_path / 'a.toml').write_text('threads = 5\n')
    assert main.thread_environment(['train', str(tmp_path / 'a.toml')], {}) == 5
    (tmp_path / 'a.toml').write_text('threads = \n')
    assert main.thread_environment(['train', str(tmp_path / 'a.toml')], {}) >= 1


PLAN = ['plan', '--cfg', ROOT / 'jobs/reference.cfg', '--batch', '1', '--ranks', '6', '--machine', ROOT / 'hostfiles/pi4-1gbit.json']


@pytest.mark.parametrize('words, said', [(['--help'], 'usage: mpi-ftp VERB'), (['--version'], 'mpi-ftp 0'), (['train', '--help'], 'usage: mpi-ftp train'),
                                         (['accuracy', '--list'], '  1 1 yolov2 608'), (PLAN, '6 ranks, 1 picture at a time'), (PLAN, 'MiB on rank')])
def test_one_of_several_ranks_speaks(words, said):
    done = subprocess.run(under_mpirun(2, sys.executable, '-m', 'mpi_ftp', *map(str, words)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.count(said) == 1 and '\x1b' not in done.stdout, done.stdout + done.stderr


def test_all_is_well_under_mpirun(tmp_path):
    assert launch(tmp_path, 3, 'fake', 'fine')[:2] == (0, [])


@pytest.mark.parametrize('what, code, line', [
    ('refuse-all', 5, 'mpi-ftp: the data are gone'),
    ('refuse-late', 5, 'mpi-ftp: the data of rank 1 are gone'),
    ('full', 6, 'mpi-ftp: cannot write to the disk: No space left on device'),
    ('crash', 70, r'mpi-ftp: rank 1 on \S+: ZeroDivisionError: no number'),
    ('crash-all', 70, r'mpi-ftp: rank 0 on \S+: ZeroDivisionError: no number'),
    ('ranks', 9, r'mpi-ftp: expected 17 ranks, as --ranks or the job file says, found 3: mpirun -n 17 starts so many'),
])
def test_a_failure_is_told_once_and_ends_all_ranks(tmp_path, what, code, line):
    returned, lines, seconds, err = launch(tmp_path, 3, 'fake', what)
    assert returned == code and len(lines) == 1 and re.fullmatch(line, lines[0]), err
    assert seconds < 10 and ('Traceback' in err) == what.startswith('crash')


def test_a_rank_count_that_mpi_did_not_form_is_refused():
    """What happens to ranks under the launcher of another MPI: each finds itself alone."""
    environment = dict(os.environ, OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_RANK='0')
    done = subprocess.run([sys.executable, '-m', 'mpi_ftp', 'convert', 'voc', 'a', 'b'], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 9 and re.match(r'mpi-ftp: .*4 ranks but MPI formed 1', done.stderr) and done.stderr.count('\n') == 1


def test_unknown_option_in_process():
    with pytest.raises(UsageError, match='unknown option --oen'):
        parser = main.Parser(prog='mpi-ftp x')
        parser.add_argument('--one')
        parser.add_argument('word', nargs='*')
        assert parser.parse_args(['--one', '3', '--', '--odd.png']).word == ['--odd.png']
        parser.parse_args(['--oen', '3'])


def test_warmup_without_a_network_knows_every_head():
    from mpi_ftp.session import LOSSES
    from mpi_ftp.warmup import any_losses
    assert {loss.kind for loss in any_losses()} == set(LOSSES)


def test_warmup_compiles_once_for_each_host():
    code, said, wrong = alone('warmup', '--cfg', str(ROOT / 'jobs' / 'bccd-quick.cfg'))
    assert code == 0 and said.count('float32 kernels are ready after') == 1, said + wrong
    code, said, wrong = alone('warmup', '--cfg', 'missing.cfg')
    assert code == 3 and 'missing.cfg' in wrong


@pytest.mark.parametrize('name, value, expected', [('MPI_FTP_CACHES', '1,2', 'expected three sizes such as 48K,1M,16M'),
                                                   ('MPI_FTP_SIMD', 'foo', 'known: avx512, avx2, neon, generic')])
def test_a_wrong_setting_of_the_kernels_is_told_in_one_sentence(name, value, expected):
    done = subprocess.run([sys.executable, '-m', 'mpi_ftp', 'warmup'], capture_output=True, text=True, env={**os.environ, name: value})
    assert done.returncode == 2 and done.stderr.splitlines() == [f'mpi-ftp: {name} is {value!r}; {expected}']
