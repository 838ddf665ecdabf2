"""What somebody watches, or reads later in a batch job's log: tables, and the progress of a run."""
import io
import os
import sys
import time
from contextlib import suppress

from .launcher import launched


def terminal():
    """The terminal that somebody watches as an open file, or None. MPI_FTP_TERMINAL=0 or 1 (with COLUMNS) decides where given.
    One on which nothing can be drawn anew (TERM=dumb) gets the lines of a log.

    Under a launcher stdout tells nothing (Open MPI gives rank 0 a pseudo-terminal even in a batch job), so the launcher's own is asked.
    """
    said = os.environ.get('MPI_FTP_TERMINAL')
    if said == '0' or os.environ.get('TERM', '').lower() in ('dumb', 'unknown'):
        return None
    if said == '1':
        return sys.stdout
    if not launched():
        return sys.stdout if sys.stdout.isatty() else None
    try:
        device = os.readlink(f'/proc/{os.getppid()}/fd/1')
        return open(device, 'w') if device.startswith(('/dev/pts/', '/dev/tty')) else None
    except OSError:
        return None


def show(table, width=100):
    """Print a rich table, with colours only where somebody watches; returns it as plain text."""
    from rich.console import Console
    watched = terminal() is not None
    Console(width=width, force_terminal=watched, no_color=not watched).print(table)
    plain = Console(width=width, record=True, file=io.StringIO(), force_terminal=False)
    plain.print(table)
    return plain.export_text()


class Lines:
    """Progress for a batch log: a line every `interval` seconds, the first and the last step."""
    interval = 10.0

    def __init__(self, run, total, done=0):
        self.run, self.total, self.first = run, total, done
        self.begun, self.told = time.monotonic(), None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def step(self, done, text=''):
        """Step `done` of total (counting from 1) is over; `text` tells its numbers."""
        now = time.monotonic()
        line = f'iteration {done}/{self.total}  {text}  {self.left(done, now)}'.rstrip()
        if self.told is None or now - self.told >= self.interval or done >= self.total:
            self.told = now
            self.run.log(line)
        else:
            self.run.note(line)

    def within(self, done, what):
        """Step `done` is not over yet: `what` it is about, and how far."""
        now = time.monotonic()
        if now - (self.begun if self.told is None else self.told) >= self.interval:
            self.told = now
            self.run.log(f'iteration {done}/{self.total}  {what}')

    def left(self, done, now):
        """The time that the rest will take at the pace so far."""
        steps = done - self.first
        if steps < 1 or done >= self.total:
            return ''
        seconds = round((now - self.begun) / steps * (self.total - done))
        return f'{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left'


class Bar(Lines):
    """Progress for a terminal: a bar that redraws itself; every step goes to log.txt."""

    def __init__(self, run, total, done, screen):
        super().__init__(run, total, done)
        self.screen = screen

    def __enter__(self):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        self.bar = Progress(TextColumn('iteration'), MofNCompleteColumn(), BarColumn(None), TextColumn('{task.description}'),
                            console=Console(file=self.screen, force_terminal=True), refresh_per_second=4)
        self.task = self.bar.add_task('', total=self.total, completed=self.first)
        self.bar.start()
        return self

    def __exit__(self, *error):
        with suppress(OSError):             # the terminal may be gone
            self.bar.stop()
        if self.screen is not sys.stdout:
            self.screen.close()

    def within(self, done, what):
        self.bar.update(self.task, description=what)

    def step(self, done, text=''):
        left = self.left(done, time.monotonic())
        self.bar.update(self.task, completed=done, description=f'{text}  {left}'.rstrip())
        self.run.note(f'iteration {done}/{self.total}  {text}'.rstrip())
