import threading
import time

import pytest

from mpi_ftp import telling
from mpi_ftp.telling import telling as told


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(telling, 'PATIENCE', .02)
    monkeypatch.setattr(telling, 'INTERVAL', .05)
    monkeypatch.setenv('COLUMNS', '100')
    monkeypatch.setenv('TERM', 'xterm')


def wait_for(text, stream):
    """Until the stream has been told this; all it was told."""
    seen, end = '', time.monotonic() + 60
    while text not in seen and time.monotonic() < end:
        time.sleep(.01)
        seen += stream()
    return seen


def test_lines_of_a_log_leave_standard_output_alone(monkeypatch, capsys):
    monkeypatch.setenv('MPI_FTP_TERMINAL', '0')
    with told('planning') as tell:
        first = wait_for(' s\n', lambda: capsys.readouterr().err)
        tell(.42)
        assert '42% done' in wait_for('42% done', lambda: capsys.readouterr().err)
    assert first.startswith('planning: after ') and not capsys.readouterr().out


def test_a_bar_for_who_watches(monkeypatch, capsys):
    monkeypatch.setenv('MPI_FTP_TERMINAL', '1')
    with told('compiling') as tell:
        tell(.5)
        assert 'compiling' in wait_for('compiling', lambda: capsys.readouterr().out)


def test_lines_where_no_bar_can_be_drawn(monkeypatch, capsys):
    monkeypatch.setenv('MPI_FTP_TERMINAL', '1')
    monkeypatch.setenv('TERM', 'dumb')
    with told('compiling'):
        assert 'compiling: after ' in wait_for(' s\n', lambda: capsys.readouterr().err)


def test_what_is_over_soon_is_not_told(monkeypatch, capsys):
    monkeypatch.setattr(telling, 'PATIENCE', 10)
    for terminal in '01':
        monkeypatch.setenv('MPI_FTP_TERMINAL', terminal)
        with told('planning'):
            pass
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('here', [True, False])
def test_errors_pass_and_no_thread_stays(here, monkeypatch, capsys):
    monkeypatch.setenv('MPI_FTP_TERMINAL', '0')
    with pytest.raises(KeyError), told('planning', here) as tell:
        tell(.1)
        assert here == any(thread.name == 'telling' for thread in threading.enumerate())
        raise KeyError
    assert not any(thread.name == 'telling' for thread in threading.enumerate())


def test_other_ranks_are_silent(monkeypatch, capsys):
    monkeypatch.setenv('MPI_FTP_TERMINAL', '0')
    with told('planning', here=False) as tell:
        tell(.5)
        time.sleep(.1)
    assert capsys.readouterr() == ('', '')
