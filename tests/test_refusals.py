"""What verbs refuse, as command lines: one sentence, an exit code, before the work."""
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from verb_runs import NET, alone, losses, place, training, verb

__all__ = 'place', 'alone'           # fixtures


def test_a_folder_with_a_run_is_not_overwritten(place, alone):
    assert 'give --resume' in verb(*training(place, 'alone'), code=6)
    assert len(losses(alone)) == 4


def test_a_broken_picture_does_not_cost_the_others(place, alone, tmp_path):
    pictures = shutil.copytree(place / 'set' / 'images' / 'train', tmp_path / 'pictures')
    (pictures / '1.png').write_bytes((pictures / '1.png').read_bytes()[:30])
    given = ['detect', '--cfg', place / 'n.cfg', '--weights', alone / 'last.weights', pictures]
    for ranks in 1, 2:
        out = tmp_path / str(ranks)
        said = verb(*given, '--out', out, *['--threads', '1'] * (ranks > 1), ranks=ranks, code=5)
        assert len(re.findall(f'mpi-ftp: 1 of 4 pictures could not be used, {out}/detections.json has the others; the first: .*1.png: ', said)) == 1
        record = json.loads((out / 'detections.json').read_text())
        assert [Path(entry['image']).stem for entry in record] == ['0', '1', '2', '3'] and ['refused' in entry for entry in record] == [False, True, False, False]


@pytest.mark.parametrize('names', ['', 'cat\ndog\n'])
def test_names_must_be_as_many_as_classes(place, alone, names, tmp_path):
    (tmp_path / 'n.names').write_text(names)
    said = verb('detect', '--cfg', place / 'n.cfg', '--weights', alone / 'last.weights', '--names', tmp_path / 'n.names', '--out', tmp_path / 'out',
                place / 'set/images/train', code=5)
    assert f'n.names has {len(names.split())} class names, but layer 4 [region] tells 3 classes apart' in said


def test_pictures_must_be_labelled_as_heads_learn(place, tmp_path):
    for name in 'abc':
        shutil.copytree(place / 'set' / 'images' / 'train', tmp_path / 'classes' / name)
    verb('convert', 'folder', tmp_path / 'classes', tmp_path / 'classes.h5')
    said = verb(*training(place, tmp_path / 'run', data=tmp_path / 'classes.h5'), code=5)
    assert re.search(r'classes.h5 holds one class a picture, but layer 4 \[region\] of .*n.cfg learns boxes', said)
    (tmp_path / 's.cfg').write_text(NET.split('[region]')[0] + '[avgpool]\n[softmax]\n')
    said = verb('train', '--cfg', tmp_path / 's.cfg', '--data', place / 'set.h5', '--run', tmp_path / 'run', code=5)
    assert re.search(r'set.h5 holds boxes, but layer 5 \[softmax\] of .*s.cfg learns one class a picture', said)


@pytest.mark.parametrize('words, code, said', [
    (['--grid', '2x2'], 7, 'grid 2x2 needs 4 ranks, there are 1'),
    (['--groups', '0,99'], 7, 'expected a layer from 0 to 4'),
    (['--split', 'trian'], 5, 'did you mean "train"'),
    (['--val-split', 'vla'], 5, 'did you mean "val"'),
    (['--weights', 'short.weights'], 4, 'ends inside layer'),
    (['--iterations', '-1'], 6, 'a whole number of at least 1'),
    (['--learning-rate', 'nan'], 6, 'expected a number'),
    (['--bacth', '2'], 2, 'did you mean "--batch"'),
])
def test_what_cannot_be_trained_is_refused_in_one_sentence(place, alone, words, code, said, tmp_path):
    if '--weights' in words:
        (tmp_path / 'short.weights').write_bytes((alone / 'last.weights').read_bytes()[:-8])
        words = ['--weights', tmp_path / 'short.weights']
    errors = verb(*training(place, tmp_path / 'run', *words), code=code)
    assert said in errors and errors.count('\n') == 1
    assert not (tmp_path / 'run' / 'job.toml').exists()          # before anything was compiled, measured and planned


@pytest.mark.parametrize('words', [['profile', '--cfg', 'n.cfg', 'no/out'], ['scaling', '--cfg', 'n.cfg', '--json', 'no/out'],
                                   ['scaling', '--cfg', 'n.cfg', '--profile', 'set'], ['accuracy', '--json', 'set'], ['convert', 'yolo', 'set', 'set'],
                                   ['val', '--cfg', 'n.cfg', '--weights', 'alone/last.weights', '--data', 'set.h5', '--json', 'no/out']])
def test_what_cannot_be_written_is_refused_before_the_work(place, alone, words, monkeypatch):
    monkeypatch.chdir(place)
    begun = time.monotonic()
    errors = verb(*words, code=6)
    assert re.match(f'mpi-ftp: cannot write {words[-1]}: ', errors) and errors.count('\n') == 1 and time.monotonic() - begun < 5


@pytest.mark.parametrize('change, code, said', [
    ({'--output': 'nowhere/y.npy'}, 6, 'cannot write .*nowhere/y.npy: No such file or directory'),
    ({'--output': 'x.npy'}, 6, 'x.npy: it is also what is read'),
    ({'--input': 'words.npy'}, 5, r'expected an array of numbers \(N, C, H, W\)'),
    ({'--input': 'empty.npy'}, 5, 'empty.npy is not a readable .npy file: '),
    ({'--input': 'cut.npy'}, 5, 'cut.npy is not a readable .npy file: '),
    ({'--input': 'none.npy'}, 5, r'expected an array of numbers \(N, C, H, W\), found \(0, 3, 8, 8\)'),
])
def test_forward_refuses_what_it_cannot_read_or_write(place, alone, change, code, said, tmp_path):
    np.save(tmp_path / 'x.npy', np.zeros((1, 3, 8, 8)))
    np.save(tmp_path / 'words.npy', np.full((1, 3, 8, 8), 'word'))
    np.save(tmp_path / 'none.npy', np.zeros((0, 3, 8, 8)))
    (tmp_path / 'empty.npy').write_bytes(b'')
    (tmp_path / 'cut.npy').write_bytes((tmp_path / 'x.npy').read_bytes()[:-100])
    files = {'--input': 'x.npy', '--output': 'y.npy', **change}
    words = [word for option, name in files.items() for word in (option, tmp_path / name)]
    errors = verb('forward', '--cfg', place / 'n.cfg', '--weights', alone / 'last.weights', *words, code=code)
    assert re.search(said, errors) and errors.count('\n') == 1
