"""Mini-batches of input tiles: shuffles, draws, reads and samples on a background thread while a step computes.

Samples form one endless stream: the permutation of epoch 0, of epoch 1, ... so that an epoch visits each sample once
and a mini-batch may span two. A place in the stream is (epoch, position), all that a resumed run needs. Knows Regions,
but nothing of ranks: every rank runs its own Loader with the same arguments and its own region.
"""
import queue
import threading
from dataclasses import dataclass

import numpy as np

from .augment import Options, draw, input_tile, truths
from .chance import shuffled
from .errors import DataError


@dataclass(frozen=True)
class Batch:
    """One mini-batch. `tiles`: an array per region, or the array of the only region; `truths` and `ids` (picture
    numbers) are of the whole mini-batch; `state` is the place in the stream after it; `draws` tell how each sample
    was fitted. With `once`, slots after the last sample hold zeros, no truth (None) and id -1."""
    tiles: object
    truths: list
    ids: np.ndarray
    draws: list
    state: tuple


class Loader:
    """Yields mini-batches of `split` for `regions`: one Region, or a list of them (one rank reads for all).

    net_shape: (N, 3, H, W) of the network's input, N being the mini-batch. A tile is an interleaved array
    (n, 1, h, w, 3) of `dtype`, values 0 ... 1, for the samples, rows and columns of its Region; 0 outside the input.
    shuffle: a new order every epoch, by (seed, epoch); else the order of the split.
    once: stop after one pass, as validation does; else go on for ever.
    state: (epoch, position) to go on from. ahead: mini-batches to prepare beforehand; 0 reads in the caller's thread.
    Use as a context manager or call `close`. Raises DataError for a split with no pictures or an input that does not
    take three channels; whatever the thread raises is raised by `next`.
    """

    def __init__(self, pictures, split, net_shape, regions, *, options=Options(), seed=0, shuffle=True, once=False,
                 state=(0, 0), dtype=np.float32, ahead=2):
        self._pictures, self._indices = pictures, pictures.indices(split)
        self._batch, channels, self._h, self._w = net_shape
        self._options, self._seed, self._shuffle, self._once = options, seed, shuffle, once
        self._dtype, self._ahead = np.dtype(dtype), ahead
        if not len(self._indices):
            raise DataError(f'{pictures.path}: split "{split}" holds no pictures')
        if channels != 3:
            raise DataError(f'{pictures.path} holds pictures of 3 channels, the network expects {channels}')
        if options.task == 'classify' and not pictures.labelled:
            pictures.label(0)
        if not 0 <= state[1] < len(self._indices):
            raise DataError(f'{pictures.path}: split "{split}" has {len(self._indices)} pictures, '
                            f'cannot go on after {state[1]}: not the data this run began with')
        self._regions, self._state, self._thread = regions, tuple(state), None
        self._permutation = None, None

    def __len__(self):
        """Samples in one epoch."""
        return len(self._indices)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        while (batch := self.next()) is not None:
            yield batch

    def next(self):
        """The next Batch; None after the last one of a single pass."""
        if self._once and self._state[0] > 0:
            return None
        batch = self._prepared() if self._ahead else self._make(self._state)
        self._state = batch.state
        return batch

    def close(self):
        """Stops the thread. The loader may be used again; it goes on where the caller was."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def _prepared(self):
        if self._thread is None:
            self._queue, self._stop = queue.Queue(self._ahead), threading.Event()
            self._thread = threading.Thread(target=self._work, args=(self._state,), name='loader', daemon=True)
            self._thread.start()
        batch = self._queue.get()
        if isinstance(batch, BaseException):
            self.close()
            raise batch
        return batch

    def _work(self, state):
        """The thread: prepares batches until told to stop, or hands over what went wrong."""
        while not self._stop.is_set() and not (self._once and state[0] > 0):
            try:
                item = self._make(state)
            except BaseException as error:       # raised again by next()
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=.05)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return
            state = item.state

    def _make(self, state):
        samples, state = self._samples(state)
        regions = self._regions if isinstance(self._regions, (list, tuple)) else [self._regions]
        tiles = [np.zeros((n, 1, h, w, 3), self._dtype) for n, _, h, w in (region.shape for region in regions)]
        ids, draws, labels = np.full(self._batch, -1), [None] * self._batch, [None] * self._batch
        net_size = self._h, self._w
        for slot, (epoch, i) in enumerate(samples):
            ids[slot] = i
            draws[slot] = drawn = draw(self._seed, epoch, i, self._options, self._pictures.size(i), net_size)
            labels[slot] = truths(self._pictures, i, drawn, self._options)
            for region, tile in zip(regions, tiles):
                if region.lo[0] <= slot < region.hi[0] and not region.empty:
                    input_tile(tile[slot - region.lo[0], 0], self._pictures, i, drawn, region, *net_size)
        return Batch(tiles if regions is self._regions else tiles[0], labels, ids, draws, state)

    def _samples(self, state):
        """The next mini-batch of (epoch, picture number), and the place after it."""
        (epoch, position), samples = state, []
        while len(samples) < self._batch and not (self._once and epoch > 0):
            order = self._order(epoch)[position:position + self._batch - len(samples)]
            samples += [(epoch, int(self._indices[k])) for k in order]
            position += len(order)
            if position == len(self._indices):
                epoch, position = epoch + 1, 0
        return samples, (epoch, position)

    def _order(self, epoch):
        if self._permutation[0] != epoch:
            count = len(self._indices)
            self._permutation = epoch, shuffled(count, self._seed, epoch) if self._shuffle else np.arange(count)
        return self._permutation[1]
