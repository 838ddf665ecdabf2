"""The run folder: what it holds, what it refuses to overwrite, what resuming leaves."""
import json
import os

import pytest

from mpi_ftp import runfolder
from mpi_ftp.errors import JobError


def test_writes_job_plan_metrics_and_log(tmp_path, capsys):
    run = runfolder.open_run(tmp_path / 'a' / 'b')
    run.write('job.toml', 'seed = 1\n')
    run.write_json('plan.json', {'groups': [0, 4]})
    run.begin_metrics(['iteration', 'loss', 'rate'])
    run.row(iteration=1, loss=1 / 3, rate=2 / 3)
    folder = tmp_path / 'a' / 'b'
    assert (folder / 'metrics.csv').read_bytes() == b'iteration,loss,rate\n1,0.333333333333333,0.666666667\n'
    run.log('two\nlines')
    assert json.loads((folder / 'plan.json').read_text()) == {'groups': [0, 4]} and (folder / 'job.toml').read_text() == 'seed = 1\n'
    assert capsys.readouterr().out == 'two\nlines\n'
    assert [line[20:] for line in (folder / 'log.txt').read_text().splitlines()] == ['two', 'lines']
    run.finish('done')
    assert (folder / 'finished').read_text() == 'done\n'


def test_names_of_files_may_be_of_any_bytes(tmp_path):
    name = os.fsdecode('größe'.encode() + b'\xff')
    run = runfolder.open_run(tmp_path)
    run.write('job.toml', name)
    run.note(name)
    run.close()
    assert (tmp_path / 'job.toml').read_bytes() == os.fsencode(name) and (tmp_path / 'log.txt').read_bytes().endswith(os.fsencode(name) + b'\n')


def test_a_run_is_not_overwritten(tmp_path):
    run = runfolder.open_run(tmp_path)
    run.checkpoint.write_bytes(b'x')
    run.close()
    with pytest.raises(JobError, match='holds an unfinished run: give --resume to go on with it, or another folder with --run'):
        runfolder.open_run(tmp_path)
    run = runfolder.open_run(tmp_path, resume=True)
    assert run.resumed
    run.finish()
    with pytest.raises(JobError, match='holds a finished run'):
        runfolder.open_run(tmp_path)
    (tmp_path / f'.checkpoint.h5.{os.getpid()}.tmp').write_bytes(b'of a process that was killed')
    run = runfolder.open_run(tmp_path, resume=True)
    assert (tmp_path / 'finished').exists() and not list(tmp_path.glob('*.tmp'))
    run.begin_metrics(['iteration'], 3)                             # so far the run might have been refused
    assert not (tmp_path / 'finished').exists()
    run.close()


@pytest.mark.parametrize('resume', (False, True))
def test_two_runs_do_not_share_a_folder(tmp_path, resume):
    run = runfolder.open_run(tmp_path)
    with pytest.raises(JobError, match='another run is writing .*: wait for its end, or give another folder with --run'):
        runfolder.open_run(tmp_path, resume)
    run.close()
    runfolder.open_run(tmp_path, resume).close()


def test_resume_without_a_checkpoint_begins_anew(tmp_path):
    run = runfolder.open_run(tmp_path / 'new', resume=True)
    assert not run.resumed
    run.close()


def test_resuming_drops_rows_after_the_checkpoint(tmp_path):
    run = runfolder.open_run(tmp_path)
    run.begin_metrics(['iteration', 'loss', 'old'])
    for i in range(1, 6):
        run.row(iteration=i, loss=float(i), old=7)
    run.close()
    with open(tmp_path / 'metrics.csv', 'a') as file:
        file.write('6,1')                                     # a row that a crash cut off
    run.checkpoint.write_bytes(b'x')
    run = runfolder.open_run(tmp_path, resume=True)
    run.begin_metrics(['iteration', 'loss', 'new'], iteration=3)
    run.row(iteration=4, loss=4.5, new=2)
    run.close()
    assert (tmp_path / 'metrics.csv').read_text().split() == ['iteration,loss,new', '1,1,', '2,2,', '3,3,', '4,4.5,2']


def test_numbers_join_the_row_of_an_iteration(tmp_path):
    run = runfolder.open_run(tmp_path)
    columns = 'iteration', 'loss', 'mAP50'
    run.begin_metrics(columns)
    for i in 1, 2:
        run.row(iteration=i, loss=i / 3)
    run.begin_metrics(columns, 2, {'mAP50': 1 / 7})
    run.row(iteration=3, loss=4.)
    run.begin_metrics(columns, 4, {'mAP50': .5})                 # its row was lost
    run.close()
    assert (tmp_path / 'metrics.csv').read_text().split() == ['iteration,loss,mAP50', '1,0.333333333333333,', '2,0.666666666666667,0.142857143', '3,4,', '4,,0.5']


@pytest.mark.parametrize('wrong, left', [(lambda rows: b''.join(rows[:2] + rows[3:]), '134'), (lambda rows: b''.join(rows[:3]) + bytes(40), '12'), (lambda rows: b'', ''),
                                         (lambda rows: b''.join(rows + rows[2:4]), '1234'), (lambda rows: b''.join(rows).replace(b'3,3', b'3,3\xff'), '124'),
                                         (lambda rows: b''.join(rows)[:-3], '123'), (lambda rows: b''.join(rows).replace(b'3,3', b'3' * 5000 + b',3'), '124')])
def test_rows_that_are_damaged_are_left_out_and_told(tmp_path, capsys, wrong, left):
    run = runfolder.open_run(tmp_path)
    run.begin_metrics(['iteration', 'loss', 'mAP50'])
    for i in range(1, 5):
        run.row(iteration=i, loss=float(i))
    run.settle()
    run.close()
    path = tmp_path / 'metrics.csv'
    path.write_bytes(wrong(path.read_bytes().splitlines(keepends=True)))
    run.checkpoint.write_bytes(b'x')
    run = runfolder.open_run(tmp_path, resume=True)
    run.begin_metrics(['iteration', 'loss', 'mAP50'], iteration=4)
    assert [row['iteration'] for row in run.curve()] == list(left)
    assert capsys.readouterr().out == (f'{path} lacks {4 - len(left)} of the 4 iterations before the checkpoint\n' if len(left) < 4 else '')
    path.unlink()
    with pytest.raises(JobError, match='cannot read .*metrics.csv: No such file or directory'):
        run.curve()
    run.close()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(JobError, match='cannot write the run folder'):
        runfolder.open_run(tmp_path / 'file' / 'run')


def test_lines_of_a_batch_log(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 2.0, 4.0, 5.0, 13.0, 14.0, 20.0, 20.0])
    monkeypatch.setattr(runfolder.time, 'monotonic', lambda: next(clock))
    monkeypatch.setenv('MPI_FTP_TERMINAL', '0')
    run = runfolder.open_run(tmp_path)
    with run.progress(10, done=6) as progress:
        for done in (7, 8):
            progress.step(done, f'loss {done}')
        for share in (.5, .8):
            progress.within(9, f'evaluated {share:.0%} of val')
        for done in (9, 10):
            progress.step(done, f'loss {done}')
    run.close()
    assert capsys.readouterr().out.splitlines() == ['iteration 7/10  loss 7  0:00:06 left', 'iteration 9/10  evaluated 80% of val', 'iteration 10/10  loss 10']
    assert len((tmp_path / 'log.txt').read_text().splitlines()) == 5


def test_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('MPI_FTP_TERMINAL', '1')
    monkeypatch.setenv('COLUMNS', '100')
    monkeypatch.setenv('TERM', 'xterm')
    run = runfolder.open_run(tmp_path)
    with run.progress(2) as progress:
        progress.step(1, 'loss 3')
        progress.within(2, 'evaluated 50% of val')
        progress.bar.refresh()
        progress.step(2, 'loss 2')
    run.close()
    shown = capsys.readouterr().out
    assert '2/2' in shown and 'evaluated 50% of val' in shown and 'iteration 2/2  loss 2' in (tmp_path / 'log.txt').read_text()


def test_other_ranks_are_silent(tmp_path, capsys):
    run = runfolder.open_run(tmp_path / 'x', rank=1)
    run.begin_metrics(['iteration'])
    run.row(iteration=1)
    with run.progress(3) as progress:
        progress.within(1, 'evaluated 50% of val')
        progress.step(1)
    run.finish()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ''
