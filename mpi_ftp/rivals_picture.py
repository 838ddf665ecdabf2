"""A picture of plans that took turns: measured beside predicted milliseconds of a step, batch by batch."""
from .files import replacing
from .rivals import AUTO, own_name, verdict

DARK, LIGHT, CHOSEN = '#1f5f8b', '#b9d3e3', '#c8641e'


def draw_rivals(path, rows, title):
    """Write the picture as PNG. rows: PlanRows of one batch or several."""
    import textwrap

    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    from matplotlib.patches import Patch
    batches = {}
    for row in rows:
        batches.setdefault(row.batch, []).append(row)
    count, longest = len(batches), max(map(len, batches.values()))
    figure, axes = pyplot.subplots(1, count, figsize=(2.2 + 5.2 * count, 1.7 + .42 * longest), layout='constrained', squeeze=False)
    for axis, (batch, some) in zip(axes[0], batches.items()):
        draw_batch(axis, some)
        sentence = verdict(some).partition(': ')[2]
        axis.set_title('\n'.join([f'batch {batch}', *textwrap.wrap(sentence, 74)]), fontsize=8.5, loc='left')
    handles = [Patch(color=colour, label=label) for colour, label in ((DARK, 'measured'), (CHOSEN, 'measured, auto'), (LIGHT, 'predicted'))]
    figure.legend(handles=handles, loc='outside lower center', ncols=3, fontsize=9, frameon=False)
    figure.suptitle(f'{title}: ms of a training step, and how many times auto\'s, of plans taking turns', fontsize=10.5)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format='png')
    pyplot.close(figure)


def draw_batch(axis, rows):
    """Two bars for each plan, from top to bottom in the order of their names as given; beside them the ratio to 'auto'."""
    auto = next(row for row in rows if row.name == AUTO)
    places = [place for place, row in enumerate(rows) if not row.reason]
    shown = [rows[place] for place in places]
    colours = [CHOSEN if own_name(row) == own_name(auto) else DARK for row in shown]
    top = 1e3 * max(max(row.seconds, row.predicted) for row in shown)
    axis.barh([place - .2 for place in places], [1e3 * row.seconds for row in shown], .4, color=colours)
    axis.barh([place + .2 for place in places], [1e3 * row.predicted for row in shown], .4, color=LIGHT)
    for place, row in zip(places, shown):
        axis.text(1e3 * row.seconds + .01 * top, place - .2, f'{1e3 * row.seconds:.0f}' + ('' if row is auto else f'   × {row.ratio:.2f}'), va='center', fontsize=8)
    for place, row in enumerate(rows):
        if row.reason:
            axis.text(.01 * top, place, row.reason, va='center', fontsize=8, color='.45')
    axis.axvline(1e3 * auto.seconds, color=CHOSEN, linewidth=.8, linestyle=':')
    axis.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8.5)
    axis.set(xlim=(0, 1.17 * top), ylim=(len(rows) - .4, -.6))
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(axis='x', color='.92')
    axis.set_axisbelow(True)
