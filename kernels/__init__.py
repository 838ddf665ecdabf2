"""Arithmetic on arrays in the blocked layout: convolutions, norms, pools and copies.

An activation is (N, CB, H, W, B): channels in zero-padded blocks of B = 16, or the picture interleaved in one block of
B = C < 16. Filters are (OCB, ICB, KH, KW, BI, 16); of a grouped convolution (OCB, KH, KW, C/groups, 16). The two inner
axes of an activation are contiguous, the outer strides are free: a view along N, CB, H or W is as good as an array.
Outputs come first, gradients carry the prefix d, every convolution is "valid". float32 runs through SIMD kernels,
float64 through the loops of `naive`, which are the definition. Nothing here knows of tiles, ranks or layers.

A call checks its arguments, then works; those of `statistics`, `rearrange` and `image` trust their caller. Of the calls that a
training step repeats, `call.ready(...)` with the same arguments returns the work alone, to be done as often as one likes on what
the arrays then hold.

Importing this package costs nothing: numba is imported at the first use of a name.

To read it: layout, naive (the definition), prepared, simd (registers and instructions), micro (the two inner loops), native and jit
(how they are compiled), direct, transform, winograd_tiles and winograd (what calls them), rows and elementwise, threads and team, caches, cache.
"""
import importlib


class Setting(ValueError):
    """An environment variable of this package has a value that it does not understand."""


_HOME = {
    'convolution': 'conv_forward conv_backward_data conv_backward_weights workspace_bytes',
    'elementwise': 'moments normalize_activate activate_backward_reduce activate_backward sgd ACTIVATIONS',
    'pooled': 'normalize_activate_maxpool maxpool_activate_backward_reduce maxpool_activate_backward',
    'pools': 'maxpool_forward maxpool_backward avgpool_forward avgpool_backward',
    'statistics': 'fold_moments add_sums add_terms correct_moments',
    'copies': 'copy_channels add move',
    'half': 'message narrow widen narrow_with_error pack_half unpack_half',
    'rearrange': 'upsample_forward upsample_backward reorg_forward reorg_backward dropout',
    'layout': 'BLOCK blocks to_blocked from_blocked pack_filters unpack_filters',
    'algorithms': 'choose choosable set_winograd set_rates ALGORITHMS',
    'threads': 'set_threads get_threads looking_aside',
    'jit': 'load',
}
_HOME = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module('.' + _HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
