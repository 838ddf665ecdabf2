"""Which algorithm computes a convolution. Asked once for each layer and pass with the size of the whole map, so that all
tiles of a layer, on whatever grid, take the same."""

ALGORITHMS = 'direct', 'winograd2', 'winograd4'
_SWITCHES = {'off': 'direct', '2': 'winograd2', '4': 'winograd4', 'auto': None}
_switch = 'auto'


def set_winograd(switch):
    """'off': direct everywhere; '2', '4': F(2x2, 3x3) or F(4x4, 3x3) wherever it applies; 'auto': the fastest as measured.

    F(2x2) is as exact as direct convolution, F(4x4) three to six times less so (1e-6 relative instead of 3e-7).
    """
    global _switch
    if switch not in _SWITCHES:
        raise ValueError(f'winograd is {switch!r}; expected one of {", ".join(_SWITCHES)}')
    _switch = switch


def choose(pass_, in_channels, out_channels, k, stride, map_h, map_w, dilation=1, groups=1):
    """'direct', 'winograd2' or 'winograd4' for pass_ 'forward', 'backward_data' or 'backward_weights' of a convolution with
    k x k filters (an int, or a tuple) and an output map of map_h x map_w pixels. So far every pass takes the same."""
    if k not in (3, (3, 3)) or stride != 1 or dilation != 1 or groups != 1 or min(in_channels, out_channels) < 16:
        return 'direct'
    return _SWITCHES[_switch] or _fastest(in_channels, out_channels, map_h, map_w)


def _fastest(in_channels, out_channels, map_h, map_w):
    """Measured with `python -m mpi_ftp.kernels` on a Zen 5 core. A small map fills its last tiles badly, and then has too few
    of them to pay for the transforms of the filters."""
    side, channels = min(map_h, map_w), min(in_channels, out_channels)
    if side >= 12:
        return 'winograd4'
    return 'winograd2' if side >= 7 and channels >= 256 else 'direct'
