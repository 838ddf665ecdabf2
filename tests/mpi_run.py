"""One mpirun of the MPI harness (conftest.py): starts it, follows what its ranks write, says what went wrong, ends it.

Knows nothing of pytest's reports: lines are passed on as they were written.
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENVIRONMENT = Path(__file__).parent.parent / 'jobs' / 'mpi.env.sh'
GRACE = 2.0                                        # seconds a failed rank waits for the others before it aborts them
STARTUP = 60.0                                     # seconds in which the first test of an mpirun must begin


def under_mpirun(ranks, *words):
    """The words of a command line in so many ranks, in the environment of jobs/mpi.env.sh."""
    beside = Path(sys.executable).parent / 'mpirun'
    launcher = os.environ.get('MPIRUN') or (str(beside) if beside.exists() else 'mpirun')
    return ['bash', '-c', '. "$0" && exec "$@"', str(ENVIRONMENT), launcher, '-n', str(ranks), *words]


class Run:
    """One mpirun over the tests `nodeids` with `ranks` ranks, and what its ranks have written so far."""

    def __init__(self, nodeids, ranks, config):
        self.left, self.ranks = set(nodeids), ranks
        self.folder = Path(tempfile.mkdtemp(prefix=f'mpi_ftp-np{ranks}-'))
        Path(self.folder, 'tests').write_text('\n'.join(nodeids))
        command = under_mpirun(ranks, sys.executable, '-m', 'mpi4py', '-m', 'pytest', '-q', '--color=no', '-p', 'no:cacheprovider', f'@{self.folder}/tests')
        self.output = open(self.folder / 'output', 'w+', errors='replace')
        self.process = subprocess.Popen(
            command, cwd=config.rootpath, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT,
            start_new_session=True, env=dict(os.environ, MPI_FTP_TEST_FOLDER=str(self.folder),
                                             NUMBA_NUM_THREADS=os.environ.get('NUMBA_NUM_THREADS', '1')))
        self.files = [self.folder / f'rank{r}.jsonl' for r in range(ranks)]
        self.offsets, self.lines = [0] * ranks, [[] for _ in range(ranks)]
        self.begun = time.monotonic()

    def result(self, nodeid, seconds):
        """Lines that the ranks wrote about `nodeid` (a list per rank), and what went wrong with the run as a whole ('' if nothing)."""
        self.left.discard(nodeid)
        started, trouble = None, ''
        while True:
            ended = self.process.poll() is not None            # looked at before the last lines are read
            self.read()
            if all({'done': nodeid} in lines for lines in self.lines):
                break
            if ended:
                trouble = f'mpirun -n {self.ranks} ended with exit code {self.process.returncode} in this test\n{self.tail()}'
                break
            now = time.monotonic()
            if started is None and any({'start': nodeid} in lines for lines in self.lines):
                started = now
            if started is None and now > max(self.begun + STARTUP, self.begun + seconds):
                trouble = f'the ranks did not begin this test within {now - self.begun:.0f} s\n{self.tail()}'
                break
            if started is not None and now > started + seconds + GRACE:
                trouble = f'hung: killed after {seconds} s with {self.ranks} ranks\n{self.stacks()}'
                break
            time.sleep(0.005)
        mine = [[line['report'] for line in lines if line.get('test') == nodeid] for lines in self.lines]
        if any(report['outcome'] == 'failed' or 'wasxfail' in report for reports in mine for report in reports):
            self.left.clear()                                  # the ranks have left; a next test needs new ones
        elif not self.left and not trouble:
            trouble = self.leave()
        self.begun = time.monotonic()
        return mine, trouble

    def leave(self):
        """'' when the ranks end well after their last test, else what happened."""
        try:
            code = self.process.wait(10)
            return f'mpirun ended with exit code {code} after the last test\n{self.tail()}' if code else ''
        except subprocess.TimeoutExpired:
            return f'mpirun did not end after the last test\n{self.tail()}'

    def read(self):
        """Take in the complete lines that were added since the last time."""
        for rank, path in enumerate(self.files):
            if path.exists():
                with open(path) as file:
                    file.seek(self.offsets[rank])
                    text = file.read()
                complete = text[:text.rfind('\n') + 1]
                self.offsets[rank] += len(complete.encode())
                self.lines[rank] += map(json.loads, complete.splitlines())

    def tail(self):
        self.output.flush()
        return Path(self.folder, 'output').read_text(errors='replace')[-4000:]

    def stacks(self):
        """Where each rank stood when its time was up: innermost calls of its main thread first."""
        text = []
        for rank in range(self.ranks):
            path = Path(self.folder, f'rank{rank}.stacks')
            dump = path.read_text() if path.exists() else ''
            main = dump.split('most recent call first):\n')[-1].splitlines()[:10]
            text.append('\n'.join([f'rank {rank}:', *main]) if main else f'rank {rank}: not in this test, or gone')
        return '\n'.join(text)

    def kill(self):
        """End mpirun and its ranks, gently first, and remove their files."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)        # mpirun passes it on
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            for pid in [line['pid'] for lines in self.lines for line in lines if 'pid' in line]:
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    if str(self.folder).encode() in Path(f'/proc/{pid}/environ').read_bytes():
                        os.kill(pid, signal.SIGKILL)
        self.output.close()
        shutil.rmtree(self.folder, ignore_errors=True)
