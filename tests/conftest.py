"""Tests under MPI from plain `pytest`: mark a test `@pytest.mark.mpi(1, 2, 3, 4, 6, timeout=60)`.

The outer pytest starts one mpirun (mpi_run.py) for each number of ranks; every rank runs the same inner pytest over all tests
marked with that number and writes what happened, line by line, to a file of its own. The outer pytest turns these lines into one
report per test: passed only if every rank passed. After each test the ranks agree on the verdict, so that they never run out of
step; a failure, crash or hang ends that mpirun and the remaining tests go on in a fresh one. The launcher is $MPIRUN, else the
mpirun beside the Python in use, else the one on the PATH; its environment is jobs/mpi.env.sh.

Inside a marked test, `tmp_path` is one empty directory shared by all ranks.
"""
import faulthandler
import json
import os
import re
import time
from pathlib import Path

import pytest

from mpi_run import GRACE, Run

FOLDER = os.environ.get('MPI_FTP_TEST_FOLDER')     # set only in the inner pytest: where its ranks write


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
