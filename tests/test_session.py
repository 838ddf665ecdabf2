"""What every verb that runs a network sets up."""
import pytest
from core import conv, make_network

from mpi_ftp.errors import CfgError
from mpi_ftp.session import losses_of


def test_a_head_that_does_not_fit_is_told_with_file_and_line(tmp_path):
    network = make_network(tmp_path, conv(41, k=1) + '[region]\nanchors=1,1\nnum=1\nclasses=3\ncoords=4\n', 7, 9)
    line = network.heads[0].section.line
    with pytest.raises(CfgError, match=rf'{network.path}:{line}: \[region\] reads 1 anchors x .* = 8 channels, but the layer before it has 41'):
        losses_of(network)
