"""The table of a plan, as Darknet prints its layers: what each is, who owns what of it, what travels, what it costs."""
from .geometry import whole

UNEVEN = 1.25               # times as much work as another rank: worth a line
SHOWN = 8                   # ranks in that line


def layout_words(plan, group):
    """How a group's output is cut, in a few letters: 2x3 grid, filters/4, samples/2, rank 0; and in what parts."""
    n, c, h, w = (len(edges) - 1 for edges in group.edges)
    words = []
    if h * w > 1:
        words.append(f'{h}x{w}')
    if c > 1:
        words.append(f'filters/{c}')
    if n > 1:
        words.append(f'samples/{n}')
    cut = ' '.join(words) or ('all' if plan.ranks == 1 else f'rank {(plan.order or (0,))[0]}')
    return cut + (', {}x{} parts'.format(*group.parts) if group.parted else '')


def brief(plan):
    """A plan's groups in a line: first layer and cut along N, C, H, W."""
    return ' '.join(f'{g.start}:' + 'x'.join(f'{len(edges) - 1}{axis}' for axis, edges in zip('NCHW', g.edges) if len(edges) > 2 or axis == 'N')
                    .replace('1Nx', '').replace('1N', 'whole') for g in plan.groups)


def side(region):
    """Columns x rows x channels of a box, with its samples before them where there are several."""
    n, c, h, w = region.shape
    return 'nothing' if region.empty else f'{n}x ' * (n > 1) + f'{w}x{h}x{c}'


def work_shares(network, plan, layouts):
    """Who does how much of the work, in a line; '' where all do as much."""
    done = [0.0] * plan.ranks
    for group in plan.groups:
        for index in range(group.start, group.stop):
            layer = network.layers[index]
            for rank, region in enumerate(layouts[index]):
                done[rank] += layer.flops(region)
    parts = [(number / sum(done), rank) for rank, number in enumerate(done) if number]
    if not parts or max(parts)[0] < UNEVEN * min(parts)[0]:
        return ''
    most = sorted(parts, key=lambda part: (-part[0], part[1]))
    return 'of the work: ' + ', '.join(f'rank {rank} {100 * share:.0f} %' for share, rank in most[:SHOWN]) + f', {len(most) - SHOWN} others less' * (len(most) > SHOWN)


def plan_table(network, plan):
    """A rich table: a line for each layer; what the plan predicts stands beside the first layer of each group."""
    from rich.table import Table
    predicted = plan.predicted
    title = f'{plan.ranks} rank{"s" * (plan.ranks > 1)}, {plan.batch} picture{"s" * (plan.batch > 1)} at a time'
    busy = len({rank for layout in plan.layouts(network).values() for rank, region in enumerate(layout) if not region.empty})
    if busy < plan.ranks:
        title += f', {busy} of them at work'
    if predicted:
        title += f': {1e3 * predicted["seconds"]:.1f} ms a step, {predicted["bytes"] / (1 << 20):.0f} MiB on the fullest rank (predicted)'
    table = Table(title=title, box=None, header_style='bold', pad_edge=False)
    for name, justify in (('layer', 'right'), ('kind', 'left'), ('size', 'right'), ('output', 'right'), ('group', 'right'), ('cut', 'left'),
                          ('largest tile', 'right'), ('extra', 'right'), ('halo KiB', 'right'), ('peers', 'right'), ('forward', 'right'),
                          ('backward', 'right'), ('again', 'right'), ('exchange', 'right')):
        table.add_column(name, justify=justify, no_wrap=True)
    layouts = plan.layouts(network)
    some = range(plan.ranks) if plan.ranks <= 16 else range(0, plan.ranks, max(1, plan.ranks // 16))
    for number, group in enumerate(plan.groups):
        shares = [plan.share(network, layouts, group, rank) for rank in some]
        row = (predicted.get('groups') or [{}] * len(plan.groups))[number]
        for index in range(group.start, group.stop):
            layer, head = network.layers[index], index == group.start
            boxes = [s.held[index] & whole(network, index, s.held[index]) for s in shares]
            times = [f'{1e3 * row[part]:.2f}' if row.get(part) else '' for part in ('forward', 'backward', 'recompute', 'exchange')]
            table.add_row(str(index), short(layer), window(layer), '{2}x{1}x{0}'.format(*layer.out_shape), str(number) if head else '',
                          layout_words(plan, group) if head else '', side(max(boxes, key=lambda b: b.size)),
                          extra(shares, layouts, index, some), f'{row.get("halo_bytes", 0) / 1024:.0f}' if head and row.get('halo_bytes') else '',
                          str(row['messages']) if head and row.get('messages') else '', *(times if head else [''] * 4),
                          end_section=index == group.last)
            if index in group.cuts:
                table.add_row('', '[dim]backward cut[/]')
    notes = [caption(predicted)] if predicted else []
    early = [str(number) for number, (group, row) in enumerate(zip(plan.groups, predicted.get('groups', ()))) if group.early and not group.parted
             and row.get('early', 0) > 0]
    if early:
        notes.append(f'begin in the middle of their tiles while halos travel: group{"s" * (len(early) > 1)} {", ".join(early)}')
    if busy < plan.ranks:
        notes.append(f'{plan.ranks - busy} of {plan.ranks} ranks own no tile: they wait, and sum no gradients; --grid RxC gives each of R·C ranks one')
    uneven = work_shares(network, plan, layouts)
    if uneven:
        notes.append(uneven)
    table.caption = '\n'.join(notes)
    return table


def extra(shares, layouts, index, some):
    """Redundant work of the ranks shown, in per cent."""
    owned = sum(layouts[index][rank].size for rank in some)
    done = sum(s.computed[index].size for s in shares)
    return f'{100 * (done / owned - 1):.0f} %' if owned and done > owned * 1.005 else ''


def short(layer):
    return {'convolutional': 'conv', 'connected': 'conn', 'maxpool': 'max', 'avgpool': 'avg'}.get(layer.kind, layer.kind)


def window(layer):
    """3x3/1 of a layer with windows, else nothing."""
    for rows in (getattr(layer, 'rows', None), getattr(layer, 'window', None)):
        if rows is not None:
            return f'{rows.size}x{getattr(layer, "columns", rows).size}/{rows.stride}'
    return ''


def caption(predicted):
    """Parts of the step and of the memory in two lines."""
    names = {'norm_sums': 'norm sums', 'gradient_sums': 'gradient sums', 'recompute': 'again'}
    parts = ', '.join(f'{names.get(name, name)} {1e3 * seconds:.1f}' for name, seconds in predicted['parts'].items() if seconds > 5e-5)
    memory = ', '.join(f'{name} {nbytes / (1 << 20):.0f}' for name, nbytes in predicted['memory'].items() if nbytes >> 19)
    before = predicted['bytes'] >> 20 > sum(predicted['memory'].values()) >> 20
    more = f'; measuring rates took {predicted["bytes"] >> 20} before' if before else ''
    return f'ms: {parts}\nMiB on rank {predicted["fullest"]}: {memory}{more}'
