"""What is told of a run's time and memory."""
from types import SimpleNamespace

from mpi_ftp import watching


def test_medians_in_milliseconds_peaks_in_mib_and_how_much_is_hidden(monkeypatch):
    monkeypatch.setattr(watching, 'peak', lambda: 300 << 20)
    times = [(.02, .5, .001, .002, .01, .0025), (9, 9, 9, 9, 9, 9), (.01, 0, 0, 0, 0, 0)]
    plan = SimpleNamespace(predicted={'seconds': .015})

    def told(times, **world):
        return list(watching.tell(times, plan, 2, SimpleNamespace(gather=lambda value: [value] * world['size'], **world)))
    assert told([times[0], *times], rank=0, size=2) == [
        'median 20.0 ms an iteration (predicted 30.0); peak memory of ranks 300 300 MiB',
        'waited for halos 1.0 ms, in sums of batch norm 2.0 ms, for sums of gradients 2.5 ms of 10.0 ms that they took, 75% hidden']
    assert told(times[2:], rank=0, size=1) == ['median 10.0 ms an iteration (predicted 30.0); peak memory of ranks 300 MiB']
    assert told(times, rank=1, size=2) == told([], rank=0, size=2) == []
