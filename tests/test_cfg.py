"""Darknet .cfg text: what is read, what is refused and with which words."""
import pytest

from mpi_ftp import cfg
from mpi_ftp.errors import CfgError

SMALL = """
# a comment
[ net ]
height = 32     # trailing comment
width=48
steps=10, 20
; another
[conv]
filters=16
size=3
batch_normalize=1
activation=leaky

[region]
anchors = 1.5,2, 3.25,4
"""


def section(text, kind='convolutional'):
    return cfg.parse(f'[net]\nwidth=8\n[{kind}]\n{text}', 'some.cfg')[1]


def test_reads_comments_spaces_aliases_and_lines():
    net, conv, region = cfg.parse(SMALL, 'small.cfg')
    assert [s.kind for s in (net, conv, region)] == ['net', 'convolutional', 'region']
    assert (net.int('height'), net.ints('steps'), region.floats('anchors')) == (32, (10, 20), (1.5, 2, 3.25, 4))
    assert (conv.line, conv.lines['size'], conv.path) == (8, 10, 'small.cfg')
    assert conv.flag('batch_normalize') and not conv.flag('pad') and 'pad' not in conv
    assert conv.choice('activation', ('linear', 'leaky')) == 'leaky' and conv.int('stride', 1) == 1


def test_write_and_read_again():
    sections = cfg.parse(SMALL)
    again = cfg.parse(cfg.write(sections))
    assert [(s.kind, dict(s.options)) for s in sections] == [(s.kind, dict(s.options)) for s in again]
    changed = sections[2].replace(anchors=(1.5, 2.0), num=1, classes=None, absolute=True)
    assert dict(changed.options) == {'anchors': '1.5,2', 'num': '1', 'absolute': '1'}


def test_repeated_keys_must_agree():
    assert section('size=3\nsize=3').int('size') == 3
    with pytest.raises(CfgError, match=r'some.cfg:5: \[convolutional\] size=5, but line 4 says size=3'):
        section('size=3\nsize=5')


@pytest.mark.parametrize('text, message', [
    ('[net]\n[convolutonal]\n', r'x.cfg:2: unknown section \[convolutonal\], did you mean "convolutional"\?'),
    ('[net]\n[convolutional]\nfilter=3', r'x.cfg:3: unknown key "filter" in \[convolutional\], did you mean "filters"\?'),
    ('[net]\nlearning-rate=1', 'did you mean "learning_rate"'),
    ('width=3', 'before the first section'),
    ('[net]\nwidth', 'x.cfg:2: "width": expected key=value'),
    ('[net]\nwidth=', 'expected key=value'),
    ('[net', r'expected a section such as'),
    ('[convolutional]\nfilters=3', r'expected \[net\] as the first section, found \[convolutional\]'),
    ('', r'expected \[net\] as the first section, found none'),
    ('[net]\n[convolutional]\nxnor=1', 'xnor=1: not trained here; leave the key out or set it to 0'),
    ('[net]\nclip=5', 'clip=5: not trained here; leave the key out or set it to 0'),
    ('[net]\n[maxpool]\nstopbackward=1', 'stopbackward=1: not trained here'),
    ('[net]\n[convolutional]\nlearning_rate=.1', 'learning_rate=.1: not trained here; leave the key out or set it to 1'),
    ('[net]\n[region]\ntree=9k.tree', 'tree=9k.tree: not trained here'),
])
def test_refused(text, message):
    with pytest.raises(CfgError, match=message):
        cfg.parse(text, 'x.cfg')


@pytest.mark.parametrize('text, call, message', [
    ('size=three', lambda s: s.int('size'), r'some.cfg:4: \[convolutional\] size=three: expected a whole number'),
    ('size=0', lambda s: s.int('size', least=1), 'size=0: expected a whole number of at least 1'),
    ('dot=0.0', lambda s: s.int('dot'), 'dot=0.0: expected a whole number'),
    ('filters=3', lambda s: s.int('size'), r'some.cfg:3: \[convolutional\] size is missing: a whole number'),
    ('activation=leeky', lambda s: s.choice('activation', ('linear', 'leaky')), 'one of linear, leaky, did you mean "leaky"'),
    ('batch_normalize=yes', lambda s: s.flag('batch_normalize'), 'batch_normalize=yes: expected 0 or 1'),
    ('padding=inf', lambda s: s.float('padding'), 'expected a number'),
    ('padding=1,,2', lambda s: s.floats('padding'), 'expected numbers separated by commas'),
])
def test_wrong_values(text, call, message):
    with pytest.raises(CfgError, match=message):
        call(section(text))


def test_neutral_and_ignored_keys():
    sections = cfg.parse('[net]\nadam=0\nangle=7\n[convolutional]\nbinary=0\n', 'x.cfg')
    assert cfg.ignored(sections) == ['x.cfg:3: [net] angle=7']
    classifier = cfg.parse('[net]\nangle=7\nnotruth=1\n[softmax]\n[cost]\n', 'x.cfg')
    assert cfg.ignored(classifier) == ['x.cfg:3: [net] notruth=1']             # its crops are turned
    assert cfg.ignored(cfg.parse('[net]\n[region]\nabsolute=1\nnum=5\n', 'x.cfg')) == ['x.cfg:3: [region] absolute=1']
    rare = cfg.parse('[net]\ninputs=9\n[crop]\nshift=.2\n[softmax]\n[cost]\nscale=1\nratio=0\nnoobj=1\nthresh=0\ntype=sse\n', 'x.cfg')
    assert [line.split(': ')[1] for line in cfg.ignored(rare)] == ['[net] inputs=9', '[crop] shift=.2', '[cost] type=sse']


@pytest.mark.parametrize('key', ['scale=2', 'ratio=.5', 'noobj=0', 'thresh=.1'])
def test_costs_that_are_not_trained_are_refused(key):
    with pytest.raises(CfgError, match=f'{key}: not trained here; leave the key out or set it to'):
        cfg.parse(f'[net]\n[softmax]\n[cost]\n{key}\n')


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(CfgError, match='No such file'):
        cfg.read_cfg(tmp_path / 'none.cfg')
    (tmp_path / 'b.cfg').write_bytes(b'\xff\xfe\x00\x80')
    with pytest.raises(CfgError, match='is not a text file'):
        cfg.read_cfg(tmp_path / 'b.cfg')
