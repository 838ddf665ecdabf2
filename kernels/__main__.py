"""python -m mpi_ftp.kernels: benchmark of every convolution of the reference workload, of a .cfg or of the shapes given, as a
table and a bar chart."""
import argparse
import importlib.util
import os
import sys

SIDES = 608, 416
# PyTorch allocates its outputs afresh: without these it would pay page faults for each
MALLOC = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(2 ** 34)}


def main():
    options = parse()
    torch = not options.no_torch and importlib.util.find_spec('torch') is not None
    if torch and any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, '-m', __spec__.parent, *sys.argv[1:]], {**os.environ, **MALLOC})
    from . import bench
    shapes = chosen(bench, options)
    rows = convolutions(bench, shapes, options.seconds, torch)
    if not (options.shape or options.cfg):
        elementwise(bench, options.side or SIDES, options.seconds, torch)
    if options.chart:
        chart(rows, options.chart)
        print(f'bar chart: {options.chart}')


def chosen(bench, options):
    """The shapes to measure: one tile of each, if a grid is given, and none twice."""
    rows, columns = (int(x) for x in options.grid.split('x'))
    found = [tuple(int(x) for x in text.split(',')) for text in options.shape or []]
    for name in options.cfg or []:
        from .cfg_shapes import convolutions as read
        with open(name) as file:
            text = file.read()
        found += [shape for side in options.side or [None] for shape in read(text, side)]
    if not found:
        found = [(s.channels, s.filters, s.size, s.stride, s.h, s.w) for side in options.side or SIDES for s in bench.reference(side)]
    tiles = [(*shape, -(-h // rows), -(-w // columns)) for *shape, h, w in found]
    return [bench.Shape(*shape, n=options.batch) for shape in dict.fromkeys(tiles)]


def parse():
    parser = argparse.ArgumentParser(prog='python -m mpi_ftp.kernels', description=__doc__)
    parser.add_argument('side', nargs='*', type=int, help='sides of the picture (608 416, or as the .cfg says)')
    parser.add_argument('--cfg', action='append', metavar='FILE', help='the convolutions of a Darknet .cfg; may be repeated')
    parser.add_argument('--grid', default='1x1', metavar='RxC', help='one tile of a map cut into so many rows and columns (1x1)')
    parser.add_argument('--shape', action='append', metavar='C,F,K,S,H,W',
                        help='channels, filters, filter size, stride, rows and columns of the output; may be repeated')
    parser.add_argument('--batch', type=int, default=1, help='samples (1)')
    parser.add_argument('--seconds', type=float, default=1.0, help='time for each row (1)')
    parser.add_argument('--no-torch', action='store_true', help='leave PyTorch out')
    parser.add_argument('--chart', metavar='FILE.png', help='draw a bar chart')
    return parser.parse_args()


def convolutions(bench, shapes, seconds, torch):
    """Measure and print a table; returns [(shape, pass, peak, {contestant: GFLOP/s})]."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    table = Table(title=f'GFLOP/s on one core, {bench.native.TILE.name} (x best PyTorch; % of multiply-add peak)')
    for head in ('convolution', 'pass', 'peak', 'PyTorch', *bench.kernels.ALGORITHMS):
        table.add_column(head, justify='left' if head in ('convolution', 'pass') else 'right')
    rows = []
    with Live(table, console=Console(width=150), refresh_per_second=2, vertical_overflow='visible'):
        for shape in shapes:
            for name, peak, rates in bench.convolution(shape, seconds, torch):
                rows.append((shape, name, peak, rates))
                best = max((v for k, v in rates.items() if k.startswith('torch')), default=None)
                cells = [_cell(rates.get(a), best, peak) for a in bench.kernels.ALGORITHMS]
                table.add_row(str(shape), name, f'{peak:.0f}', f'{best:.0f}' if best else '-', *cells)
    return rows


def _cell(rate, best, peak):
    if rate is None:
        return '-'
    ratio = f'{rate / best:.2f}x ' if best else ''
    return f'{rate:.0f} ({ratio}{100 * rate / peak:.0f}%)'


def elementwise(bench, sides, seconds, torch):
    from rich.console import Console
    from rich.table import Table
    table = Table(title='milliseconds on one core (x best PyTorch)')
    for head in ('map', 'kernel', 'PyTorch', 'ours'):
        table.add_column(head, justify='left' if head in ('map', 'kernel') else 'right')
    for side in sides:
        for channels, part in ((32, 1), (64, 2), (128, 4), (256, 8), (512, 16)):
            for name, times in bench.elementwise(channels, side // part, seconds / 2, torch):
                best = min((v for k, v in times.items() if k != 'ours'), default=None)
                ratio = f' ({best / times["ours"]:.2f}x)' if best else ''
                table.add_row(f'{channels} @{side // part}x{side // part}', name, f'{best:.2f}' if best else '-',
                              f'{times["ours"]:.2f}{ratio}')
    Console(width=150).print(table)


def chart(rows, path):
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    names = [name for name in ('torch NCHW', 'torch NHWC', 'direct', 'winograd2', 'winograd4')
             if any(name in rates for *_, rates in rows)]
    shapes = list(dict.fromkeys(shape for shape, *_ in rows))
    passes = list(dict.fromkeys(name for _, name, *_ in rows))
    figure, panels = plt.subplots(1, len(passes), figsize=(4.5 * len(passes), 0.09 * (len(names) + 1.5) * len(shapes) + 1.2),
                                  sharex=True, sharey=True, squeeze=False, layout='constrained')
    for axes, pass_ in zip(panels[0], passes):
        found = {shape: (peak, rates) for shape, name, peak, rates in rows if name == pass_}
        for i, name in enumerate(names):
            at = [k + (i - len(names) / 2 + 0.5) * 0.85 / len(names) for k in range(len(shapes))]
            axes.barh(at, [found[s][1].get(name, 0) if s in found else 0 for s in shapes], 0.85 / len(names), label=name)
        axes.plot([found[s][0] if s in found else float('nan') for s in shapes], range(len(shapes)), 'k|', label='multiply-add peak')
        axes.set_title(pass_.replace('_', ' '))
        axes.set_xlabel('GFLOP/s of direct convolution, one core')
    panels[0][0].set_yticks(range(len(shapes)), [str(shape) for shape in shapes], fontsize=7)
    panels[0][0].set_ylim(len(shapes) - 0.4, -0.6)
    panels[0][-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == '__main__':
    main()
