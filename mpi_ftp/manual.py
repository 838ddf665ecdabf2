"""Plans that are named instead of found: what a patient user would try by hand, grids times groupings."""
from .compare import alternative
from .errors import MemoryRefused, PlanError
from .search import find_plan
from .ways import main_ways

GRIDS = 3


def sweep(network, ranks, batch):
    """Names of the plans of a manual sweep, as compare.alternative understands them: each of three grids with groups of single layers, groups that end
    where maps become smaller, and all layers in one group; and 'auto'."""
    tried = grids(network, ranks, batch)
    return [f'{grid} {groups}' for grid in tried for groups in groupings(network, 2 if len(tried) == GRIDS else 3)] + ['auto']


def grids(network, ranks, batch):
    """The squarest grids, also those that leave a rank idle where there are only strips; the last one cuts the batch too, as evenly as can be, where
    there are several samples."""
    found = list(dict.fromkeys((way.parts[0], *way.grid) for way in main_ways(network, ranks, batch)))
    plain = ['{1}x{2}'.format(*grid) for grid in found if grid[0] == 1]
    several = sorted((grid for grid in found if grid[0] > 1), key=lambda grid: (batch % grid[0] != 0, -grid[0]))[:1]
    return plain[:GRIDS - len(several)] + ['x'.join(map(str, grid)) for grid in several]


def groupings(network, most):
    """per-layer, fused, and up to `most` more: a group from each size of maps to the next, from every second, and from the second on."""
    shrinks = [layer.index + 1 for layer in network.layers[:-1] if layer.out_shape[1] < layer.in_shapes[0][1]]
    starts = [0, *(start for start in shrinks if start < len(network))]
    tried = dict.fromkeys(tuple(choice) for choice in (starts, starts[::2], starts[:1] + starts[2:]) if len(choice) > 1)
    return ['per-layer', *('/'.join(map(str, choice)) for choice in list(tried)[:most]), 'fused']


def named(network, ranks, batch, machine, names):
    """{name: its Plan, or the sentence that tells why there is none}. Raises JobError for a name that is none."""
    found = {}
    for name, options in [(name, alternative(name)) for name in names]:
        try:
            found[name] = find_plan(network, ranks, batch, machine, **options)
        except (PlanError, MemoryRefused) as error:
            found[name] = str(error)
    return found
