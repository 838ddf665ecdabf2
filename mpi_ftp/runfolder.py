"""The folder of a run: resolved job, plan, metrics.csv, log, checkpoint, weights. One rank writes, the others are silent.

    job.toml  plan.json  metrics.csv  log.txt  checkpoint.h5  last.weights  finished

`finished` is written last: a launcher's exit code alone does not prove that a run came to its end.
"""
import csv
import fcntl
import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path

from .errors import JobError
from .files import reason, remains, replacing
from .screen import Bar, Lines, terminal


def open_run(path, resume=False, rank=0):
    """The RunFolder of a run on rank 0, a Silent one on the others. Raises JobError."""
    return RunFolder(path, resume) if rank == 0 else Silent()


class RunFolder:
    """Creates the folder or goes on in it.

    resumed: there is a checkpoint to go on from (with `resume`; a run that died before its first checkpoint begins anew).
    """

    def __init__(self, path, resume=False):
        self.path = Path(path)
        self.checkpoint, self.weights = self.path / 'checkpoint.h5', self.path / 'last.weights'
        taken = self.checkpoint.exists() or (self.path / 'finished').exists()
        if taken and not resume:
            state = 'a finished run' if (self.path / 'finished').exists() else 'an unfinished run'
            raise JobError(f'{self.path} holds {state}: give --resume to go on with it, or another folder with --run')
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.log_file = open(self.path / 'log.txt', 'a', encoding='utf-8', errors='surrogateescape', buffering=1)
        except OSError as error:
            raise JobError(f'cannot write the run folder {self.path}: {error.strerror}') from None
        try:
            fcntl.flock(self.log_file, fcntl.LOCK_EX | fcntl.LOCK_NB)       # until this process ends, however it does
            remains(self.path)
        except BlockingIOError:
            self.log_file.close()
            raise JobError(f'another run is writing {self.path}: wait for its end, or give another folder with --run') from None
        except OSError:
            pass                                                            # a file system without locks
        self.resumed = resume and self.checkpoint.exists()
        self.metrics = None

    def write(self, name, text):
        """A text file in the folder, whole or not at all."""
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding='utf-8', errors='surrogateescape')          # names of files may be of any bytes

    def write_json(self, name, value):
        self.write(name, json.dumps(value, indent=1) + '\n')

    def begin_metrics(self, columns, iteration=0, more=None):
        """Open metrics.csv with these columns, `iteration` among them; rows after `iteration` are dropped, so that resuming leaves no trace. more: numbers that
        join the row of `iteration`."""
        (self.path / 'finished').unlink(missing_ok=True)
        path = self.path / 'metrics.csv'
        kept = {number: row for number, row in sorted(rows(path).items()) if number <= iteration} if path.exists() else {}
        if len(kept) < iteration and self.metrics is None:
            self.log(f'{path} lacks {iteration - len(kept)} of the {iteration} iterations before the checkpoint')
        if more:
            kept.setdefault(iteration, {'iteration': iteration}).update(digits(more))
        with replacing(path) as temporary, open(temporary, 'w', newline='') as file:
            writer = csv.DictWriter(file, columns, extrasaction='ignore', lineterminator='\n')
            writer.writeheader()
            writer.writerows(kept.values())
        if self.metrics is not None:
            self.metrics_file.close()
        self.metrics_file = open(path, 'a', newline='', buffering=1)
        self.metrics = csv.DictWriter(self.metrics_file, columns, lineterminator='\n')

    def row(self, **values):
        """Append one row to metrics.csv; it is in the file when this returns. Floats keep nine digits, the loss fifteen."""
        self.metrics.writerow(digits(values))
        self.metrics_file.flush()

    def settle(self):
        """Bring the rows to the disk: a checkpoint that outlives a power cut then finds all that were before it."""
        os.fsync(self.metrics_file.fileno())

    def curve(self):
        """The rows so far."""
        return list(rows(self.path / 'metrics.csv').values())

    def log(self, text):
        """A line for the terminal and, with the time, for log.txt."""
        print(text, flush=True)
        self.note(text)

    def note(self, text):
        """A line for log.txt alone."""
        stamp = time.strftime('%Y-%m-%d %H:%M:%S')
        self.log_file.write(''.join(f'{stamp} {line}\n' for line in str(text).splitlines()))

    def progress(self, total, done=0):
        screen = terminal()
        return Lines(self, total, done) if screen is None else Bar(self, total, done, screen)

    def finish(self, text=''):
        """Mark the run as finished; nothing is written after this."""
        self.write('finished', text + '\n')
        self.close()

    def close(self):
        self.log_file.close()
        if self.metrics is not None:
            self.metrics_file.close()


def digits(values):
    """Values of a row as metrics.csv keeps them."""
    return {key: f'{value:.{15 if key == "loss" else 9}g}' if isinstance(value, float) else value for key, value in values.items()}


def rows(path):
    """{iteration: its last row} of a metrics.csv; what is not whole or not of numbers, as a power cut leaves it, does not count. Raises JobError."""
    try:
        names, *lines = [line.split(',') for line in path.read_text(errors='replace').splitlines()] or [[]]
    except OSError as error:
        raise JobError(f'cannot read {path}: {reason(error)}') from None
    found = [dict(zip(names, line)) for line in lines if len(line) == len(names) and all(map(number, line))]
    return {int(row['iteration']): row for row in found if row.get('iteration', '').isdecimal()}


def number(text):
    """Whether a field of metrics.csv is a number, or empty where there is none."""
    with suppress(ValueError):
        return not text or math.isfinite(float(text))
    return False


class Silent:
    """What the other ranks hold: the same verbs, no effect."""
    resumed, path, checkpoint, weights = False, None, None, None

    def _nothing(self, *args, **values):
        return self

    write = write_json = begin_metrics = row = settle = log = note = progress = finish = close = step = within = __enter__ = _nothing

    def __exit__(self, *error):
        pass
