"""Mini-batches: each sample once an epoch, exact resumption, any regions, and no thread left behind."""
import threading
import time

import numpy as np
import pytest

from mpi_ftp.augment import Options
from mpi_ftp.errors import DataError
from mpi_ftp.loader import Loader
from mpi_ftp.pictures import Pictures, writing
from mpi_ftp.region import Region

DETECT = Options(hue=.1, saturation=1.5, exposure=1.5)
NET = (4, 3, 35, 41)
WHOLE = Region.whole(NET)
COUNT = 11


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp('loader') / 'p.h5'
    rng = np.random.default_rng(0)
    with writing(path, ['a', 'b', 'c'], (60, 70)) as writer:
        for k in range(COUNT + 2):
            h, w = rng.integers(30, (61, 71))
            boxes = np.column_stack([rng.integers(0, 3, 3), rng.uniform(.3, .7, (3, 2)), rng.uniform(.1, .4, (3, 2))])
            writer.add(str(k), rng.integers(0, 256, (h, w, 3), dtype=np.uint8), boxes)
        writer.splits = {'train': range(2, COUNT + 2), 'test': [1, 0], 'none': []}
    return path


@pytest.fixture
def pictures(path):
    with Pictures(path) as pictures:
        yield pictures


def same(a, b):
    return (a.state == b.state and np.array_equal(a.ids, b.ids) and np.array_equal(a.tiles, b.tiles)
            and a.draws == b.draws and all(map(np.array_equal, a.truths, b.truths)))


def test_an_epoch_visits_each_sample_once(pictures):
    with Loader(pictures, 'train', NET, WHOLE, seed=5) as loader:
        assert len(loader) == COUNT
        ids = np.concatenate([loader.next().ids for _ in range(COUNT)])
    epochs = ids.reshape(4, COUNT).tolist()
    assert all(sorted(epoch) == list(range(2, COUNT + 2)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_a_batch_larger_than_the_split(pictures):
    with Loader(pictures, 'test', (7, 3, 8, 8), Region.whole((7, 3, 8, 8)), shuffle=False) as loader:
        batch = loader.next()
        assert batch.ids.tolist() == [1, 0, 1, 0, 1, 0, 1] and batch.state == (3, 1)
        assert len({repr(d) for d in batch.draws}) == 7           # each epoch draws anew


def test_tiles_are_pixels_and_truths_are_boxes(pictures):
    with Loader(pictures, 'test', (2, 3, 60, 70), Region.whole((2, 3, 60, 70)), shuffle=False,
                options=Options(augment=False)) as loader:
        batch = loader.next()
    assert batch.tiles.shape == (2, 1, 60, 70, 3) and batch.tiles.dtype == np.float32
    for slot, i in enumerate(batch.ids):
        h, w = pictures.size(i)
        drawn = batch.draws[slot]
        top, left = drawn.window[:2]
        corner = pictures.read(i, 0, 1, 0, 1)[0, 0] / 255
        assert np.allclose(batch.tiles[slot, 0, top, left], corner, atol=1e-6)
        assert np.allclose(batch.truths[slot], drawn.boxes(pictures.boxes(i)))
        assert len(batch.truths[slot]) == 3


@pytest.mark.parametrize('ahead', [0, 1, 3])
def test_resumes_exactly(pictures, ahead):
    with Loader(pictures, 'train', NET, WHOLE, options=DETECT, seed=3, ahead=0) as loader:
        batches = [loader.next() for _ in range(9)]
    state = 0, 0
    for k in range(9):
        with Loader(pictures, 'train', NET, WHOLE, options=DETECT, seed=3, state=state, ahead=ahead) as loader:
            batch = loader.next()
            assert same(batch, batches[k])
            state = batch.state
    with Loader(pictures, 'train', NET, WHOLE, options=DETECT, seed=4, ahead=ahead) as loader:
        assert not same(loader.next(), batches[0])


def test_any_regions_make_the_whole(pictures):
    """Six ranks, cut along N, H and W unevenly, one of them idle, each with its own loader: together the whole batch."""
    regions = [Region((n0, 0, y0, x0), (n1, 3, y1, x1)) for n0, n1 in ((0, 1), (1, 4)) for y0, y1, x0, x1 in
               ((0, 35, 0, 7), (0, 20, 7, 41), (20, 35, 7, 41))]
    regions.append(Region((0, 0, 4, 4), (4, 3, 4, 9)))
    with Loader(pictures, 'train', NET, WHOLE, options=DETECT, dtype=np.float64) as loader:
        expected = [loader.next() for _ in range(4)]
    for region in regions:
        with Loader(pictures, 'train', NET, region, options=DETECT, dtype=np.float64) as loader:
            for batch in expected:
                mine = loader.next()
                (n0, _, y0, x0), (n1, _, y1, x1) = region.lo, region.hi
                assert mine.tiles.dtype == np.float64
                assert np.array_equal(mine.tiles, batch.tiles[n0:n1, :, y0:y1, x0:x1])
                assert np.array_equal(mine.ids, batch.ids) and all(map(np.array_equal, mine.truths, batch.truths))
    with Loader(pictures, 'train', NET, regions, options=DETECT, dtype=np.float64) as loader:      # one reads for all
        for batch in expected:
            tiles = loader.next().tiles
            assert len(tiles) == 7
            for region, tile in zip(regions, tiles):
                (n0, _, y0, x0), (n1, _, y1, x1) = region.lo, region.hi
                assert np.array_equal(tile, batch.tiles[n0:n1, :, y0:y1, x0:x1])


def test_a_halo_past_the_edge_is_zero(pictures):
    with Loader(pictures, 'train', NET, Region((0, 0, -2, 30), (4, 3, 10, 50)), options=DETECT) as loader:
        tiles = loader.next().tiles
    assert tiles.shape == (4, 1, 12, 20, 3)
    assert not tiles[:, :, :2].any() and not tiles[:, :, :, 11:].any() and tiles[:, :, 2:, :11].all(4).any()


@pytest.mark.parametrize('ahead', [0, 2])
def test_one_pass_ends(pictures, ahead):
    with Loader(pictures, 'train', NET, WHOLE, shuffle=False, once=True, options=Options(augment=False),
                ahead=ahead) as loader:
        batches = list(loader)
        assert loader.next() is None and loader.next() is None
    assert [b.ids.tolist() for b in batches] == [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12, -1]]
    assert batches[-1].truths[-1] is None and batches[-1].draws[-1] is None and not batches[-1].tiles[-1].any()
    assert batches[-1].state == (1, 0)


def test_no_thread_is_left(pictures):
    before = threading.active_count()
    loader = Loader(pictures, 'train', NET, WHOLE)
    loader.next()
    assert threading.active_count() == before + 1
    loader.close()
    loader.close()
    assert threading.active_count() == before
    following = loader.next()              # a closed loader goes on where the caller was
    loader.close()
    with Loader(pictures, 'train', NET, WHOLE, ahead=0) as plain:
        plain.next()
        assert same(plain.next(), following)


def test_it_prepares_no_more_than_asked(pictures):
    made = []
    with Loader(pictures, 'train', NET, WHOLE, ahead=2) as loader:
        make, loader._make = loader._make, lambda state: made.append(state) or make(state)
        loader.next()
        limit = time.monotonic() + 20
        while len(made) < 4 and time.monotonic() < limit:
            time.sleep(.01)
        time.sleep(.2)
        assert len(made) == 4              # one handed out, two waiting, one in hand


def test_an_error_in_the_thread_is_raised_in_the_caller(pictures):
    class Broken:
        path = 'broken.h5'

        def __getattr__(self, name):
            return getattr(pictures, name)

        def read(self, i, *_):
            if i == 6:
                raise DataError('broken.h5: picture 6 cannot be read')
            return pictures.read(i, *_)
    with Loader(Broken(), 'train', NET, WHOLE, shuffle=False) as loader:
        assert loader.next().ids.tolist() == [2, 3, 4, 5]
        for _ in range(2):                 # and again, for whoever asks again
            with pytest.raises(DataError, match='picture 6 cannot be read'):
                loader.next()
    assert not [t for t in threading.enumerate() if t.name == 'loader']


def test_what_cannot_be_loaded(pictures):
    for arguments, words in ((dict(split='none'), 'split "none" holds no pictures'),
                             (dict(split='trian'), 'did you mean "train"'),
                             (dict(net_shape=(4, 1, 8, 8)), 'the network expects 1'),
                             (dict(options=Options('classify')), 'holds boxes, not one class'),
                             (dict(state=(3, COUNT)), 'has 11 pictures, cannot go on after 11')):
        with pytest.raises(DataError, match=words):
            Loader(**{**dict(pictures=pictures, split='train', net_shape=NET, regions=WHOLE), **arguments})


def test_labels_for_a_classifier(tmp_path):
    with writing(tmp_path / 'p.h5', ['a', 'b'], (9, 9), labelled=True) as writer:
        for label in (1, 0, 1):
            writer.add('x', np.zeros((9, 9, 3), np.uint8), label=label)
    with Pictures(tmp_path / 'p.h5') as pictures:
        with Loader(pictures, 'all', (3, 3, 8, 8), Region.whole((3, 3, 8, 8)), shuffle=False,
                    options=Options('classify')) as loader:
            assert loader.next().truths == [1, 0, 1]
