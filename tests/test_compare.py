"""Plans side by side: alternatives, numbers of ranks, networks and links; what there is no plan for leaves the others."""
import re

from planning_core import made_up_machine, network_of, printed, run_plan

from mpi_ftp.compare import attempt, comparison, main_cut, verdict
from mpi_ftp.plan import Plan, by_hand
from mpi_ftp.search import find_plan


def test_plans_side_by_side(tmp_path, capsys):
    names = 'per-layer', 'fused', '0/4', 'spatial 0/4 cuts 2/6', 'samples', 'tail', 'auto'
    assert run_plan(tmp_path, '--ranks', '4', '--batch', '4', '--compare', ','.join(names)) in (0, None)
    lines = capsys.readouterr().out.splitlines()[1:]
    milliseconds = {}
    for name in names:
        line = next(line for line in lines if line.split('  ')[0].strip() == name or line.strip().startswith(name + ' '))
        lines.remove(line)
        milliseconds[name] = float(line.strip()[len(name):].split('.')[0].split()[-1])
    assert milliseconds['auto'] <= min(milliseconds.values()) + 1


def test_a_sweep_over_ranks(tmp_path, capsys):
    png = tmp_path / 'scaling.png'
    assert run_plan(tmp_path, '--sweep', 'ranks=1..3', '--png', str(png)) in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ['1', '2', '3'] and ' ms a step' in lines[4]
    from PIL import Image
    with Image.open(png) as picture:
        assert picture.size[0] > 600


def test_a_verdict_names_what_is_lost():
    def plan(ranks, seconds, **parts):
        parts = {'forward': 0.0, 'backward': 0.0, 'recompute': 0.0, 'exchange': 0.0, 'norm_sums': 0.0, 'gradient_sums': 0.0, 'optimizer': 0.0, **parts}
        return Plan(ranks, 1, (), {'seconds': seconds, 'parts': parts})

    plans = {1: plan(1, 8.0, forward=8.0), 2: plan(2, 4.5, forward=4.0, exchange=.5), 4: plan(4, 4.4, forward=2.0, exchange=2.4)}
    assert verdict(plans).startswith('2 ranks take 4500 ms a step, 1.8 times as fast as 1, more gain less than 3 %')
    assert 'halos' in verdict(plans)


def test_a_table_of_choices(tmp_path, capsys):
    assert run_plan(tmp_path, '--table', '2,3', '--links', '100,1000', '--also', str(network_of(tmp_path).path)) in (0, None)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1:4:2] for line in lines if line.strip().startswith('net ')] == 2 * [['100', '2'], ['100', '3'], ['1000', '2'], ['1000', '3']]


def test_what_does_not_fit_leaves_the_others(tmp_path, capsys):
    """More ranks, for instance, are asked for because one does not do."""
    network = network_of(tmp_path, 'tiny-yolo', 512, 512)

    def said(memory, *words):
        code = run_plan(tmp_path, '--ranks', '2', '--memory', memory, *words, network=network)
        output = capsys.readouterr()
        return code, [line.split() for line in output.out.splitlines()], output.err
    memory = re.search(r'--memory (\d+M) would do', said('101M')[2])[1]
    code, rows, _ = said(memory, '--sweep', '1..2')
    assert code == 0 and rows[1] == ['1', 'does', 'not', 'fit'] and rows[2][0] == '2' and 'fit' not in rows[2]
    code, rows, _ = said(memory, '--table', '1,2')
    assert code == 0 and rows[1][-3:] == ['does', 'not', 'fit'] and rows[2][3] == '2' and 'fit' not in rows[2]
    code, rows, _ = said(memory, '--compare', 'auto,spatial 1x1')
    assert code == 0 and rows[1][0] == 'auto' and 'fit' not in rows[1] and rows[2][-3:] == ['does', 'not', 'fit']
    code, _, error = said('50M', '--sweep', '1..2')
    assert code == 8 and 'no plan fits 50 MiB on 2 ranks' in error


def test_an_impossible_plan_leaves_the_others(tmp_path):
    network = network_of(tmp_path)
    text = printed(comparison({str(grid): attempt(find_plan, network, 2, 1, made_up_machine(2), grid=grid) for grid in ((3, 3), (1, 2))}, 'plan'))
    assert 'impossible' in text and 'needs 9 ranks' in text and '1x2' in text


def test_one_count_is_no_verdict_on_more(tmp_path):
    plan = find_plan(network_of(tmp_path), 2, 1, made_up_machine(2, flops=1e11))
    found = verdict({2: plan})
    assert 'pay' not in found and f'{1e3 * plan.predicted["seconds"]:.1f} ms' in found


def test_a_comparison_tells_the_grid_that_is_used(tmp_path):
    """Not that which the search began with: a slow link leaves one of four at work."""
    network = network_of(tmp_path)
    alone = find_plan(network, 4, 1, made_up_machine(4, link=(1e-1, 1e5)))
    assert main_cut(alone) == '1x1, 1 at work' and main_cut(by_hand(network, 4, 1, (2, 2), [0])) == '2x2'
