"""What goes on beside the iterations of a run: signals that ask it to end, and where its time and memory went. Knows no network."""
import signal
import time
from statistics import median

from .limits import peak
from .waiting import waited

TIMES = ('seconds', 'input_seconds', 'halo_seconds', 'norm_seconds', 'reduction_seconds', 'sum_seconds')


class Signals:
    """SIGTERM, SIGUSR1 and SIGINT ask for a checkpoint and an end after the iteration at hand."""

    def __init__(self):
        self.asked = 0
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self.ask)

    def ask(self, number, frame):
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number


class Stopwatch:
    """Where the seconds of one iteration go; started by making it."""

    def __init__(self):
        self.before, self.input, self.begun = dict(waited), 0.0, time.perf_counter()

    def fetch(self, following):
        """The pictures that following() waits for."""
        asked = time.perf_counter()
        found = following()
        self.input += time.perf_counter() - asked
        return found

    def computed(self):
        """The backward pass is over: what comes is waiting for the sum of the loss."""
        self.halos, self.norms, self.gradients = (waited[name] - self.before[name] for name in ('messages', 'sums', 'gradients'))
        self.asked = time.perf_counter()

    def summed(self, reductions):
        """The loss is there; sums of gradients have been under way for so many seconds."""
        self.sums, self.reductions = self.gradients + time.perf_counter() - self.asked, reductions

    def read(self):
        """{each of TIMES: seconds}, up to now."""
        return dict(zip(TIMES, (time.perf_counter() - self.begun, self.input, self.halos, self.norms, self.reductions, self.sums)))


def tell(times, plan, pieces, world):
    """Lines on rank 0, else none, about iterations of so many pieces (collective). times: rows of TIMES, seconds: of iterations; input: waited for pictures; halo,
    norm: for pixels and in batch norm's sums; reduction: sums of gradients under way; sum: waited for them, and for the loss."""
    peaks = world.gather(peak() / (1 << 20))
    if world.rank or not times:
        return
    predicted = plan.predicted.get('seconds')
    seconds, _, halos, norms, reductions, sums = (1000 * median(column) for column in zip(*times))
    yield (f'median {seconds:.1f} ms an iteration' + (f' (predicted {1000 * predicted * pieces:.1f})' if predicted else '')
           + '; peak memory of ranks ' + ' '.join(f'{peak:.0f}' for peak in peaks) + ' MiB')
    if world.size > 1:
        hidden = f', {max(0, 1 - sums / reductions):.0%} hidden' if reductions else ''
        yield (f'waited for halos {halos:.1f} ms, in sums of batch norm {norms:.1f} ms, for sums of gradients {sums:.1f} ms '
               f'of {reductions:.1f} ms that they took{hidden}')
