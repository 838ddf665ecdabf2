"""A picture of predicted scaling: speed-up against ranks, and what a step is made of."""
from .compare import verdict
from .plan_picture import NAMES


def draw_scaling(path, plans, title):
    """Write the picture as PNG. plans: {ranks: Plan}."""
    import textwrap

    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import colormaps, pyplot
    counts = sorted(plans)
    seconds = [plans[n].predicted['seconds'] for n in counts]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12.5, 5), layout='constrained')
    ups = [seconds[0] * counts[0] / s for s in seconds]
    left.plot(counts, counts, color='.7', linestyle='--', linewidth=1)
    top = max(*ups, 1) * 1.35
    left.text(min(counts[-1], top) * .96, min(counts[-1], top) * .97, 'ideal ', ha='right', va='top', color='.5', fontsize=9)
    left.plot(counts, ups, marker='o', markersize=4, color='#1f5f8b')
    best = max(range(len(ups)), key=ups.__getitem__)
    left.annotate(f'{ups[best]:.1f} with {counts[best]} ranks', (counts[best], ups[best]), xytext=(-8, 8), textcoords='offset points', ha='right', fontsize=9)
    left.set(xlabel='ranks', ylabel=f'speed-up over {"one rank" if counts[0] == 1 else f"{counts[0]} ranks, times {counts[0]}"}', xlim=(0, None), ylim=(0, top))
    below = [0.0] * len(counts)
    for k, (part, name) in enumerate(NAMES.items()):
        values = [100 * plans[n].predicted['parts'].get(part, 0.0) / s for n, s in zip(counts, seconds)]
        if max(values) > 0:
            above = [a + b for a, b in zip(below, values)]
            right.fill_between(counts, below, above, label=name, color=colormaps['Set2'](k), linewidth=0)
            below = above
    right.set(xlabel='ranks', ylabel='% of a step', xlim=(counts[0], counts[-1]) if len(counts) > 1 else None, ylim=(0, 100))
    right.legend(fontsize=9, loc='lower left', framealpha=.85)
    for axis in left, right:
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(axis='y', color='.92')
        axis.set_axisbelow(True)
    figure.suptitle(title + '\n' + '\n'.join(textwrap.wrap(verdict(plans), 150)), fontsize=10)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
