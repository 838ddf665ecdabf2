"""What a profile has found, as tables on the screen."""
from .screen import show as show_table
from .tables import by_ranks

CONVOLUTION = 'forward', 'backward_data', 'backward_weights'
PASSES = {'forward': 'forward', 'finish': 'forward', 'backward_data': 'gradient', 'unfinish': 'gradient', 'backward_weights': 'weights',
          'finish_pooled': 'with pool: forward', 'unfinish_pooled': 'with pool: gradient'}


def show(machine):
    """Print a Machine that was measured."""
    for table in convolutions(machine), algorithms(machine), others(machine), collectives(machine):
        if table:
            show_table(table, 110)
            print()
    for name, value in figures(machine):
        print(f'{name:34} {value}')


def convolutions(machine):
    """Rates of all shapes of convolutions."""
    from rich.table import Table
    threads = f'{machine.threads} thread{"s" * (machine.threads > 1)}'
    table = Table(title=f'{machine.note}: GFLOP/s of convolutions on {threads}, largest tile', box=None)
    for name in ('window', 'channels', 'algorithm', 'forward', 'input gradient', 'weight gradient'):
        table.add_column(name, justify='right')
    rates = {}
    for curve in machine.curves:
        if curve.layer.filters and curve.pass_ in CONVOLUTION:
            flops = 2 * curve.layer.inputs * curve.layer.outputs * curve.layer.size ** 2 / curve.layer.groups * curve.pixels[-1]
            rates.setdefault(curve.layer, {})[curve.pass_] = f'{flops / curve.seconds[-1] / 1e9:.0f}'
    for layer, row in rates.items():
        table.add_row(f'{layer.size}x{layer.size}/{layer.stride}', f'{layer.inputs} to {layer.outputs}', layer.algorithm, *(row.get(name, '') for name in CONVOLUTION))
    return table


def algorithms(machine):
    """Times of the algorithms among which a layer may choose, the chosen one first in its row; None where nothing is to choose."""
    from rich.table import Table
    found = {}
    for pass_, channels, filters, h, w, algorithm, seconds in machine.algorithms:
        found.setdefault((pass_, channels, filters, h, w), []).append((seconds, algorithm))
    if not found:
        return None
    table = Table(title='convolutions of 3x3: milliseconds of each algorithm on a typical tile', box=None)
    for name in ('pass', 'channels', 'map', 'quickest', 'others'):
        table.add_column(name, justify='right')
    for (pass_, channels, filters, h, w), times in found.items():
        quickest, *others = (f'{algorithm} {1e3 * seconds:.2f}' for seconds, algorithm in sorted(times))
        table.add_row(pass_.replace('_', ' '), f'{channels} to {filters}', f'{h}x{w}', quickest, ', '.join(others))
    return table


def others(machine):
    """Rates of what passes over memory: norms with their activation, alone and with the pool that follows; layers without weights."""
    from rich.table import Table
    table = Table(title='other passes: numbers of the output in a nanosecond, largest tile', box=None)
    rates = {}
    for curve in machine.curves:
        layer = curve.layer
        if curve.pass_ not in CONVOLUTION or not layer.filters:
            name = 'norm' if layer.normalize else 'bias' if layer.filters else layer.kind + f' {layer.size}x{layer.size}/{layer.stride}' * (layer.kind == 'maxpool')
            rates.setdefault((name, layer.outputs), {})[PASSES[curve.pass_]] = f'{curve.pixels[-1] * layer.outputs / max(1e-9, curve.seconds[-1]) * 1e-9:.2f}'
    columns = [name for name in dict.fromkeys(PASSES.values()) if any(name in row for row in rates.values())]
    for name in ('layer', 'channels', *columns):
        table.add_column(name, justify='right')
    for (name, channels), row in sorted(rates.items()):
        table.add_row(name, str(channels), *(row.get(column, '') for column in columns))
    return table if rates else None


def collectives(machine):
    """Milliseconds of sums, all-gathers and reduce-scatters, against size and number of ranks; None where there was one rank."""
    from rich.table import Table
    found = {'sum': machine.sum_tables, 'all-gather': by_ranks(machine.gathers), 'reduce-scatter': by_ranks(machine.scatters)}
    counts = sorted({ranks for tables in found.values() for ranks in tables})
    if not counts:
        return None
    table = Table(title='milliseconds on so many ranks', box=None)
    for name in ('', 'bytes', *map(str, counts)):
        table.add_column(name, justify='right')
    for name, tables in found.items():
        times = {ranks: dict(points) for ranks, points in tables.items()}
        for nbytes in sorted({nbytes for points in times.values() for nbytes in points}):
            table.add_row(name, size(nbytes), *(f'{1e3 * times[n][nbytes]:.3f}' if nbytes in times.get(n, {}) else '' for n in counts))
    return table


def size(nbytes):
    return f'{nbytes >> 20} Mi' if nbytes >= 1 << 20 else f'{nbytes >> 10} Ki' if nbytes >= 1 << 10 else str(nbytes)


def figures(machine):
    """[(name, value)] of what needs no table."""
    found = [('memory: copying', f'{1e-9 / machine.copy:.1f} GB/s'), ('memory: adding to an array', f'{1e-9 / machine.add:.1f} GB/s'),
             ('optimizer', f'{1e9 * machine.sgd:.2f} ns a weight'), ('picture, prepared', f'{1e9 * machine.picture:.1f} ns a pixel'),
             ('process without a model', f'{machine.base >> 20} MiB')]
    hosts = len(set(machine.hosts))
    if len(machine.hosts) > hosts:
        found.append(('link inside a host', f'{1e6 * machine.host_link[0]:.1f} us, {machine.host_link[1] / 1e9:.2f} GB/s'))
    if hosts > 1:
        found.append(('link between hosts', f'{1e6 * machine.net_link[0]:.0f} us, {machine.net_link[1] / 1e6:.1f} MB/s'))
    if len(machine.hosts) > 1:
        found += [('one more message, out and in', f'{1e6 * machine.message:.1f} us'),
                  ('work of a MB of messages, out and in', f'{1e9 * machine.labour:.2f} ms'), ('slowest rank', f'{max(machine.speeds):.2f} times the typical one'),
                  ('strain of computing together', f'{machine.strain:.2f}'), ('lost each time that ranks meet', f'{1e6 * machine.meeting:.0f} us')]
    return found
