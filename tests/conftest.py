"""Tests under MPI from plain `pytest`: mark a test `@pytest.mark.mpi(1, 2, 3, 4, 6, timeout=60)`.

The outer pytest starts one mpirun for each number of ranks; every rank runs the same inner pytest over all tests marked with that
number and writes what happened, line by line, to a file of its own. The outer pytest turns these lines into one report per test:
passed only if every rank passed. After each test the ranks agree on the verdict, so that they never run out of step; a failure,
crash or hang ends that mpirun and the remaining tests go on in a fresh one. The launcher is $MPIRUN, else the mpirun beside the
Python in use, else the one on the PATH; its environment is jobs/mpi.env.sh.

Inside a marked test, `tmp_path` is one empty directory shared by all ranks.
"""
import contextlib
import faulthandler
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

FOLDER = os.environ.get('MPI_FTP_TEST_FOLDER')     # set only in the inner pytest: where its ranks write
ENVIRONMENT = Path(__file__).parent.parent / 'jobs' / 'mpi.env.sh'
GRACE = 2.0                                        # seconds a failed rank waits for the others before it aborts them
STARTUP = 60.0                                     # seconds in which the first test of an mpirun must begin


def pytest_configure(config):
    config.addinivalue_line('markers', 'mpi(*ranks, timeout=60): run the test under mpirun with each number of ranks')
    config.pluginmanager.register(Inner(config) if FOLDER else Outer(), 'mpi-harness')


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker('mpi')
    if mark:
        metafunc.fixturenames.append('mpi_ranks')
        metafunc.parametrize('mpi_ranks', mark.args, ids=lambda n: f'np{n}')


def seconds_allowed(item):
    return item.get_closest_marker('mpi').kwargs.get('timeout', 60)


if FOLDER:
    @pytest.fixture
    def tmp_path(request):
        path = Path(FOLDER, re.sub(r'\W+', '_', request.node.nodeid))
        path.mkdir(exist_ok=True)
        return path


class Inner:
    """One rank: reports go to a file; the verdict on each test is collective."""

    def __init__(self, config):
        from mpi4py import MPI
        self.mpi, self.config = MPI, config
        self.comm = MPI.COMM_WORLD.Dup()           # messages of the harness never meet those of a test
        self.lines = open(Path(FOLDER, f'rank{self.comm.rank}.jsonl'), 'w')
        self.stacks = open(Path(FOLDER, f'rank{self.comm.rank}.stacks'), 'w')
        self.write(pid=os.getpid(), ranks=self.comm.size)

    def write(self, **line):
        self.lines.write(json.dumps(line) + '\n')
        self.lines.flush()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.ok = True
        self.write(start=item.nodeid)
        faulthandler.dump_traceback_later(seconds_allowed(item), file=self.stacks)
        result = yield
        faulthandler.cancel_dump_traceback_later()
        everyone = self.verdict()
        self.write(done=item.nodeid)
        if not everyone:                           # messages may be left over: do not let them reach the next test
            self.comm.Barrier()
            self.comm.Abort(1)
        return result

    def pytest_runtest_logreport(self, report):
        self.ok &= report.outcome != 'failed' and not hasattr(report, 'wasxfail')
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.write(test=report.nodeid, report=data)

    def verdict(self):
        """True if the test passed on every rank; aborts when others hang because this rank failed."""
        mine, all_ = bytearray([self.ok]), bytearray(1)
        request = self.comm.Iallreduce([mine, self.mpi.BYTE], [all_, self.mpi.BYTE], op=self.mpi.BAND)
        deadline = time.monotonic() + GRACE
        while not request.Test():
            if not self.ok and time.monotonic() > deadline:
                self.comm.Abort(1)
            time.sleep(0.0002)
        return bool(all_[0])


class Outer:
    """The pytest the user started: runs marked tests through `Run`s, one number of ranks after the other."""
    run = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items.sort(key=self.ranks)                 # stable: plain tests first, then by number of ranks

    @staticmethod
    def ranks(item):
        return item.callspec.params['mpi_ranks'] if item.get_closest_marker('mpi') else 0

    def pytest_runtest_protocol(self, item, nextitem):
        if not self.ranks(item):
            return None
        item.session._setupstate.teardown_exact(nextitem)      # fixtures of plain tests that ran before
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self.reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def reports(self, item):
        if self.run is None or item.nodeid not in self.run.left:
            self.stop()
            items = item.session.items
            rest = items[items.index(item):]
            self.run = Run([i.nodeid for i in rest if self.ranks(i) == self.ranks(item)], self.ranks(item), item.config)
        began = time.time()
        lines, trouble = self.run.result(item.nodeid, seconds_allowed(item))
        if trouble:
            self.stop()
        reports = merge(item.config, lines)
        if trouble and not any(r.failed for r in reports):
            reports.append(pytest.TestReport(item.nodeid, item.location, {}, 'failed', trouble, 'call',
                                             duration=time.time() - began, start=began, stop=time.time()))
        return reports

    def stop(self):
        if self.run:
            self.run.kill()
            self.run = None

    def pytest_sessionfinish(self):
        self.stop()


class Run:
    """One mpirun over the tests `nodeids` with `ranks` ranks, and what its ranks have written so far."""

    def __init__(self, nodeids, ranks, config):
        self.left, self.ranks = set(nodeids), ranks
        self.folder = Path(tempfile.mkdtemp(prefix=f'mpi_ftp-np{ranks}-'))
        Path(self.folder, 'tests').write_text('\n'.join(nodeids))
        beside = Path(sys.executable).parent / 'mpirun'
        launcher = os.environ.get('MPIRUN') or (str(beside) if beside.exists() else 'mpirun')
        command = ['bash', '-c', '. "$0" && exec "$@"', str(ENVIRONMENT), launcher, '-n', str(ranks), sys.executable, '-m', 'mpi4py',
                   '-m', 'pytest', '-q', '--color=no', '-p', 'no:cacheprovider', f'@{self.folder}/tests']
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


def merge(config, ranks):
    """One report per phase of a test from the reports of all ranks: the first failure wins, the others are told beneath it."""
    merged = []
    for when in ('setup', 'call', 'teardown'):
        data = {rank: report for rank, reports in enumerate(ranks) for report in reports if report['when'] == when}
        if not data:
            continue
        failed = [rank for rank, report in data.items() if report['outcome'] == 'failed']
        outcomes = {report['outcome'] for report in data.values()}
        first = failed[0] if failed else min(data)
        report = config.hook.pytest_report_from_serializable(config=config, data=data[first])
        if isinstance(report.longrepr, list):                  # a skip's (file, line, reason) after its way through JSON
            report.longrepr = tuple(report.longrepr)
        if failed:
            report.sections.append(('MPI', f'failed on rank{"s" * (len(failed) > 1)} {", ".join(map(str, failed))} of {len(ranks)}'))
        elif len(outcomes) > 1:
            report.outcome = 'failed'
            report.longrepr = 'ranks disagree: ' + ', '.join(f'rank {r} {d["outcome"]}' for r, d in data.items())
        merged.append(report)
    return merged
