"""What lasts long and has no steps to count (compiling, measuring, planning), told while it lasts: by a bar where somebody watches, else by a line now and then."""
import sys
import threading
import time
from contextlib import contextmanager, suppress

from .screen import terminal

PATIENCE = 1.5          # seconds until a bar appears: what is over sooner needs none
INTERVAL = 10.0         # seconds until the first line of a log, and between them


@contextmanager
def telling(what, here=True):
    """Yields a function of the share that is done, 0 ... 1, for whoever knows it. Only the rank that says `here` tells anything, on standard error
    where it is no terminal: standard output is that of results."""
    if not here:
        yield lambda share: None
        return
    teller = Teller(what)
    thread = threading.Thread(target=teller.tell, name='telling', daemon=True)
    thread.start()
    try:
        yield teller.note
    finally:
        teller.over.set()
        thread.join()


class Teller:
    def __init__(self, what):
        self.what, self.share, self.over, self.begun = what, None, threading.Event(), time.monotonic()

    def note(self, share):
        self.share = share

    def tell(self):
        """Until it is over."""
        if self.over.wait(PATIENCE):
            return
        screen = terminal()
        if screen is None:
            self.lines()
            return
        with suppress(OSError):             # the terminal may be gone
            self.bar(screen)
            if screen is not sys.stdout:
                screen.close()

    def lines(self):
        while not self.over.wait(INTERVAL - (time.monotonic() - self.begun) % INTERVAL):
            done = '' if self.share is None else f' {self.share:.0%} done'
            print(f'{self.what}:{done} after {time.monotonic() - self.begun:.0f} s', file=sys.stderr, flush=True)

    def bar(self, screen):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        with Progress(TextColumn('{task.description}'), BarColumn(), TimeElapsedColumn(), console=Console(file=screen, force_terminal=True),
                      transient=True, auto_refresh=False) as shown:
            task = shown.add_task(self.what, total=None)
            while not self.over.wait(.5):
                shown.update(task, total=None if self.share is None else 1.0, completed=self.share or 0)
                shown.refresh()
