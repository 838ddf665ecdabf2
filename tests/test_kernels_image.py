"""Colours against numbers that Darknet printed, and against a literal reading of its image.c."""
import numpy as np
import pytest

from darknet_image import distort_image
from input_tiles import picture
from mpi_ftp.kernels.image import distort


def test_distort_as_darknet_computed_it():
    """Numbers printed by Darknet's own distort_image(hue .1, saturation 1.5, exposure .7), compiled from its source."""
    colours = np.array([[[.9, .2, .1], [.1, .8, .3], [.2, .3, .7], [.5, .5, .5], [0, 0, 0], [1, 1, 0]]])
    expected = [[.63, .399, 0], [0, .56, .476], [.175, 0, .49], [.35, .35, .35], [0, 0, 0], [.07, .7, 0]]
    out = colours.copy()
    distort(out, .1, 1.5, .7)
    assert np.allclose(out[0], expected, atol=1e-6)
    assert np.allclose(distort_image(colours, .1, 1.5, .7)[0], expected, atol=1e-6)


@pytest.mark.parametrize('hue, saturation, exposure', [(.1, 1.5, .7), (-.3, .5, 1.4), (.5, 1, 1), (0, 1, 1)])
def test_distort(hue, saturation, exposure):
    image = np.concatenate([np.random.default_rng(0).random((30, 20, 3)), picture(30, 5) / 255, np.full((30, 1, 3), .5)], 1)
    out = image.copy()
    distort(out, hue, saturation, exposure)
    assert np.allclose(out, distort_image(image, hue, saturation, exposure), atol=1e-12)
    assert out.min() >= 0 and out.max() <= 1
