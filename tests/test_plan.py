"""The verb `plan` and what it prints: table, JSON, picture."""
import json
import re
from types import SimpleNamespace

import pytest
from planning_core import made_up_machine, network_of, printed, run_plan

from mpi_ftp.__main__ import main
from mpi_ftp.cost import CostModel
from mpi_ftp.errors import MemoryRefused
from mpi_ftp.footprint import Course
from mpi_ftp.machine import write_machine
from mpi_ftp.plan import GroupPlan, Plan, by_hand
from mpi_ftp.plan_picture import draw_plan, strips
from mpi_ftp.plan_table import plan_table
from mpi_ftp.refine import predicted
from mpi_ftp.region import Region
from mpi_ftp.search import find_plan
from mpi_ftp.subtiles import with_parts


def test_json_gives_the_same_plan(tmp_path):
    network = network_of(tmp_path)
    plan = find_plan(network, 4, 2, made_up_machine(4))
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan and again.predicted == plan.predicted


def test_the_table_has_a_line_for_each_layer(tmp_path):
    network = network_of(tmp_path)
    text = printed(plan_table(network, find_plan(network, 4, 1, made_up_machine(4))))
    lines = [line.split() for line in text.splitlines()]
    for layer in network.layers:
        assert any(line[:1] == [str(layer.index)] and '{2}x{1}x{0}'.format(*layer.out_shape) in line for line in lines)
    assert 'ms a step' in text and 'MiB on the fullest rank' in text
    assert 'ms a step' not in printed(plan_table(network, by_hand(network, 2, 1, (1, 2), [0])))
    assert '1 of 3 ranks own no tile' in printed(plan_table(network, by_hand(network, 3, 1, (1, 2), [0]))) and 'own no tile' not in text
    parted = with_parts(network, by_hand(network, 2, 1, (1, 2), [0, 2], recompute=True), (4, 1))
    assert '1x2, 4x1 parts' in printed(plan_table(network, parted)) and Plan.from_json(json.loads(json.dumps(parted.to_json()))) == parted
    assert not any(group.parted for group in Plan.from_json(without_parts(parted.to_json())).groups)


def test_the_table_names_groups_that_begin_early(tmp_path):
    network = network_of(tmp_path)
    for link, line in (((1e-3, 1e6), 'groups 1, 2, 3'), ((1e-6, 1e9), None)):
        model = CostModel(network, made_up_machine(2, link=link, copy=1e-12), 1, 2)
        text = printed(plan_table(network, predicted(model, by_hand(network, 2, 1, (1, 2), [0, 2, 4, 6]))))
        assert (line in text if line else True) and ('while halos travel' in text) == bool(line)


def without_parts(record):
    """A plan as older versions wrote it."""
    return {**record, 'groups': [{name: value for name, value in group.items() if name != 'parts'} for group in record['groups']]}


def test_the_verb_prints_and_writes(tmp_path, capsys):
    out, png = tmp_path / 'plan.json', tmp_path / 'plan.png'
    assert run_plan(tmp_path, '--ranks', '3', '--batch', '2', '--json', str(out), '--png', str(png)) in (0, None)
    assert '3 ranks, 2 pictures' in capsys.readouterr().out
    plan = Plan.from_json(json.loads(out.read_text()))
    assert plan.ranks == 3 and plan.batch == 2 and plan.predicted['seconds'] > 0
    from PIL import Image
    with Image.open(png) as picture:
        assert picture.size[0] > 600 and len(picture.convert('RGB').getcolors(1 << 20)) > 20


def test_places_without_a_group_stay_empty(tmp_path, monkeypatch):
    from matplotlib import figure
    shown, save = [], figure.Figure.savefig
    monkeypatch.setattr(figure.Figure, 'savefig', lambda self, *args, **options: (shown.append([axis.axison for axis in self.axes]), save(self, *args, **options)))
    network = network_of(tmp_path)
    draw_plan(tmp_path / 'plan.png', network, by_hand(network, 2, 1, (1, 2), list(range(7))))
    assert shown == [[True] * 7 + [False] * 5]


def test_ranks_that_share_filters_and_rows_are_drawn_where_they_are():
    group = GroupPlan(0, 3, ((0, 1), (0, 16, 30), (0, 1, 2), (0, 3)))
    layouts = {group.last: [Region((0, c, h, 0), (1, d, h + 1, 3)) for h in (0, 1) for c, d in ((0, 16), (16, 30))]}
    network = SimpleNamespace(channels_shape=lambda index: (30, 2, 3))
    found = strips(network, Plan(4, 1, (group,)), group, layouts)
    assert found == {((0, .5), (0, 16 / 30)): [0], ((0, .5), (16 / 30, 1)): [1], ((.5, 1), (0, 16 / 30)): [2], ((.5, 1), (16 / 30, 1)): [3]}
    halves = GroupPlan(0, 3, ((0, 1, 2), (0, 16, 30), (0, 2), (0, 3)))
    layouts = {group.last: [Region((n, c, 0, 0), (n + 1, d, 2, 3)) for n in (0, 1) for c, d in ((0, 16), (16, 30))]}
    assert strips(network, Plan(4, 2, (halves,)), halves, layouts) == {((0, 1), (0, 16 / 30)): [0, 2], ((0, 1), (16 / 30, 1)): [1, 3]}


def test_the_table_tells_what_measuring_took(tmp_path):
    network = network_of(tmp_path)
    for peak, told in (0, False), (5 << 30, True):
        text = printed(plan_table(network, find_plan(network, 2, 1, made_up_machine(2, peak=peak))))
        assert ('measuring rates took 5120 before' in text) == told


def test_layouts_are_what_they_are_called(tmp_path):
    network, machine = network_of(tmp_path, 'tiny-yolo', 64, 96), made_up_machine(4)
    spatial, samples, tail = (find_plan(network, 4, 4, machine, layout=layout) for layout in ('spatial', 'samples', 'tail'))
    assert all(len(g.edges[0]) == len(g.edges[1]) == 2 for g in spatial.groups) and any(len(g.edges[2]) > 2 for g in spatial.groups)
    assert all(g.edges[0] == (0, 1, 2, 3, 4) for g in samples.groups)
    smallest = next(i for i, layer in enumerate(network.layers) if layer.out_shape[1] == 8)
    assert all((g.start >= smallest) == all(len(edges) == 2 for edges in g.edges) for g in tail.groups) and smallest in [g.start for g in tail.groups]
    again = find_plan(network, 4, 4, machine, layout='tail', groups=(0, 2))
    assert {0, 2, smallest} == {g.start for g in again.groups}


@pytest.mark.parametrize('words, code, says', [(['--sweep', '3..1'], 6, '--sweep 3..1'), (['--compare', 'most'], 6, 'expected auto'), (['--compare', '0/4 cuts x'], 6, 'cuts 2/6'), (['--table', '2,x'], 2, 'whole numbers'), (['--ranks', '0'], 6, '--ranks 0'), (['--compare', 'auto', '--sweep', '1..2'], 2, '--sweep and --compare: expected one of them'),
                                               (['--compare', 'auto', '--png', 'x.png'], 2, '--png is of one plan or of --sweep, not of --compare'), (['--sweep', '1..2', '--json', 'x.json'], 2, '--json is of one plan, not of --sweep'), (['--ranks', '2', '--grid', '2x2'], 7, 'needs 4 ranks'),
                                               (['--ranks', '2', '--memory', '50M'], 8, 'would do')])
def test_the_verb_refuses_in_one_sentence(tmp_path, capsys, words, code, says):
    assert run_plan(tmp_path, *words) == code
    assert says in capsys.readouterr().err


def test_memory_is_what_a_run_keeps_to(tmp_path, capsys):
    """With the amount that a refusal advises there is a plan: pictures are then made when they are asked for."""
    path, machine = network_of(tmp_path, 'tiny-yolo', 512, 512).path, tmp_path / 'machine.json'
    write_machine(machine, made_up_machine(2))
    def code(amount):
        with pytest.raises(SystemExit) as ended:
            main(['plan', '--cfg', str(path), '--machine', str(machine), '--ranks', '2', '--memory', amount])
        return ended.value.code

    assert code('101M') == 8
    assert code(re.search(r'--memory (\d+M) would do', capsys.readouterr().err)[1]) == 0
    network, least = network_of(tmp_path, 'tiny-yolo', 512, 512), []
    for ahead in 2, 0:
        with pytest.raises(MemoryRefused) as refused:
            find_plan(network, 2, 1, made_up_machine(2), memory=101 << 20, course=Course(ahead=ahead))
        least.append(int(re.search(r'--memory (\d+)M', str(refused.value))[1]))
    assert least[1] < least[0] and code(f'{least[1]}M') == 0


@pytest.mark.parametrize('words, sentence', [(['--layout', 'samples', '--grid', '1x2'], '--layout samples cuts no rows and columns'), (['--compare', ''], '--compare'),
                                             (['--compare', 'auto,,tail'], '--compare'), (['--links', '100'], '--links is for --table'), (['--png', 'x.xyz'], '.png, .svg, .pdf')])
def test_words_that_do_not_go_together_are_refused(tmp_path, capsys, words, sentence):
    path, machine = network_of(tmp_path).path, tmp_path / 'machine.json'
    write_machine(machine, made_up_machine(2))
    with pytest.raises(SystemExit) as ended:
        main(['plan', '--cfg', str(path), '--machine', str(machine), '--ranks', '2', *words])
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize('option, name', [('--json', 'plan.json'), ('--png', 'plan.png'), ('--save-machine', 'm.json')])
def test_what_cannot_be_written_is_told_before_planning(tmp_path, capsys, monkeypatch, option, name):
    path, machine = network_of(tmp_path).path, tmp_path / 'machine.json'
    write_machine(machine, made_up_machine(2))
    monkeypatch.setattr('mpi_ftp.show.fitting', None)
    with pytest.raises(SystemExit) as ended:
        main(['plan', '--cfg', str(path), '--machine', str(machine), '--ranks', '2', option, str(tmp_path / 'missing' / name)])
    assert ended.value.code == 6 and 'cannot write' in capsys.readouterr().err


def test_the_table_tells_samples_and_who_does_most(tmp_path):
    network = network_of(tmp_path)
    uneven = find_plan(network, 2, 4, made_up_machine(2, (1e-6, 1e9), speeds=(4.0, 1.0)), grid=(1, 2))
    text = printed(plan_table(network, uneven))
    assert re.search(r'of the work: rank 1 \d\d %, rank 0 \d\d %', text) and '4x ' in text
    assert 'of the work' not in printed(plan_table(network, by_hand(network, 2, 1, (1, 2), [0])))


def test_a_picture_says_what_it_leaves_out(tmp_path, monkeypatch):
    from matplotlib.figure import Figure, SubFigure
    network, said = network_of(tmp_path), []
    monkeypatch.setattr(SubFigure, 'suptitle', lambda self, words, **_: said.append(words))
    monkeypatch.setattr(Figure, 'savefig', lambda *_, **__: None)
    monkeypatch.setattr('mpi_ftp.plan_picture.SHOWN', 3)
    draw_plan(tmp_path / 'plan.png', network, by_hand(network, 6, 1, (1, 2), [0, 2, 4, 6]))
    assert '2 at work' in said[0] and '3 of 4 groups' in said[0]
