"""Learning rates against Darknet's formulas, worked out by hand."""
import math

import pytest

from mpi_ftp import cfg
from mpi_ftp.errors import CfgError
from mpi_ftp.schedule import from_net


def schedule(text, **options):
    return from_net(cfg.parse('[net]\n' + text)[0], **options)


@pytest.mark.parametrize('text, rates', [
    ('', {1: .001, 1000: .001}),
    ('learning_rate=.1\npolicy=constant', {1: .1}),
    ('learning_rate=.1\npolicy=step\nstep=10\nscale=.5', {1: .1, 9: .1, 10: .05, 19: .05, 20: .025}),
    ('learning_rate=.1\npolicy=steps\nsteps=10,20\nscales=.1,.5', {9: .1, 10: .01, 19: .01, 20: .005, 99: .005}),
    ('learning_rate=.001\npolicy=steps\nsteps=-1,100,200\nscales=.1,10,.1', {1: .0001, 99: .0001, 100: .001, 200: .0001}),
    ('learning_rate=.1\npolicy=exp\ngamma=.9', {1: .09, 3: .0729}),
    ('learning_rate=.1\npolicy=poly\nmax_batches=100\npower=2', {50: .025, 100: 0, 150: 0}),
    ('learning_rate=.1\npolicy=sigmoid\ngamma=.5\nstep=10', {10: .05, 4: .1 / (1 + math.exp(-3)), 100000: 0}),
    ('learning_rate=.1\npolicy=steps\nsteps=50\nscales=.1\nburn_in=10', {1: .1 * .1 ** 4, 5: .1 * .5 ** 4, 10: .1, 50: .01}),
    ('learning_rate=.1\nburn_in=10\npower=1', {5: .05, 10: .1}),
])
def test_rates(text, rates):
    rate = schedule(text)
    assert {b: rate(b) for b in rates} == pytest.approx(rates, rel=1e-9, abs=1e-12)


def test_options_override():
    assert schedule('learning_rate=.1', rate=.2)(5) == .2
    assert schedule('policy=poly', max_batches=10, rate=1.0)(5) == .5 ** 4
    assert schedule('policy=poly\nmax_batches=20', max_batches=10, rate=1.0)(10) == .5 ** 4


@pytest.mark.parametrize('text, message', [
    ('policy=random', 'not trained here'), ('policy=stepps', 'did you mean "steps"'), ('policy=steps\nscales=.1', 'steps is missing'),
    ('policy=steps\nsteps=1,2\nscales=.1', r'expected 2 numbers, one for each of steps, found 1'),
    ('policy=step\nstep=0', 'whole number of at least 1'), ('policy=poly', 'policy=poly needs'),
])
def test_refused(text, message):
    with pytest.raises(CfgError, match=message):
        schedule(text)
