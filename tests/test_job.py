"""Job files and the options that override them."""
import argparse
import tomllib
from pathlib import Path

import pytest

from mpi_ftp import job
from mpi_ftp.errors import JobError


def parse(*words, **options):
    parser = argparse.ArgumentParser()
    job.add_arguments(parser)
    return job.from_arguments(parser.parse_args(words), **options)


def write(folder, text, name='some.toml'):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_defaults_are_none_where_net_decides():
    given = parse()
    assert given.batch is None and given.learning_rate is None and given.run is None
    assert (given.seed, given.dtype, given.augment, given.groups, given.resume) == (0, 'float32', True, 'auto', False)


def test_options():
    given = parse('--cfg', 'a.cfg', '--grid', '2x3', '--groups', '0,4,8', '--backward-cuts', '2,6', '--memory', '700M', '--augment', 'off',
                  '--winograd', '2', '--learning-rate', '1e-3', '--resume', '--epochs', '2.5', '--overlap', 'on')
    assert given.cfg == Path.cwd() / 'a.cfg' and given.run == Path.cwd() / 'runs' / 'a'
    assert (given.grid, given.groups, given.backward_cuts, given.memory) == ((2, 3), (0, 4, 8), (2, 6), 700 * 2**20)
    assert (given.augment, given.winograd, given.learning_rate, given.resume, given.epochs, given.overlap) == (False, '2', .001, True, 2.5, True)


@pytest.mark.parametrize('text, size', [('700M', 700 << 20), ('1.5G', 3 << 29), ('64k', 65536), ('512MiB', 512 << 20), ('4096', 4096), ('1GB', 1 << 30)])
def test_sizes(text, size):
    assert parse('--memory', text).memory == size


def test_file_then_options_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'jobs').mkdir()
    path = write(tmp_path / 'jobs', 'cfg = "net.cfg"\ndata = "../d.h5"\nbatch = 8\ngroups = [0, 3]\ngrid = "1x2"\nwinograd = 4\naugment = false\nepochs = 3\n')
    given = parse(path, '--batch', '4', '--weights', 'w', '--iterations', '7')
    assert given.cfg == tmp_path / 'jobs' / 'net.cfg' and given.data.resolve() == tmp_path / 'd.h5' and given.weights == tmp_path / 'w'
    assert (given.batch, given.groups, given.grid, given.winograd, given.augment) == (4, (0, 3), (1, 2), '4', False)
    assert (given.iterations, given.epochs) == (7, None)
    assert given.run == tmp_path / 'runs' / 'some'


def test_resolved_job_is_a_job(tmp_path):
    given = parse('--cfg', 'a "b".cfg', '--data', 'd\\e.h5', '--grid', '2x3', '--parts', '4x1', '--groups', '0,4', '--memory', '1G', '--epochs', '2', '--resume',
                  '--backward-cuts', 'none', '--learning-rate', '1e-7')
    path = write(tmp_path, given.toml())
    assert tomllib.loads(given.toml())['grid'] == '2x3' and tomllib.loads(given.toml())['parts'] == '4x1'
    assert parse(path) == given


@pytest.mark.parametrize('text, message', [
    ('\nbacth = 3', r'some.toml:2: unknown key "bacth", did you mean "batch"'),
    ('learning-rate = 1', 'unknown key "learning-rate", did you mean "learning_rate"'),
    ('seed = 1\nbatch = "3"', r"some.toml:2: batch = '3': expected a whole number of at least 1"),
    ('batch = true', 'batch = True: expected a whole number'), ('batch = 1.5', 'expected a whole number'), ('batch = 0', 'at least 1'),
    ('grid = "2*3"', "grid = '2\\*3': expected rows x columns such as 2x3"), ('grid = "0x3"', 'such as 2x3'),
    ('groups = [4, 8]', r'groups = \[4, 8\]: expected per-layer, fused, auto, or the first layers of the groups from 0 on'),
    ('run = ""', r"some.toml:1: run = '': expected a path"), ('cfg = ""', r"some.toml:1: cfg = '': expected a path"), ('data = ""', "data = '': expected a path"),
    ('seed = 1\n[training]\nbatch = 3', r'some.toml:2: \[training\]: tables are not used here'), ('[[batch]]\na = 3', r'some.toml:1: \[batch\]: tables'),
    ('groups = "0,8,4"', 'expected per-layer, fused, auto'), ('groups = [0, 1.5]', 'expected per-layer'), ('groups = []', 'expected per-layer'),
    ('memory = "lots"', 'expected a size such as 700M'), ('dtype = "float16"', 'expected one of float32, float64'),
    ('augment = "no"', 'expected on or off'), ('learning_rate = inf', 'expected a number of at least 0'),
    ('batch = ,\n', 'is not a TOML job file: .*line 1'), ('[train]\nbatch = 1', r'some.toml:1: \[train\]: tables are not used here'),
    ('iterations = 3\nepochs = 2', 'both iterations and epochs'),
])
def test_refused_files(tmp_path, text, message):
    with pytest.raises(JobError, match=message):
        parse(write(tmp_path, text))


@pytest.mark.parametrize('words, message', [
    (['--parts', '4'], '--parts 4: expected rows x columns such as 4x1'), (['--batch', 'x'], '--batch x: expected a whole number of at least 1'), (['--grid', '3'], '--grid 3: expected rows x columns'),
    (['--epochs', '1', '--iterations', '2'], 'both iterations and epochs'), (['--decay', '-1'], '--decay -1: expected a number of at least 0'), (['--epochs', '0'], '--epochs 0: expected a number above 0'),
    (['--momentum', '2'], '--momentum 2: expected a number of at least 0 and below 1'),
    (['--threads', '100000'], r'threads = 100000: this host has \d+ cores? for this process'), (['--run', ''], '--run : expected a path'),
    (['nowhere.toml'], 'cannot read the job nowhere.toml: No such file'),
])
def test_refused_options(words, message):
    with pytest.raises(JobError, match=message):
        parse(*words)


def test_required(tmp_path):
    with pytest.raises(JobError, match='some.toml: data is missing: give --data'):
        parse(write(tmp_path, 'cfg = "a"'), required=('cfg', 'data'))


def test_the_least_and_what_is_below_it():
    least = {'--batch': 1, '--subdivisions': 1, '--iterations': 1, '--seed': 0, '--threads': 1, '--checkpoint-every': 1, '--val-every': 0, '--ranks': 1}
    given = parse(*(word for option, number in least.items() for word in (option, str(number))))
    assert [getattr(given, option[2:].replace('-', '_')) for option in least] == list(least.values())
    for option, number in least.items():
        with pytest.raises((SystemExit, JobError)):
            parse(option, str(number - 1))
