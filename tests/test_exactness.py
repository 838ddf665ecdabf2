"""What a rank reads, it must have: tensors that several groups read, of which a part is read, whose room is somebody else's by now; windows past the map.
Classifiers; gradients of whole networks beside finite differences."""
import numpy as np
import pytest
from core import HEAD, NETWORKS, Quadratic, compare_with_one_rank, conv, make_network, picture, run
from planning_core import made_up_machine

from mpi_ftp import comm as comm_module
from mpi_ftp.errors import PlanError
from mpi_ftp.model import Model
from mpi_ftp.parameters import holders
from mpi_ftp.plan import GroupPlan, Plan, by_hand, per_layer
from mpi_ftp.region import balanced
from mpi_ftp.search import find_plan

GRIDS = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2), 6: (3, 2)}
ROUTED = '[route]\nlayers=-1,0\n[shortcut]\nfrom=0\nactivation=linear\n'
HALF = '[route]\nlayers=-1\ngroups=2\ngroup_id=1\n'
POOL33 = '[maxpool]\nsize=3\nstride=3\n'
CASES = {
    'read by two groups, by one with a halo and without': (conv(16, k=1, bn=0) + conv(16, bn=0) + ROUTED + HEAD, [0, 1, 3]),
    'linear, its room used again': (conv(32, a='linear', bn=0) + conv(8, k=1, s=2, bn=0) + '[maxpool]\nsize=3\nstride=1\n' + HEAD, None),
    'a half that nobody reads': (conv(32, bn=0) + HALF + HEAD, [0]),
    'a half that nobody reads, normed': (conv(32) + HALF + HEAD, [0, 2]),
}


@pytest.mark.mpi(1, 2, 4, 6)
@pytest.mark.parametrize('name', CASES)
def test_any_ranks_train_what_one_trains(name, tmp_path):
    comm = comm_module.world()
    text, starts = CASES[name]
    network = make_network(tmp_path, text, 11, 13)
    compare_with_one_rank(network, by_hand(network, comm.size, 2, GRIDS[comm.size], per_layer(network) if starts is None else starts), comm)


@pytest.mark.mpi(1, 2, 4, 6)
def test_a_pool_past_the_edge_after_a_norm_is_exact_in_inference(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, conv(16) + POOL33 + conv(16) + HEAD, 17, 20)
    found = []
    for plan, ranks in (by_hand(network, comm.size, 1, GRIDS[comm.size], [0]), comm), (by_hand(network, 1, 1, (1, 1), [0]), comm_module.Alone()):
        model = Model(network, plan, ranks, np.float64, training=False, losses={head.index: Quadratic() for head in network.heads})
        model.parameters.initialise(3)
        for statistics in model.parameters.statistics.values():
            statistics['variance'][...] = 1
        model.forward(picture(network, 1, model.picture))
        found.append(model.gather(len(network) - 2))
    if comm.rank == 0:
        np.testing.assert_allclose(*found, rtol=1e-12)


def test_filters_that_ranks_would_share_in_part_are_refused(tmp_path):
    network = make_network(tmp_path, conv(32, k=1) + '[route]\nlayers=0,0\n' + HEAD, 6, 7)
    plan = Plan(2, 1, (GroupPlan(0, 2, ((0, 1), (0, 16, 64), (0, 6), (0, 7))), GroupPlan(2, 4, ((0, 1), (0, 18), (0, 6), (0, 7)))))
    with pytest.raises(PlanError, match='may not hold layer 0'):
        layouts = plan.layouts(network)
        holders(network, plan, [[plan.share(network, layouts, group, rank) for rank in range(2)] for group in plan.groups])


def test_a_backward_cut_after_a_head_is_refused(tmp_path):
    network = make_network(tmp_path, HEAD + '[route]\nlayers=0\n' + HEAD, 6, 7)
    with pytest.raises(PlanError, match=r'backward cut at layer 1 \[region\]: expected a layer whose output others read'):
        find_plan(network, 2, 1, made_up_machine(2), cuts=(1,))


@pytest.mark.mpi(2, 3)
def test_a_shortcut_from_fewer_channels_cut_along_filters(tmp_path):
    """The last ranks own channels to which nothing is added."""
    comm = comm_module.world()
    network = make_network(tmp_path, conv(20) + conv(48) + '[shortcut]\nfrom=-2\nactivation=leaky\n' + conv(16) + HEAD, 12, 13, name=f'{comm.rank}.cfg')
    shares = [balanced(layer.out_shape[0], comm.size, 16) if layer.index in (1, 2) else (0, layer.out_shape[0]) for layer in network.layers]
    plan = Plan(comm.size, 1, tuple(GroupPlan(i, i + 1, ((0, 1), share, (0, 12), (0, 13))) for i, share in enumerate(shares)))
    compare_with_one_rank(network, plan, comm)


CLASSIFIER = '[crop]\ncrop_height=16\ncrop_width=20\nflip=1\n' + conv(20) + '[avgpool]\n' + '[connected]\noutput=24\nactivation=swish\n' \
    + '[dropout]\nprobability=.4\n[connected]\noutput=18\nactivation=linear\nbatch_normalize=1\n[softmax]\n'
CROPPED = conv(16) + '[crop]\ncrop_height=12\ncrop_width=15\n' + conv(20, k=1) + '[avgpool]\n[connected]\noutput=18\nactivation=linear\n[softmax]\n'
NO_POOL = conv(16, s=2) + conv(20) + '[connected]\noutput=30\nactivation=logistic\n[connected]\noutput=18\nactivation=linear\n[softmax]\n'


@pytest.mark.mpi(2, 3, 4, 6)
@pytest.mark.parametrize('text', [CLASSIFIER, CROPPED, NO_POOL], ids=['avgpool', 'cropped', 'connected'])
def test_classifiers_equal_one_rank(text, tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, text, 19, 23, name=f'{comm.rank}.cfg')
    for starts in (per_layer(network), [0]):
        compare_with_one_rank(network, by_hand(network, comm.size, 5, GRIDS[comm.size], starts), comm)


@pytest.mark.parametrize('text', [*NETWORKS.values(), CLASSIFIER, CROPPED, NO_POOL], ids=[*NETWORKS, 'avgpool', 'cropped', 'connected'])
def test_finite_differences_through_a_whole_network(text, tmp_path):
    """The gradient of the loss along random directions in every weight tensor."""
    network = make_network(tmp_path, text.replace('leaky', 'mish').replace('relu', 'swish'), 20, 24)
    plan, alone, h = by_hand(network, 1, 2, (1, 1), [0]), comm_module.Alone(), 1e-6
    _, _, model = run(network, plan, alone, steps=1)
    image = picture(network, 2, model.picture)
    rng = np.random.default_rng(0)

    def loss():
        return model.forward(image, [None, None], key=4)

    loss()
    model.backward()
    for segment in model.parameters.segments:
        of = segment.layer, segment.name
        kept, gradient = model.parameters.get(*of), model.parameters.get(*of, model.parameters.grads)
        direction, ends = rng.standard_normal(kept.shape), []
        for sign in (1, -1):
            model.parameters.set(*of, kept + sign * h * direction)
            ends.append(loss())
        model.parameters.set(*of, kept)
        slope = float((direction * gradient).sum())
        assert gradient.any() and abs((ends[0] - ends[1]) / (2 * h) - slope) <= 1e-6 * abs(slope) + 1e-5, segment
