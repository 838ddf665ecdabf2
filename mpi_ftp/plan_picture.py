"""A picture of a plan: the tiles of every group with what each rank must hold beyond its own, and bars of time and memory."""
from .cost import at_work
from .geometry import whole
from .plan_table import layout_words
from .region import Region

NAMES = {'forward': 'forward', 'backward': 'backward', 'recompute': 'again', 'exchange': 'exchange', 'norm_sums': 'norm sums',
         'gradient_sums': 'gradient sums', 'optimizer': 'optimizer', 'input': 'input'}
SHOWN = 12                  # groups and ranks that a picture has room for
LABELS = 32                 # of groups, below their bars


def draw_plan(path, network, plan, footprint=None):
    """Write the picture as PNG. footprint: of the plan, for bars of memory of every rank; else those of the fullest rank."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    groups = spread(plan.groups, SHOWN)
    figure = pyplot.figure(figsize=(13, 8.5), layout='constrained')
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    columns = min(6, len(groups))
    axes = list(upper.subplots(-(-len(groups) // columns), columns, squeeze=False).flat)
    layouts = plan.layouts(network)
    for axis, (number, group) in zip(axes, groups):
        draw_group(axis, network, plan, layouts, number, group)
    for axis in axes[len(groups):]:
        axis.axis('off')
    predicted = plan.predicted
    words = f'{plan.ranks} rank{"s" * (plan.ranks > 1)}, batch {plan.batch}'
    busy = at_work(plan)
    words += f', {busy} at work' * (busy < plan.ranks)
    if predicted:
        words += f': {1e3 * predicted["seconds"]:.1f} ms a step, at most {predicted["bytes"] / (1 << 20):.0f} MiB'
        times, memory = lower.subplots(1, 2, width_ratios=(1.7, 1))
        draw_times(times, predicted, plan)
        draw_memory(memory, predicted, footprint)
    words += f'; {len(groups)} of {len(plan.groups)} groups' * (len(groups) < len(plan.groups))
    upper.suptitle(words, fontsize=12)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def spread(groups, most):
    """[(number, group)], evenly chosen where there are more than `most`."""
    numbered = list(enumerate(groups))
    if len(numbered) <= most:
        return numbered
    return [numbered[round(i * (len(numbered) - 1) / (most - 1))] for i in range(most)]


def colour(rank):
    from matplotlib import colormaps
    return colormaps['tab20'](rank % 20 / 20 + .001)


def draw_group(axis, network, plan, layouts, number, group):
    """Own tiles of the group's input (or output where it is cut otherwise than by rows and columns), held boxes around them."""
    from matplotlib.patches import Rectangle
    n, c, h, w = (len(edges) - 1 for edges in group.edges)
    first = network.layers[group.start]
    source = first.inputs[0]
    _, height, width = network.channels_shape(source)
    boxes = [plan.share(network, layouts, group, rank).held.get(source, Region((0,) * 4, (0,) * 4)) for rank in range(plan.ranks)]
    if h * w > 1 and c == 1:
        shown = {}                          # ranks that own the same pixels, of different samples
        for rank, box in enumerate(boxes):
            box = box & whole(network, source, box)
            own = own_part(network, plan, group, layouts, source, rank)
            if box.empty:
                continue
            axis.add_patch(Rectangle((own[1][0], own[0][0]), own[1][1] - own[1][0], own[0][1] - own[0][0], facecolor=colour(rank), alpha=.75, linewidth=0))
            axis.add_patch(Rectangle((box.lo[3], box.lo[2]), box.hi[3] - box.lo[3], box.hi[2] - box.lo[2], facecolor=colour(rank), edgecolor=colour(rank), alpha=.22, linewidth=0))
            axis.add_patch(Rectangle((box.lo[3], box.lo[2]), box.hi[3] - box.lo[3], box.hi[2] - box.lo[2], fill=False, edgecolor=colour(rank), linewidth=1.2, linestyle='--'))
            shown.setdefault(own, []).append(rank)
        for ((top, bottom), (left, right)), ranks in shown.items():
            axis.text((left + right) / 2, (top + bottom) / 2, brief(ranks), ha='center', va='center', fontsize=9 if plan.ranks <= 16 else 6)
    else:
        for ((top, bottom), (left, right)), ranks in strips(network, plan, group, layouts).items():
            axis.add_patch(Rectangle((left * width, top * height), (right - left) * width, (bottom - top) * height, facecolor=colour(ranks[-1]), alpha=.75,
                                     hatch='//' if c > 1 else '..', edgecolor='white'))
            axis.text((left + right) / 2 * width, (top + bottom) / 2 * height, brief(ranks), ha='center', va='center', fontsize=9 if plan.ranks <= 16 else 6,
                      rotation=0 if plan.ranks <= 16 else 90)
    axis.set_xlim(-.03 * width - .5, 1.03 * width + .5)
    axis.set_ylim(1.03 * height + .5, -.03 * height - .5)
    axis.set_aspect('equal')
    axis.set_xticks([])
    axis.set_yticks([])
    span = f'layer {group.start}' if group.last == group.start else f'layers {group.start}–{group.last}'
    axis.set_title(f'{number}: {span}, {layout_words(plan, group)}\nreads {width}x{height}' + (', recomputed' if group.recompute else ''), fontsize=8.5)


def brief(ranks):
    """Numbers of ranks in one place, not too many."""
    return ' '.join(map(str, ranks)) if len(ranks) <= 4 else f'{ranks[0]} … {ranks[-1]}'


def strips(network, plan, group, layouts):
    """{((top, bottom), (left, right)) as fractions: ranks there}: filters (or samples) of the group's output from left to right, with rows and columns
    inside; ranks that own the same filters, of different samples, are in one place."""
    channels, rows, columns = network.channels_shape(group.last)
    found = {}
    for rank, box in enumerate(layouts[group.last]):
        if not box.empty:
            along, size = (1, channels) if len(group.edges[1]) > 2 else (0, plan.batch)
            left, right = box.lo[along] / size, box.hi[along] / size
            place = (box.lo[2] / rows, box.hi[2] / rows), (left + (right - left) * box.lo[3] / columns, left + (right - left) * box.hi[3] / columns)
            found.setdefault(place, []).append(rank)
    return found


def own_part(network, plan, group, layouts, source, rank):
    """((top, bottom), (left, right)) that a rank owns of a group's input; of one that is cut otherwise, what its part of the output stands on."""
    made = next((g for g in plan.groups if g.start <= source < g.stop), None)
    if made and len(made.edges[2]) + len(made.edges[3]) > 4 and not layouts[source][rank].empty:
        box = layouts[source][rank]
        return (box.lo[2], box.hi[2]), (box.lo[3], box.hi[3])
    box = layouts[group.last][rank]
    ratio = network.scales[group.last] / network.scales[source]
    _, h, w = network.channels_shape(source)
    _, high, wide = network.channels_shape(group.last)
    found = []
    for axis, size, count in ((2, h, high), (3, w, wide)):
        found.append(tuple(size if e >= count else min(size, int(e * ratio)) for e in (box.lo[axis], box.hi[axis])))
    return tuple(found)


def draw_times(axis, predicted, plan):
    """Stacked parts of every group, and what remains at the end of the step."""
    from matplotlib import colormaps
    rows = predicted['groups']
    labels = [f'{g.start}' if g.start == g.last else f'{g.start}–{g.last}' for g in plan.groups] + ['end']
    bottom = [0.0] * (len(rows) + 1)
    for k, (part, name) in enumerate(NAMES.items()):
        inside = [1e3 * row.get(part, 0.0) for row in rows]
        values = inside + [1e3 * predicted['parts'][part] - sum(inside)]
        if sum(values) > 0:
            axis.bar(labels, values, bottom=bottom, label=f'{name} {1e3 * predicted["parts"][part]:.1f}', color=colormaps['Set2'](k), width=.75)
            bottom = [a + b for a, b in zip(bottom, values)]
    axis.set_title('predicted ms of a step, by layers of each group', fontsize=10)
    named = range(0, len(labels), -(-len(labels) // LABELS))
    axis.set_xticks(list(named), [labels[k] for k in named])
    axis.set_ylim(top=1.08 * max(bottom))
    axis.tick_params(axis='x', labelsize=8, rotation=0 if len(rows) < 12 else 60)
    axis.legend(fontsize=8, frameon=False, loc='upper left', bbox_to_anchor=(1, 1))
    axis.spines[['top', 'right']].set_visible(False)


def draw_memory(axis, predicted, footprint):
    """Stacked parts of each rank's bytes."""
    from matplotlib import colormaps
    ranks = [predicted['fullest']] if footprint is None else [rank for rank, _ in spread(list(footprint.different()), SHOWN)]
    rows = [predicted['memory']] if footprint is None else [footprint.parts(rank) for rank in ranks]
    labels, left = [f'rank {rank}' for rank in ranks], [0.0] * len(ranks)
    for k, part in enumerate(rows[0]):
        values = [row[part] / (1 << 20) for row in rows]
        axis.barh(labels, values, left=left, label=f'{part} {values[0]:.0f}' if footprint is None else part, color=colormaps['Pastel1'](k), height=.6)
        left = [a + b for a, b in zip(left, values)]
    axis.invert_yaxis()
    axis.set_title('predicted MiB' + f', {len(ranks)} of {footprint.plan.ranks} ranks' * bool(footprint and len(ranks) < footprint.plan.ranks), fontsize=10)
    axis.legend(fontsize=8, frameon=False, loc='upper center', bbox_to_anchor=(.5, -.06), ncols=6 if footprint else 3, columnspacing=1)
    axis.spines[['top', 'right']].set_visible(False)
