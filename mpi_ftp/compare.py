"""Plans side by side: named alternatives, numbers of ranks, networks and links. Finds no plan itself."""
from .cost import at_work
from .errors import JobError, MemoryRefused, PlanError
from .plan_table import layout_words

LAYOUTS = 'spatial', 'samples', 'tail'
GROUPS = 'auto', 'per-layer', 'fused'
SHOWN = 'forward', 'backward', 'recompute', 'exchange', 'norm_sums', 'gradient_sums'


def alternative(text):
    """Options of find_plan from words: a layout, a grid, groups, and backward cuts after the word cuts, e.g. 'spatial 2x3 0/4/8 cuts 2/6'. Raises JobError."""
    found, words = {}, text.split()
    while words:
        word = words.pop(0)
        if word in LAYOUTS:
            found['layout'] = word
        elif word in GROUPS:
            found['groups'] = word
        elif word == 'cuts' and words and (words[0] in ('auto', 'none') or layers(words[0])):
            found['cuts'] = words[0] if words[0] in ('auto', 'none') else layers(words[0])
            words.pop(0)
        elif layers(word):
            found['groups'] = layers(word)
        elif grid(word):
            found['grid'] = grid(word)
        else:
            raise JobError(f'plan {text!r}: expected {", ".join(GROUPS + LAYOUTS)}, first layers such as 0/4/8, a grid such as 2x3 (of samples too: 2x1x3), or cuts 2/6, '
                           'with commas between plans')
    return found


def grid(text):
    """(rows, columns) of a text such as 2x3, (samples, rows, columns) of 2x1x3; () for anything else."""
    parts = text.split('x')
    return tuple(map(int, parts)) if len(parts) in (2, 3) and all(part.isdigit() for part in parts) else ()


def layers(text):
    """Numbers with slashes between; () for anything else."""
    parts = text.split('/')
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def attempt(find, *args, **options):
    """The Plan that find(…) gives, or what it refused with."""
    try:
        return find(*args, **options)
    except (MemoryRefused, PlanError) as error:
        return error


def comparison(plans, name):
    """A table of plans: seconds by part, memory, and the speed-up over the first. plans: {label: what `attempt` gave}."""
    from rich.table import Table
    table, first, refused = Table(box=None, header_style='bold'), None, []
    for column in (name, 'grid', 'number of groups', 'ms a step', 'times the first', *(part.replace('_', ' ') for part in SHOWN), 'MiB'):
        table.add_column('again' if column == 'recompute' else column, justify='right')
    for label, plan in plans.items():
        if isinstance(plan, MemoryRefused):
            table.add_row(label, '', '', 'does not fit')
            continue
        if isinstance(plan, PlanError):
            table.add_row(label, '', '', 'impossible')
            refused.append(f'{label}: {plan}')
            continue
        found = plan.predicted
        first = first or found['seconds']
        table.add_row(label, main_cut(plan), str(len(plan.groups)), f'{1e3 * found["seconds"]:.1f}', f'{first / found["seconds"]:.2f}',
                      *(f'{1e3 * found["parts"][part]:.1f}' for part in SHOWN), f'{found["bytes"] / (1 << 20):.0f}')
    table.caption = '\n'.join(refused)
    return table


def main_cut(plan):
    """How the first group is cut, largest maps: 3x2, with the samples before it where they are cut too; and how many ranks are at work, if not all."""
    samples, filters, rows, columns = (len(edges) - 1 for edges in plan.groups[0].edges)
    words = f'{samples}x ' * (samples > 1) + (f'filters/{filters}' if filters > 1 else f'{rows}x{columns}')
    busy = at_work(plan)
    return words + f', {busy} at work' * (busy < plan.ranks)


def choices(plans):
    """A table of what was chosen: for each (network's name, link, ranks, plan and that of one rank, or None where there is none)."""
    from rich.table import Table
    table = Table(box=None, header_style='bold')
    for column, justify in (('network', 'left'), ('link', 'right'), ('ranks', 'right'), ('s a step', 'right'), ('speed-up', 'right'), ('groups', 'right'),
                            ('MiB', 'right'), ('layers and how they are cut', 'left')):
        table.add_column(column, justify=justify, overflow='fold')
    for name, link, ranks, plan, alone in plans:
        if plan is None:
            table.add_row(name, link, str(ranks), 'does not fit')
            continue
        found, faster = plan.predicted, f'{alone.predicted["seconds"] / plan.predicted["seconds"]:.2f}' if alone else ''
        table.add_row(name, link, str(ranks), f'{found["seconds"]:.3f}', faster, str(len(plan.groups)), f'{found["bytes"] / (1 << 20):.0f}',
                      kinds(plan))
    return table


def kinds(plan):
    """Layers by how their outputs are cut, in a line: '3x2: 0–11 13 15; filters/3 samples/2: 12 14'."""
    spans = {}
    for group in plan.groups:
        listed = spans.setdefault(layout_words(plan, group).split(',')[0], [])
        if listed and listed[-1][1] == group.start - 1:
            listed[-1][1] = group.last
        else:
            listed.append([group.start, group.last])
    return '; '.join(f'{words}: ' + ' '.join(str(a) if a == b else f'{a}–{b}' for a, b in listed) for words, listed in spans.items())


def verdict(plans):
    """One sentence on where more ranks stop paying, and why. plans: {ranks: Plan}."""
    counts = sorted(plans)
    seconds = {n: plans[n].predicted['seconds'] for n in counts}
    best = min(seconds.values())
    end = next(n for n in counts if seconds[n] <= PAYS * best)
    first = counts[0]
    half = next((n for n in counts if seconds[first] * first < seconds[n] * n / 2), None)
    part, lost = max(losses(plans[first], plans[end]).items(), key=lambda item: item[1])
    paid = f'{end} ranks take {milliseconds(seconds[end])} ms a step, {seconds[first] / seconds[end]:.1f} times as fast as {first}'
    if len(counts) == 1:
        return f'{first} rank{"s" * (first > 1)}: {milliseconds(seconds[first])} ms a step.'
    if end == first:
        return f'More ranks do not pay: {paid.split(",")[0]}.'
    stops = 'more would still pay' if end == counts[-1] else f'more gain less than {100 * (PAYS - 1):.0f} %'
    return (f'{paid}, {stops}; of what is lost to an ideal share, most goes to {REASONS[part]} ({100 * lost / seconds[end]:.0f} % of the step)'
            + (f'; from {half} ranks on more than half of each is lost.' if half else '.'))


def milliseconds(seconds):
    """With a decimal where there are few."""
    return f'{1e3 * seconds:.{1 if seconds < .1 else 0}f}'


PAYS = 1.03
REASONS = {'compute': 'uneven tiles, small tiles and redundant pixels', 'exchange': 'halos and redistribution', 'norm_sums': 'sums of batch norm over ranks',
           'gradient_sums': 'sums of gradients', 'optimizer': 'weights that every rank updates', 'input': 'preparing pictures'}


def losses(first, plan):
    """{part: seconds beyond a fair share of the first plan's}."""
    share, found = first.ranks / plan.ranks, {}
    for part, seconds in plan.predicted['parts'].items():
        name = 'compute' if part in ('forward', 'backward', 'recompute') else part
        found[name] = found.get(name, 0.0) + seconds - share * first.predicted['parts'][part]
    return found
