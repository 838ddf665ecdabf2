"""Which algorithm computes a convolution. Asked once for each layer and pass with the size of the whole map, so that all
tiles of a layer, on whatever grid, take the same."""
from .layout import BLOCK

ALGORITHMS = 'direct', 'winograd2', 'winograd4'
MARGIN = 1.05           # another algorithm than the rule's must be that much faster, so that noise changes nothing
_SWITCHES = {'off': 'direct', '2': 'winograd2', '4': 'winograd4', 'auto': None}
_switch, _workspace, _rates = 'auto', None, {}


def set_winograd(switch, workspace=None):
    """'off': direct everywhere; '2', '4': F(2x2, 3x3) or F(4x4, 3x3) wherever it applies; 'auto': the fastest as measured.
    workspace: bytes of scratch memory that no choice may exceed (of a process with its threads, for a whole map).

    F(2x2) is as exact as direct convolution, F(4x4) three to six times less so (1e-6 relative instead of 3e-7).
    """
    global _switch, _workspace
    if switch not in _SWITCHES:
        raise ValueError(f'winograd is {switch!r}; expected one of {", ".join(_SWITCHES)}')
    _switch, _workspace = switch, workspace


def set_rates(rows):
    """What 'auto' goes by from now on: rows (pass_, in_channels, out_channels, map_h, map_w, algorithm, seconds), the times of
    a typical tile of such a layer. The same on all processes of a run, as choices must be; () goes back to the rule."""
    global _rates
    _rates = {}
    for pass_, inputs, outputs, h, w, algorithm, seconds in rows:
        _rates.setdefault((pass_, inputs, outputs, h, w), {})[algorithm] = seconds


def choosable(in_channels, out_channels, k, stride, dilation=1, groups=1):
    """Whether Winograd's algorithms can compute such a convolution and 'auto' leaves the choice to measurements."""
    return _switch == 'auto' and _applies(in_channels, out_channels, k, stride, dilation, groups)


def _applies(in_channels, out_channels, k, stride, dilation, groups):
    return k in (3, (3, 3)) and stride == dilation == groups == 1 and min(in_channels, out_channels) >= BLOCK


def choose(pass_, in_channels, out_channels, k, stride, map_h, map_w, dilation=1, groups=1):
    """'direct', 'winograd2' or 'winograd4' for pass_ 'forward', 'backward_data' or 'backward_weights' of a convolution with
    k x k filters (an int, or a tuple) and an output map of map_h x map_w pixels."""
    if not _applies(in_channels, out_channels, k, stride, dilation, groups):
        return 'direct'
    allowed = [a for a in ALGORITHMS if _fits(pass_, a, in_channels, out_channels, map_h, map_w)]
    rule = _SWITCHES[_switch] or _rule(in_channels, out_channels, map_h, map_w)
    rule = next(a for a in (rule, *reversed(ALGORITHMS)) if a in allowed and ALGORITHMS.index(a) <= ALGORITHMS.index(rule))
    measured = _rates.get((pass_, in_channels, out_channels, map_h, map_w), {}) if _switch == 'auto' else {}
    times = {a: seconds for a, seconds in measured.items() if a in allowed}
    if rule not in times:
        return rule
    best = min(times, key=times.get)
    return best if times[best] * MARGIN < times[rule] else rule


def _fits(pass_, algorithm, in_channels, out_channels, map_h, map_w):
    if _workspace is None or algorithm == 'direct':
        return True
    from .convolution import workspace_bytes
    from .threads import get_threads
    shared, own = workspace_bytes(pass_, algorithm, in_channels, out_channels, (3, 3), 1, map_h, map_w)
    return shared + own * get_threads() <= _workspace


def _rule(in_channels, out_channels, map_h, map_w):
    """Measured with the contestants of bench.py on a Zen 5 core, 1 and 4 samples. A small map has too few tiles to pay for the transforms of the filters."""
    side, channels = min(map_h, map_w), min(in_channels, out_channels)
    if side >= 12 or side >= 8 and channels >= 128:
        return 'winograd4'
    return 'winograd2' if side >= 7 and channels >= 256 else 'direct'
