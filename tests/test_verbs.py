"""The verbs as a newcomer meets them: command lines in processes of their own, alone and under mpirun, on small random networks."""
import csv
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from planning_core import made_up_machine
from verb_runs import CONV, alone, losses, place, same_run, start, training, verb, write_weights

from mpi_ftp.convert import convert
from mpi_ftp.machine import read_machine, write_machine

__all__ = 'place', 'alone'           # fixtures


@pytest.mark.parametrize('first, second, stride', [(20, 12, 2), (20, 12, 1)])
def test_shortcut_between_unequal_maps_adds_what_both_have(first, second, stride, tmp_path):
    cfg, weights, given, made = (tmp_path / name for name in ('n.cfg', 'n.weights', 'x.npy', 'y.npy'))
    cfg.write_text('[net]\nchannels=3\nwidth=1\nheight=1\n' + CONV.format(first, 1, 1, 'linear') + CONV.format(second, 1, stride, 'linear')
                   + '[shortcut]\nfrom=0\nactivation=leaky\n')
    w = write_weights(weights, first + first * 3 + second + second * first)
    x = np.random.default_rng(1).random((2, 3, 10, 14))
    np.save(given, x)
    bias1, w1, bias2, w2 = np.split(w, np.cumsum([first, first * 3, second]))
    a = np.einsum('fc,nchw->nfhw', w1.reshape(first, 3), x) + bias1[:, None, None]
    b = np.einsum('fc,nchw->nfhw', w2.reshape(second, first), a[:, :, ::stride, ::stride]) + bias2[:, None, None]
    both = min(first, second)
    b[:, :both] += a[:, :both, ::stride, ::stride]
    verb('forward', '--cfg', cfg, '--weights', weights, '--input', given, '--output', made, '--dtype', 'float64')
    np.testing.assert_allclose(np.load(made), np.where(b > 0, b, .1 * b), rtol=1e-5, atol=1e-6)


def test_a_run_without_evaluation_says_so(place, tmp_path):
    verb(*training(place, tmp_path / 'none', '--val-split', 'none', '--iterations', 1))
    with h5py.File(place / 'set.h5') as whole, h5py.File(tmp_path / 'train.h5', 'w') as part:
        for name in whole:
            whole.copy(name, part)
        part.attrs.update(whole.attrs)
        del part['splits/val']
    verb(*training(place, tmp_path / 'missing', '--iterations', 1, data=tmp_path / 'train.h5'))
    verb(*training(place, tmp_path / 'all', '--iterations', 1, '--val-split', 'all'))
    said = {name: re.findall('there is no evaluation: .*', (tmp_path / name / 'log.txt').read_text()) for name in ('none', 'missing', 'all')}
    assert said == {'none': ['there is no evaluation: val_split = none'], 'all': [],
                    'missing': [f'there is no evaluation: {tmp_path / "train.h5"} has no split "val"']}
    assert 'all after iteration 1' in (tmp_path / 'all' / 'log.txt').read_text()


def test_four_ranks_and_one_reader_train_what_one_rank_trains(place, alone):
    verb(*training(place, 'four', '--grid', '2x2', '--groups', '0,2', '--reader', 'one', '--threads', '1'), ranks=4)
    same_run(place / 'four', alone, 1e-12)
    assert re.search(r'weights of ranks( 0\.0){4} MiB, .* 0\.1 MiB in all for one copy of 0\.0 MiB', (place / 'four' / 'log.txt').read_text())


def test_a_profile_serves_trainings(place, alone, tmp_path):
    machine = tmp_path / 'm.json'
    verb('profile', machine, '--cfg', place / 'n.cfg', '--seconds', '.5', '--threads', '1', ranks=2)
    found, before = read_machine(machine), machine.read_bytes()
    assert len(found.hosts) == len(found.speeds) == 2 and found.signature and found.picture > 0 and min(found.link) > 0
    verb(*training(place, tmp_path / 'run', '--machine', machine, '--threads', '1'), ranks=2)
    same_run(tmp_path / 'run', alone, 1e-12)
    assert machine.read_bytes() == before                   # it was not measured again


def test_resuming_changes_nothing_on_the_same_and_on_other_ranks(place, alone):
    verb(*training(place, 'halves', '--iterations', '2'))
    shutil.copytree(place / 'halves', place / 'elsewhere')
    verb(*training(place, 'halves', '--resume'))
    assert losses(place / 'halves') == losses(alone)
    assert (place / 'halves' / 'last.weights').read_bytes() == (alone / 'last.weights').read_bytes()
    verb(*training(place, 'elsewhere', '--resume', '--grid', '3x1', '--groups', 'fused', '--threads', '1'), ranks=3)
    same_run(place / 'elsewhere', alone, 1e-12)


def test_weights_to_begin_with_bring_no_count_of_pictures(place, alone, tmp_path):
    """The learning rate begins anew, so does all that goes by pictures seen: [region]'s pull, epochs, the header of what is written."""
    given = tmp_path / 'many.weights'
    plain = (alone / 'last.weights').read_bytes()
    for seen in 0, 2 ** 40:
        given.write_bytes(plain[:12] + struct.pack('<q', seen) + plain[20:])
        verb(*training(place, tmp_path / str(seen), '--weights', given, '--iterations', '1'))
    one, other = ((tmp_path / str(seen) / 'last.weights').read_bytes() for seen in (0, 2 ** 40))
    assert one == other and struct.unpack('<q', one[12:20]) == (2,) and losses(tmp_path / '0') == losses(tmp_path / str(2 ** 40))
    assert f'the {2 ** 40} pictures they have seen count no more' in (tmp_path / str(2 ** 40) / 'log.txt').read_text()


@pytest.mark.parametrize('output', ['| head -1', '>&-', '2>&1 >&- | head -0'])
def test_a_run_goes_on_when_nobody_reads_its_output(place, alone, output, tmp_path):
    command = f'"$@" {output}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(['bash', '-c', command, '', sys.executable, '-m', 'mpi_ftp', *map(str, training(place, tmp_path / 'run'))], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and done.stdout.count('\n') == (output == '| head -1')
    same_run(tmp_path / 'run', alone, 1e-12)
    assert (tmp_path / 'run' / 'finished').exists() and 'iteration 4/4' in (tmp_path / 'run' / 'log.txt').read_text()


def test_a_run_goes_on_when_its_terminal_is_gone(place, alone, tmp_path):
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, '-m', 'mpi_ftp', *map(str, training(place, tmp_path / 'run'))])
    limit = time.monotonic() + 60
    while not (tmp_path / 'run' / 'log.txt').exists() and time.monotonic() < limit:
        time.sleep(.02)
    os.close(terminal)                                      # the kernel sends SIGHUP to who runs in it
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    same_run(tmp_path / 'run', alone, 1e-12)


def test_a_full_disk_under_the_output_is_told_at_the_end(place, alone, tmp_path):
    with open('/dev/full', 'w') as full:
        done = subprocess.run([sys.executable, '-m', 'mpi_ftp', *map(str, training(place, tmp_path / 'run'))], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (6, 'mpi-ftp: cannot write standard output: No space left on device\n')
    same_run(tmp_path / 'run', alone, 1e-12)


def test_usr1_leaves_a_checkpoint_and_killing_a_rank_loses_nothing_saved(place):
    for number, code in ((signal.SIGUSR1, 0), (signal.SIGKILL, None)):
        run = place / number.name
        more = ['--iterations', '100000', '--checkpoint-every', '2', '--grid', '2x1', '--threads', '1']
        process = start(*training(place, number.name, *more), ranks=2)
        limit = time.monotonic() + 60
        while not (run / 'checkpoint.h5').exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(.05)
        # mpirun took bash's place, so its children are the ranks
        ranks = [int(pid) for pid in Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()]
        os.kill(process.pid if number == signal.SIGUSR1 else ranks[-1], number)
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == code if code is not None else process.returncode > 0, errors
        assert not (run / 'finished').exists()
        with h5py.File(run / 'checkpoint.h5') as file:
            saved = json.loads(file['meta/iteration'][()])
        assert saved == len(losses(run)) if code == 0 else 2 <= saved <= len(losses(run))
        verb(*training(place, number.name, '--resume', '--iterations', saved + 1))
        assert len(losses(run)) == saved + 1


KILLED = 'train.evaluate = lambda *args: os.kill(os.getpid(), 9)'
ASKED = 'asked = iter([0, 0, 0, 15]); train.Signals = type("Signals", (), {"asked": property(lambda self: next(asked))})'


@pytest.mark.parametrize('what, code', [(KILLED, -9), (ASKED, 0)])
def test_a_run_that_ends_before_its_last_evaluation_has_lost_nothing(place, alone, tmp_path, what, code):
    """Killed in the midst of it, or asked to stop by a signal in the last iteration."""
    run, text = tmp_path / 'run', f'import os, sys; from mpi_ftp import __main__, train; {what}; __main__.main(sys.argv[1:])'
    ended = subprocess.run([sys.executable, '-c', text, *map(str, training(place, run))], capture_output=True)
    assert ended.returncode == code and not (run / 'finished').exists()
    assert (run / 'last.weights').read_bytes() == (alone / 'last.weights').read_bytes()
    verb(*training(place, run, '--resume'))
    last = [list(csv.DictReader((folder / 'metrics.csv').read_text().splitlines()))[-1] for folder in (run, alone)]
    for name in 'iteration', 'loss', 'mAP50', 'mAP50_95':
        assert last[0][name] == last[1][name] != ''
    log = (run / 'log.txt').read_text()
    assert losses(run) == losses(alone) and (run / 'finished').exists() and 'lacks' not in log
    assert ('stopped by signal after iteration 4 of 4; --resume goes on' in log) == (code == 0)


def test_a_network_file_that_goes_while_its_run_trains_costs_nothing(place, tmp_path):
    text = '# Größe\n' + (place / 'n.cfg').read_text()
    (tmp_path / 'n.cfg').write_text(text, encoding='utf-8')
    process = start(*training(place, tmp_path / 'run', '--cfg', tmp_path / 'n.cfg', '--iterations', '100000'))
    limit = time.monotonic() + 60
    while not (tmp_path / 'run' / 'metrics.csv').exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(.02)
    (tmp_path / 'n.cfg').unlink()
    process.send_signal(signal.SIGUSR1)
    try:
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    with h5py.File(tmp_path / 'run' / 'checkpoint.h5') as file:
        assert json.loads(file['meta/cfg'][()]) == text


def test_a_loss_that_is_no_number_names_iteration_and_layer(place, tmp_path):
    more = ['--learning-rate', '1e200', '--iterations', '9', '--grid', '3x1', '--threads', '1']
    said = verb(*training(place, tmp_path / 'nan', *more), ranks=3, code=10)
    lines = re.findall(r'^ ?(mpi-ftp: .*)', said, re.M)
    assert len(lines) == 1 and re.search(r'the loss is \S+ at iteration \d: the first output that is not finite is that of layer 0 \[conv', lines[0])


def test_weights_that_are_no_numbers_replace_no_checkpoint(place, tmp_path):
    run = tmp_path / 'nan'
    verb(*training(place, run, '--iterations', '1'))
    before = (run / 'checkpoint.h5').read_bytes()
    said = verb(*training(place, run, '--resume', '--learning-rate', '1e308', '--checkpoint-every', '1', '--iterations', '5'), code=10)
    assert 'weights are no longer finite after iteration 2' in said and (run / 'checkpoint.h5').read_bytes() == before


def test_forward_val_and_detect_answer_alike_on_any_ranks(place, alone, tmp_path):
    np.save(tmp_path / 'x.npy', np.random.default_rng(5).random((2, 3, 37, 51)))
    given, answers = ['--cfg', place / 'n.cfg', '--weights', alone / 'last.weights', '--dtype', 'float64'], {}
    for ranks, more in ((1, []), (4, ['--grid', '2x2', '--groups', 'fused', '--threads', '1'])):
        out = tmp_path / str(ranks)
        verb('forward', *given, *more, '--input', tmp_path / 'x.npy', '--layer', 3, '--output', tmp_path / 'y.npy', ranks=ranks)
        verb('val', *given, *more, '--data', place / 'set.h5', '--split', 'train', '--json', tmp_path / 'val.json', ranks=ranks)
        verb('detect', *given, *more, place / 'set' / 'images' / 'train', '--thresh', '1e-4', '--out', out, ranks=ranks)
        answers[ranks] = np.load(tmp_path / 'y.npy'), json.loads((tmp_path / 'val.json').read_text()), \
            json.loads((out / 'detections.json').read_text())
        assert len(list(out.glob('*_detections.png'))) == 4
    np.testing.assert_allclose(answers[1][0], answers[4][0], rtol=1e-12, atol=1e-14)
    assert answers[1][0].shape == (2, 16, 10, 13)
    assert answers[1][1]['mAP50'] == pytest.approx(answers[4][1]['mAP50'], abs=1e-9)
    assert answers[1][2] == answers[4][2] and any(entry['detections'] for entry in answers[1][2])


def test_a_classifier_is_trained_from_weights_measured_and_asked(tmp_path):
    """From a folder a class; val counts what detect answers. The rate is so small that the weights stay those of the file, which ends after a layer."""
    for k in range(8):
        folder = tmp_path / 'set' / ('train' if k < 5 else 'val') / ('dark', 'light')[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(folder / f'{k}.png')
    (tmp_path / 'n.cfg').write_text('[net]\nwidth=24\nheight=20\nchannels=3\nbatch=2\nlearning_rate=1e-12\n' + CONV.format(8, 3, 1, 'leaky')
                                    + CONV.format(2, 1, 1, 'linear') + '[avgpool]\n[softmax]\n[cost]\ntype=sse\n')
    values = write_weights(tmp_path / 'n.weights', 8 + 8 * 27)
    run, given = tmp_path / 'run', ['--cfg', tmp_path / 'n.cfg', '--dtype', 'float64', '--data', tmp_path / 'set.h5', '--weights']
    convert('folder', tmp_path / 'set', tmp_path / 'set.h5', log=str)
    write_machine(tmp_path / 'm.json', made_up_machine())
    verb('train', *given, tmp_path / 'n.weights', '--run', run, '--epochs', 2, '--threads', 1, '--machine', tmp_path / 'm.json')
    assert len(losses(run)) == 5 and f'{tmp_path / "n.weights"}: weights of 1 layers' in (run / 'log.txt').read_text()
    written = np.frombuffer((run / 'last.weights').read_bytes()[20:], '<f4')
    np.testing.assert_allclose(written[:len(values)], values, rtol=1e-6)
    assert len(written) == len(values) + 2 + 2 * 8
    verb('val', *given, run / 'last.weights', '--json', tmp_path / 'val.json', '--grid', '2x1', '--threads', 1, ranks=2)
    (tmp_path / 'names').write_text('dark\nlight\n')
    pictures = sorted((tmp_path / 'set' / 'val').rglob('*.png'))
    verb('detect', *given[:4], '--weights', run / 'last.weights', '--names', tmp_path / 'names', *pictures, '--top', 2, '--out', tmp_path / 'out')
    answers = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    right = [answer['classes'][0]['class'] == picture.parent.name for answer, picture in zip(answers, pictures, strict=True)]
    assert 0 < sum(right) < 3 and json.loads((tmp_path / 'val.json').read_text())['top1'] == pytest.approx(sum(right) / 3)
    for answer in answers:
        first, second = (found['score'] for found in answer['classes'])
        assert first > second > 0 and first + second == pytest.approx(1, abs=2e-6)
