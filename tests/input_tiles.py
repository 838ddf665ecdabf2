"""What the tests of a network's input share: pictures of noise, options, and a tile as a function's value."""
import numpy as np

from mpi_ftp.augment import Options, input_tile
from mpi_ftp.pictures import Loose
from mpi_ftp.region import Region

DETECT = Options(jitter=.3, hue=.1, saturation=1.5, exposure=1.5)
CLASSIFY = Options('classify', hue=.1, saturation=1.5, exposure=1.5, aspect=1.3, angle=15)


def picture(h, w, seed=0):
    return np.random.default_rng([seed, h, w]).integers(0, 256, (h, w, 3), dtype=np.uint8)


def whole(net_h, net_w):
    return Region((0, 0, 0, 0), (1, 3, net_h, net_w))


def tile(pixels, drawn, net_h, net_w, region=None, dtype=np.float64):
    region = region or whole(net_h, net_w)
    out = np.full((*region.shape[2:], 3), np.nan, dtype)
    input_tile(out, Loose([pixels]), 0, drawn, region, net_h, net_w)
    return out
