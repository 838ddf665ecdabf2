"""Threads of the kernels: every unit is done once, errors arrive, threads that sleep wake up, and nothing deadlocks."""
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mpi_ftp import kernels
from mpi_ftp.kernels import team, threads
from mpi_ftp.kernels.bench import aligned


@pytest.fixture(params=[0, team.SPINS], ids=['sleeping', 'spinning'])
def crew(request):
    made = team.Team(2, request.param)
    yield made
    made.close()


def test_every_part_runs_once_on_its_own_thread(crew):
    for pause in (0, 0, .02, 0):                        # long enough to fall asleep
        time.sleep(pause)
        done = []
        crew.run(lambda first, last: done.append((first, last, threading.get_ident())), [0, 3, 5, 9])
        assert sorted(part[:2] for part in done) == [(0, 3), (3, 5), (5, 9)]
        assert len({ident for *_, ident in done}) == 3


def test_the_caller_waits_for_a_slow_member(crew):
    done = []

    def work(first, last):
        time.sleep(.02 * first)
        done.append(first)
    crew.run(work, [0, 1, 2])
    assert done == [0, 1]


@pytest.mark.parametrize('at', [0, 1, 2])
def test_an_error_arrives_after_all_are_done(crew, at):
    done = []

    def work(first, last):
        if first == at:
            raise KeyError(first)
        time.sleep(.01)
        done.append(first)
    with pytest.raises(KeyError):
        crew.run(work, [0, 1, 2, 3])
    assert sorted(done + [at]) == [0, 1, 2]
    crew.run(work, [3, 4, 5])                           # and the team goes on
    assert sorted(done + [at]) == [0, 1, 2, 3, 4]


def test_what_the_handler_of_a_signal_raises_comes_after_all_are_done(crew):
    done = []

    def work(first, last):
        if first == 0:
            signal.setitimer(signal.ITIMER_REAL, .1)        # when this thread waits for the other
        time.sleep(.3 * first)
        done.append(first)

    def interrupt(*_):
        raise KeyboardInterrupt
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            crew.run(work, [0, 1, 2])
        assert done == [0, 1]
    finally:
        signal.signal(signal.SIGALRM, before)
    for _ in range(3):
        done.clear()
        crew.run(lambda first, last: time.sleep(.05 * first) or done.append(first), [0, 1, 2])
        assert done == [0, 1]


def test_a_long_kernel_is_interrupted(monkeypatch):
    done, looks = [], []

    def work(*given):
        time.sleep(.001 * (given[-1] - given[-2]))
        done.append(given)
    monkeypatch.setattr(threads, 'GAP', .01)
    with threads.looking_aside(lambda: looks.append(len(done))):
        threads.spread(64, work)
        assert [first for first, _ in done] == [0] + [last for _, last in done[:-1]] and done[-1][1] == 64
        assert len(done) > 4 and max(last - first for first, last in done) <= 15 and looks == list(range(1, len(done)))
        for unbroken in (lambda: threads.spread(64, work, whole=True), lambda: threads.spread(1, work), lambda: elsewhere(threads.spread, 64, work)):
            done.clear()
            unbroken()
            assert len(done) == 1
        done.clear()
        threads.spread(640, lambda first, last: done.append((first, last)))
        assert 2 <= len(done) < 6                       # a short one, once unless this process is not at work
        brief = threads.Spread(64, lambda first, last: done.append((first, last)))
        brief()
        assert brief.brief
        done.clear()
        brief()
        assert done == [(0, 64)]
        known = threads.Spread(64, work)
        known()
        assert known.seconds >= .001 and not known.brief
        for gap, first in ((.016, 16), (.03, 32), (.05, 64), (1e-4, 1)):        # how long a unit takes is known from the time before
            done.clear()
            monkeypatch.setattr(threads, 'GAP', gap)
            known.seconds = .001
            known('given')
            assert done[0] == ('given', 0, first) and done[-1][-1] == 64
        with pytest.raises(KeyError), threads.looking_aside(lambda: {}['failed']):
            threads.spread(64, work)
    done.clear()
    threads.spread(64, work)
    assert done == [(0, 64)]


def elsewhere(function, *arguments):
    """Call it on another thread."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join()


def test_a_second_caller_works_alone(crew):
    """Work that spreads again, and a call from another thread meanwhile."""
    inner = []
    crew.run(lambda first, last: crew.run(lambda a, b: inner.append((a, b)), [first, 7, last + 10]), [0, 1, 2])
    assert sorted(inner) == [(0, 11), (1, 12)]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason='there is one core')
def test_threads_part(monkeypatch):
    """A member that is told that it shares the caller's core goes to another, and may go anywhere afterwards."""
    made, mine = team.Team(1), os.sched_getaffinity(0)
    moves = []
    monkeypatch.setattr(os, 'sched_setaffinity', lambda thread, cores: moves.append((thread, set(cores))))
    try:
        monkeypatch.setattr(team, '_core', lambda: lambda: min(mine))
        made.run(lambda first, last: None, [0, 1, 2])
        assert moves == [(0, mine - {min(mine)}), (0, mine)]
        monkeypatch.setattr(team, '_core', lambda: lambda: -1)
        made.run(lambda first, last: None, [0, 1, 2])
        assert len(moves) == 2
    finally:
        made.close()


def test_set_threads_ends_the_old_ones():
    def alive():
        return sum(thread.name.startswith('kernel_') for thread in threading.enumerate())
    before = alive()
    try:
        kernels.set_threads(3)
        assert (kernels.get_threads(), alive()) == (3, before + 2)
        kernels.set_threads(2, processes=10000)
        assert (threads._team.spins, alive()) == (0, before + 1)
    finally:
        kernels.set_threads(1)
    assert alive() == before
    parts = []
    threads.spread(5, lambda first, last: parts.append((first, last)))
    assert parts == [(0, 5)]


@pytest.mark.parametrize('spins', [0, 20])
def test_no_wake_up_is_lost_between_short_jobs(spins):
    """Jobs that arrive just as a thread lies down: with threads switched as often as can be."""
    done, interval, crew = [0, 0], sys.getswitchinterval(), team.Team(1, spins)

    def work(first, last):
        done[first] += 1

    def many():
        for _ in range(60000):
            crew.run(work, [0, 1, 2])
    sys.setswitchinterval(1e-6)
    try:
        runner = threading.Thread(target=many, daemon=True)
        runner.start()
        runner.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not runner.is_alive(), f'hung after {done} jobs'
    assert done == [60000, 60000] and all(member.thread.is_alive() for member in crew.members)
    crew.close()


@pytest.mark.parametrize('axis', [None, 0, 1, 2, 3])
def test_only_pixels_on_cache_lines_are_written_past_the_caches(monkeypatch, axis):
    monkeypatch.setattr(threads, 'STREAM_BYTES', 0)
    strides = [4096, 2048, 1024, 64, 4]
    if axis is not None:
        strides[axis] += 16
    y = np.lib.stride_tricks.as_strided(aligned(8192), (2, 2, 2, 2, 16), strides)
    assert threads.streams(y) == (axis is None)


def test_a_forked_process_works_alone():
    """The threads are its parent's. It must not wait for them, nor as it ends."""
    code = '''
import os
from mpi_ftp import kernels
from mpi_ftp.kernels import threads
def work(first, last):
    parts.append((first, last))
kernels.set_threads(2)
parts = []
threads.spread(2, work)
with threads._team.guard:
    child = os.fork()
if not child:
    parts.clear()
    threads.spread(2, work)
    assert (parts, kernels.get_threads()) == ([(0, 2)], 1)
    kernels.set_threads(2)
    parts.clear()
    threads.spread(2, work)
    assert sorted(parts) == [(0, 1), (1, 2)]
else:
    assert os.waitpid(child, 0)[1] == 0
    threads.spread(2, work)
    assert sorted(parts) == [(0, 1), (0, 1), (1, 2), (1, 2)]
'''
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
