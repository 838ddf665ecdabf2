"""What every verb that runs a network sets up, and which names `detect` takes for its classes."""
import pytest
from core import conv, make_network

from mpi_ftp.detect import names_of
from mpi_ftp.errors import CfgError, DataError
from mpi_ftp.session import losses_of


def test_a_head_that_does_not_fit_is_told_with_file_and_line(tmp_path):
    network = make_network(tmp_path, conv(41, k=1) + '[region]\nanchors=1,1\nnum=1\nclasses=3\ncoords=4\n', 7, 9)
    line = network.heads[0].section.line
    with pytest.raises(CfgError, match=rf'{network.path}:{line}: \[region\] reads 1 anchors x .* = 8 channels, but the layer before it has 41'):
        losses_of(network)


def test_a_classifier_takes_the_first_names_of_a_longer_list(tmp_path):
    """Darknet's lists of ImageNet are such; a list that is too short, or a detector's, is of something else."""
    head = make_network(tmp_path, conv(3) + '[avgpool]\n[softmax]\n', 7, 9).heads[0]
    (tmp_path / 'n.names').write_text('ant\nbee\ncat\ndog\n')
    assert names_of(tmp_path / 'n.names', head) == ['ant', 'bee', 'cat'] and names_of(None, head) == []
    (tmp_path / 'n.names').write_text('ant\nbee\n')
    with pytest.raises(DataError, match=r'n.names has 2 class names, but layer 2 \[softmax\] tells 3 classes apart'):
        names_of(tmp_path / 'n.names', head)
