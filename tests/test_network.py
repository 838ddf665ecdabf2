"""Networks from .cfg files: shapes as Darknet computes them, and one sentence for what is wrong."""
import pytest
from core import HEAD, NET, NETWORKS, conv, make_network

from mpi_ftp.errors import CfgError
from mpi_ftp.network import read_network
from mpi_ftp.plan import per_layer
from mpi_ftp.region import Region


def shapes(tmp_path, text, h=13, w=17):
    return [layer.out_shape for layer in make_network(tmp_path, text, h, w).layers]


def test_shapes_follow_darknets_rules(tmp_path):
    assert shapes(tmp_path, conv(20, k=3, s=2)) == [(20, 7, 9)]
    assert shapes(tmp_path, conv(20, k=3, p=0)) == [(20, 11, 15)]
    assert shapes(tmp_path, conv(20, k=5, s=3, p=0, more='padding=1\n')) == [(20, 4, 5)]
    assert shapes(tmp_path, conv(8, k=3, more='dilation=2\n')) == shapes(tmp_path, conv(8, k=3, p=0, more='padding=1\ndilation=2\n')) == [(8, 13, 17)]
    # a max-pool of size 2 and stride 2 pads one pixel at the end; of stride 1 it keeps the size
    assert shapes(tmp_path, conv(16) + '[maxpool]\nsize=2\nstride=2\n[maxpool]\nsize=2\nstride=1\n') == [(16, 13, 17), (16, 7, 9), (16, 7, 9)]
    assert shapes(tmp_path, conv(16) + '[maxpool]\nsize=3\nstride=2\npadding=0\n')[-1] == (16, 6, 8)
    assert shapes(tmp_path, conv(16) + '[upsample]\nstride=2\n[route]\nlayers=-1\n') == [(16, 13, 17), (16, 26, 34), (16, 26, 34)]
    assert shapes(tmp_path, conv(16) + conv(24) + '[route]\nlayers=-1,0\n' + '[route]\nlayers=-1\ngroups=2\ngroup_id=1\n')[2:] == [(40, 13, 17), (20, 13, 17)]
    assert shapes(tmp_path, conv(16) + '[reorg]\nstride=2\n', 14, 18)[-1] == (64, 7, 9)
    assert shapes(tmp_path, conv(16) + '[avgpool]\n[connected]\noutput=10\nactivation=linear\n[softmax]\n')[1:] == [(16, 1, 1), (10, 1, 1), (10, 1, 1)]
    assert len(shapes(tmp_path, conv(16) + '[softmax]\n[cost]\ntype=sse\n')) == 2                        # the head has that loss already
    assert shapes(tmp_path, '[crop]\ncrop_height=11\ncrop_width=10\n' + conv(16)) == [(3, 11, 10), (16, 11, 10)]


def test_tensors_are_in_file_order(tmp_path):
    network = make_network(tmp_path, conv(20) + conv(6, bn=0, more='groups=2\n') + '[connected]\noutput=7\nbatch_normalize=1\n', 8, 8)
    assert network.layers[0].tensors == [('bias', (20,)), ('scale', (20,)), ('mean', (20,)), ('variance', (20,)), ('filters', (20, 3, 3, 3))]
    assert network.layers[1].tensors == [('bias', (6,)), ('filters', (6, 10, 3, 3))]
    assert network.layers[2].tensors == [('bias', (7,)), ('filters', (7, 384)), ('scale', (7,)), ('mean', (7,)), ('variance', (7,))]
    assert network.parameters == 20 * 27 + 40 + 6 * 90 + 6 + 7 * 384 + 14


@pytest.mark.parametrize('text, said', [
    ('[detection]\nclasses=3\n', r'line 5.*\[detection\], a kind that mpi_ftp does not train'),
    (conv(16) + '[local]\nfilters=3\n', r'\[local\], a kind that mpi_ftp does not train'),
    (conv(16) + '[route]\nlayers=-2\n', 'refers to layer -2'),
    (conv(16) + '[route]\nlayers=4\n', 'refers to layer 4'),
    (conv(16) + conv(16, s=2) + '[route]\nlayers=-1,-2\n', 'unlike height or width'),
    (conv(16) + conv(16, s=2) + '[shortcut]\nfrom=-2\n' + '[shortcut]\nfrom=0\n' + conv(8, k=9, p=0), 'empty output'),
    (conv(16) + '[reorg]\nstride=2\n', 'does not divide by stride=2'),
    (conv(16) + conv(16, s=2) + '[upsample]\nstride=4\n[shortcut]\nfrom=0\n', r'adds a 13x17 map to a 28x36 one: expected the same size'),
    (conv(16) + conv(16, k=1) + '[shortcut]\nfrom=-2\nalpha=2\n', 'alpha other than 1 is not supported'),
    ('[dropout]\n[shortcut]\nfrom=-1\n', r'line 6: layer 1 \[shortcut\] adds to the picture itself'),
    (conv(16) + '[route]\nlayers=-1\ngroups=2\ngroup_id=2\n', 'groups=2 group_id=2 do not fit'),
    (conv(16) + '[route]\nlayers=-1\ngroups=3\n', 'groups=3 group_id=0 do not fit'),
    (conv(16) + '[reorg]\nstride=1\nreverse=1\n', 'reverse is not supported'),
    (conv(16) + '[upsample]\nstride=2\nscale=2\n', 'expected stride >= 1 and scale 1'),
    ('[crop]\ncrop_height=9\ncrop_width=9\nangle=7\n', 'angle is not supported'),
    (conv(16) + '[crop]\ncrop_height=99\ncrop_width=9\n', r'wants 9x99 of a 17x13 input'),
    (conv(16, s=0), 'stride=0: expected a whole number of at least 1'),
    (conv(16, k=0), 'size=0: expected'),
    (conv(16, more='groups=0\n'), 'groups=0: expected'),
    (conv(16, more='dilation=0\n'), 'dilation=0: expected'),
    (conv(16, p=0, more='padding=-1\n'), 'padding=-1: expected'),
    ('[maxpool]\nsize=2\nstride=0\n', 'stride=0: expected'),
    ('[maxpool]\nsize=-2\nstride=1\n', 'size=-2: expected'),
    ('[reorg]\nstride=0\n', 'stride=0: expected'),
    (conv(16) + '[route]\nlayers=-1\ngroups=0\n', 'groups=0: expected'),
    ('[dropout]\nprobability=1\n', 'probability=1: expected a number below 1'),
    (conv(16, more='groups=5\n'), 'do not divide into groups=5'),
    (conv(16, a='leeky'), 'leaky'),
    ('[convolution]\nfilters=3\n', 'convolutional'),
    (conv(16) + '[softmax]\n[cost]\ntype=smooth\n', 'type=smooth: expected one of sse'),
    ('', 'at least one layer'),
])
def test_what_is_wrong_is_said_in_one_sentence(text, said, tmp_path):
    with pytest.raises(CfgError, match=said) as caught:
        make_network(tmp_path, text, 13, 17)
    assert 'net.cfg' in str(caught.value) and '\n' not in str(caught.value)


def test_size_can_be_overridden_and_must_be_there(tmp_path):
    path = tmp_path / 'net.cfg'
    path.write_text(NET.format(h=13, w=17, c=3) + conv(16))
    assert read_network(path, width=8, height=9).layers[0].out_shape == (16, 9, 8)
    path.write_text('[net]\nheight=4\n' + conv(16))
    with pytest.raises(CfgError, match='width is missing'):
        read_network(path)


def test_groups_per_layer_begin_where_pixels_around_are_read(tmp_path):
    """Layers that read nothing but the pixel itself stay with the one before."""
    network = make_network(tmp_path, NETWORKS['upsample'], 36, 52)
    kinds = 'convolutional maxpool convolutional maxpool convolutional upsample convolutional maxpool convolutional convolutional'.split()
    assert [network.layers[index].kind for index in per_layer(network)] == kinds
    residual = make_network(tmp_path, NETWORKS['residual'], 36, 52, name='other.cfg')
    assert {layer.kind for layer in residual.layers if layer.index not in per_layer(residual)} == {'shortcut', 'region'}


def test_a_softmax_reads_its_whole_sample_and_cells_all_their_channels(tmp_path):
    cell = Region((1, 16, 2, 3), (2, 18, 4, 5))
    for text, needed in ((conv(18) + '[softmax]\n', Region((1, 0, 0, 0), (2, 18, 13, 17))), (HEAD, Region((1, 0, 2, 3), (2, 18, 4, 5)))):
        assert make_network(tmp_path, text, 13, 17).heads[0].needs(cell) == [needed]
