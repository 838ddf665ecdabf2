"""The command line: `mpi-ftp VERB …` or `python -m mpi_ftp VERB …`, alone or under mpirun.

Imports only the module of the chosen verb, which offers add_arguments(parser) and run(args). Whatever a rank dies of ends all ranks:
a `Refused` with its one sentence and exit code, anything else with a traceback and exit code 70.
"""
import argparse
import errno
import os
import sys

from mpi_ftp.errors import UNEXPECTED, JobError, LauncherError, Refused, UsageError, nearest
from mpi_ftp.files import lasting_streams
from mpi_ftp.waiting import cores

VERBS = {
    'train': ('train', 'train a network as a job file says'),
    'val': ('val', 'measure average precision on a split of a data set'),
    'detect': ('detect', 'draw the boxes found in pictures and write them as JSON'),
    'forward': ('forward', 'write the output of a layer for an array of pictures'),
    'plan': ('show', 'print how a network would be cut among ranks, without training'),
    'profile': ('profiling', 'measure the hosts and links at hand for better plans'),
    'accuracy': ('accuracy', 'compare predicted with measured steps and memory in short trainings'),
    'convert': ('convert', 'pack labelled pictures into one HDF5 data set'),
    'anchors': ('anchors', 'find anchor boxes of a data set by k-means'),
    'bench': ('bench', 'measure a training step, beside PyTorch'),
    'scaling': ('scaling', 'measure training steps on 1, 2, 4, … ranks beside what bytes and operations allow'),
    'warmup': ('warmup', 'compile all kernels ahead, on every host'),
    'weights': ('convert_weights', 'list, cut off or convert Darknet weights, checkpoints and .npz files'),
}


class Parser(argparse.ArgumentParser):
    """An argparse parser that refuses in one sentence and knows what was nearly meant."""

    def __init__(self, *args, **options):
        super().__init__(*args, allow_abbrev=False, **options)

    def parse_args(self, words):
        known = [text for action in self._actions for text in action.option_strings]
        for word in words[:words.index('--')] if '--' in words else words:
            name = word.split('=')[0]
            if name.startswith('--') and name not in known:
                self.error(f'unknown option {name}{nearest(name, known)}')
        return super().parse_args(words)

    def print_help(self, file=None):
        once(self.format_help().rstrip('\n'))

    def error(self, message):
        raise UsageError(f'{self.prog.split()[-1]}: {message}; see `{self.prog} --help`')


def thread_environment(words, environ=os.environ):
    """Set how many threads numba and BLAS may use, before either is imported; the count for the kernels is returned.

    --threads wins over NUMBA_NUM_THREADS, that over `threads` in the job file, that over a fair share of this host's cores.
    """
    threads = option(words, '--threads') or environ.get('NUMBA_NUM_THREADS') or threads_of_job(words)
    if not (threads and str(threads).isdecimal() and int(threads) > 0):       # nonsense is refused later, in the words of its option
        threads = max(1, cores() // ranks_on_host(environ))
    environ['NUMBA_NUM_THREADS'] = str(threads)
    for name in 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS':
        environ.setdefault(name, '1')
    environ.setdefault('OMP_WAIT_POLICY', 'passive')       # spinning threads of six ranks on two cores make them seven times slower
    return int(threads)


def option(words, name):
    """The text given to a long option, or None."""
    for word, following in zip(words, [*words[1:], None]):
        if word == '--':
            return None
        if word == name:
            return following
        if word.startswith(name + '='):
            return word.partition('=')[2]
    return None


def threads_of_job(words):
    """`threads` of the job file among the words, or None."""
    if words[:1] != ['train']:
        return None
    import tomllib
    for word in words[1:]:
        if word.endswith('.toml'):
            try:
                with open(word, 'rb') as file:
                    return tomllib.load(file).get('threads')
            except (OSError, ValueError):                  # told by the verb, with more care
                return None
    return None


def ranks_on_host(environ):
    for name in 'OMPI_COMM_WORLD_LOCAL_SIZE', 'MPI_LOCALNRANKS', 'SLURM_TASKS_PER_NODE':
        count = environ.get(name, '').split('(')[0].split(',')[0]
        if count.isdecimal() and (name != 'SLURM_TASKS_PER_NODE' or 'SLURM_PROCID' in environ):
            return max(1, int(count))
    return 1


def once(text):
    """Print it on one rank of a run, whether or not there is MPI yet."""
    if environment_rank() == 0:
        print(text)


def parse(words):
    """The verb's run function and its parsed arguments."""
    from mpi_ftp import __version__
    listed = '\n'.join(f'  {verb:9} {help_}' for verb, (_, help_) in VERBS.items())
    if not words or words[0] in ('-h', '--help', 'help'):
        once(f'usage: mpi-ftp VERB …\n\n{listed}\n\n`mpi-ftp VERB --help` tells the options of a verb; every verb also runs under mpirun.')
        raise SystemExit(0 if words else UsageError.exit_code)
    if words[0] == '--version':
        once(f'mpi-ftp {__version__}')
        raise SystemExit(0)
    if words[0] not in VERBS:
        raise UsageError(f'unknown verb "{words[0]}"{nearest(words[0], VERBS)}; expected one of {", ".join(VERBS)}')
    module, help_ = VERBS[words[0]]
    from importlib import import_module
    verb = import_module(f'mpi_ftp.{module}')
    parser = Parser(prog=f'mpi-ftp {words[0]}', description=help_[0].upper() + help_[1:] + '.')
    verb.add_arguments(parser)
    return verb.run, parser.parse_args(words[1:])


def environment_rank(environ=os.environ):
    """This process's rank by the launcher's word, 0 without a launcher: who speaks when MPI itself is in doubt."""
    for name in 'OMPI_COMM_WORLD_RANK', 'PMIX_RANK', 'PMI_RANK', 'SLURM_PROCID':
        if environ.get(name, '').isdecimal():
            return int(environ[name])
    return 0


def main(words=None):
    words = sys.argv[1:] if words is None else words
    lasting_streams()
    thread_environment(words)
    world = None
    try:
        from mpi_ftp import comm
        from mpi_ftp.launcher import launched
        if launched():                                # so that what goes wrong from here on can be told once, and to all
            world = comm.world()
        run, args = parse(words)
        run(args)
        sys.stdout.flush()
        refused, code = getattr(sys.stdout, 'refused', None), 0
        if refused:
            raise JobError(f'cannot write standard output: {refused.strerror}')
    except (Exception, KeyboardInterrupt) as error:
        code = give_up(world, error)
    sys.exit(code)


def give_up(world, error):
    """Say once what happened and make sure that no rank goes on; the exit code of this process."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        error = JobError(f'cannot write {error.filename or "to the disk"}: {error.strerror}')
    from mpi_ftp.kernels import Setting
    if isinstance(error, Setting):
        error = UsageError(str(error))
    code = error.exit_code if isinstance(error, Refused) else 130 if isinstance(error, KeyboardInterrupt) else UNEXPECTED

    def say():
        if isinstance(error, Refused):
            print(f'mpi-ftp: {error}', file=sys.stderr, flush=True)
            return
        if isinstance(error, KeyboardInterrupt):
            print('mpi-ftp: interrupted', file=sys.stderr, flush=True)
            return
        import traceback

        from mpi_ftp.hosts import this_machine
        traceback.print_exception(error)
        text = ' '.join(str(error).split())
        print(f'mpi-ftp: rank {world.rank if world else 0} on {world.host if world else this_machine()[0]}: {type(error).__name__}: {text}', file=sys.stderr, flush=True)

    if world is not None:
        try:
            world.fail(say, code)
        except BaseException:           # MPI itself has failed, or somebody is impatient: the others must not wait for this rank
            try:
                say()
                world.abort(code)
            finally:
                os._exit(code)
    elif not isinstance(error, LauncherError) or environment_rank() == 0:      # ranks that are no world cannot agree who speaks
        say()
    return code


if __name__ == '__main__':
    main()
