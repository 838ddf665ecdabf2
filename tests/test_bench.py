"""The verb `bench` on a tiny network, alone and beside a program that speaks as PyTorch's side does."""
import sys

import pytest

from core import conv, make_network
from mpi_ftp import bench
from mpi_ftp.errors import CfgError, UsageError

POOL = '[maxpool]\nsize=2\nstride=2\n'
HEAD = conv(14, k=1, a='linear', bn=0) + '[region]\nanchors=1,1, 2,2\nnum=2\nclasses=2\ncoords=4\n'
PEER = """#!{python}
import json, sys
asked = json.loads(sys.stdin.readline())
assert len(asked['layers']) == 3 and asked['layout'] in ('NHWC', 'NCHW', 'plain')
print('ready', flush=True)
for line in sys.stdin:
    print(json.dumps([9.0 if asked['layout'] == 'plain' else 5.0] * int(line)), flush=True)
"""


@pytest.fixture
def network(tmp_path):
    return make_network(tmp_path, conv(16) + POOL + HEAD, 32, 48)


def test_layers_are_described(network):
    first, pool, last = bench.description(network)
    assert first == dict(kind='convolutional', inputs=3, filters=16, size=3, stride=1, pad=1, dilation=1, groups=1, normalize=True, activation='leaky')
    assert pool == dict(kind='maxpool', size=2, stride=2)
    assert (last['filters'], last['normalize'], last['activation']) == (14, False, 'linear')


@pytest.mark.parametrize('text, message', [('[route]\nlayers=-1\n', 'chains of'), ('[maxpool]\nsize=2\nstride=1\n', 'past the map')])
def test_what_pytorch_cannot_do_is_refused(tmp_path, text, message):
    with pytest.raises(CfgError, match=message):
        bench.description(make_network(tmp_path, conv(16) + text + HEAD, 32, 32))


def test_both_sides_take_turns(network, tmp_path, capsys):
    peer = tmp_path / 'peer'
    peer.write_text(PEER.format(python=sys.executable))
    peer.chmod(0o700)
    times = bench.race(network, 2, 0, str(peer))
    assert 0 < times['ours'] < 5 and times['NHWC, tuned'] == times['NCHW, tuned'] == 5 and times['as is'] == 9
    bench.show([(32, 2, {**times, 'ours': 2.5})])
    assert '2.00x' in (said := capsys.readouterr().out) and '3.60x' in said


def test_an_interpreter_without_pytorch_is_refused(network, tmp_path):
    peer = tmp_path / 'peer'
    peer.write_text(f'#!{sys.executable}\nraise ImportError("no torch here")\n')
    peer.chmod(0o700)
    with pytest.raises(UsageError, match='no torch here.*--torch-python'):
        bench.race(network, 1, 0, str(peer))
    with pytest.raises(UsageError, match='cannot run'):
        bench.race(network, 1, 0, str(tmp_path / 'nothing'))


def test_alone(network, capsys):
    from mpi_ftp.__main__ import parse
    run, args = parse(['bench', '--cfg', str(network.path), '--sides', '32', '--batches', '1,2', '--no-torch', '--seconds', '0', '--threads', '1'])
    run(args)
    assert capsys.readouterr().out.count('32x32') == 2
    with pytest.raises(UsageError, match='--sides: 0,32: expected whole numbers of at least 1'):
        parse(['bench', '--sides', '0,32'])
