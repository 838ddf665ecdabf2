"""What ranks own, compute and hold: owned layouts are partitions, everything needed is there, padding stays outside."""
import pytest
from core import NETWORKS, conv, make_network

from mpi_ftp.geometry import gradient_box, owned_layout, whole
from mpi_ftp.network import PICTURE
from mpi_ftp.plan import by_hand, grid_edges, per_layer
from mpi_ftp.region import NOTHING, Layout, Region
from mpi_ftp.tile import Tile


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize('ranks, grid', [(3, (3, 1)), (4, (2, 2)), (6, (2, 3)), (5, (1, 4))])
def test_owned_layouts_are_partitions(name, ranks, grid, tmp_path):
    network = make_network(tmp_path, NETWORKS[name], 44, 52)
    for starts in ([0], per_layer(network), [0, 4]):
        for index, layout in by_hand(network, ranks, 2, grid, starts).layouts(network).items():
            assert layout.shape == network.tensor_shape(index, 2)
            assert sum(r.size for r in layout) == Region.whole(layout.shape).size, index
            for i, a in enumerate(layout):
                assert all((a & b).empty for b in layout.regions[:i]), index


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize('cuts', [(), (1, 4)])
def test_what_a_layer_needs_is_held_and_computed(name, cuts, tmp_path):
    network = make_network(tmp_path, NETWORKS[name], 44, 52)
    for starts in ([0], [0, 3, 6]):
        plan = by_hand(network, 6, 1, (3, 2), starts, cuts)
        layouts = plan.layouts(network)
        for group in plan.groups:
            for rank in range(6):
                share = plan.share(network, layouts, group, rank)
                for index in range(group.start, group.stop):
                    layer = network.layers[index]
                    assert share.computed[index] in whole(network, index, share.computed[index])
                    assert share.differentiated[index] in share.computed[index]
                    for source, need in zip(layer.inputs, layer.needs(share.computed[index])):
                        assert need in share.held[source]
                        if source >= group.start:
                            assert need & whole(network, source, need) in share.computed[source]
                    for source, need in zip(layer.inputs, layer.needs(share.differentiated[index])):
                        if source != PICTURE:
                            assert gradient_box(network, layer, source, need) in share.gradient[source]


def test_cut_points_follow_the_stride(tmp_path):
    network = make_network(tmp_path, conv(16) + '[maxpool]\nsize=2\nstride=2\n' + conv(16) + '[maxpool]\nsize=2\nstride=2\n', 38, 38)
    last = Layout.cut((1, 16, 10, 10), ((0, 1), (0, 16), (0, 5, 10), (0, 10)), 2)
    assert owned_layout(network, 3, last, 2)[0].hi[2] == 10 and owned_layout(network, 3, last, 0)[0].hi[2] == 20
    assert owned_layout(network, 3, last, 0)[1].hi[2] == 38


def test_a_map_smaller_than_the_grid_is_cut_along_samples():
    assert grid_edges((4, 10, 1, 1), (2, 2)) == ((0, 1, 2, 3, 4), (0, 10), (0, 1), (0, 1))
    assert grid_edges((4, 10, 2, 3), (2, 2)) == ((0, 4), (0, 10), (0, 1, 2), (0, 2, 3))


def test_a_tile_gives_only_what_it_holds():
    tile = Tile.zeros(Region((0, 16, 2, 0), (1, 40, 6, 5)))
    assert tile[Region((0, 32, 3, 1), (1, 40, 5, 5))].shape == (1, 1, 2, 4, 16) and tile[NOTHING].size == 0
    for outside in Region((0, 0, 2, 0), (1, 40, 6, 5)), Region((0, 16, 2, 0), (1, 40, 6, 6)):
        with pytest.raises(IndexError, match='is not inside the tile'):
            tile[outside]
