"""The sum of a small array in one round of messages: every rank sends its own to all others and adds what arrives in the order of ranks.

A tree takes several rounds, each of which waits until somebody looks; here it is one. The bits are the same on all ranks, wherever they run.
"""
import numpy as np

from . import kernels
from .waiting import do_nothing

TAG = 32001                 # one for all: every rank begins its sums in the same order


class SmallSum:
    """Sums of arrays of one shape over the ranks of a communicator; buffers and messages are made once."""

    def __init__(self, comm, shape, dtype):
        others = [(comm.rank + i) % comm.size for i in range(1, comm.size)]
        self.terms, self.mine = np.empty((comm.size,) + shape, dtype), comm.rank
        self.messages = comm.messages([(peer, self.terms[comm.rank]) for peer in others], [(peer, self.terms[peer]) for peer in others], TAG)

    def start(self, array):
        """Send an array without gaps; `finish` must follow before the next one."""
        if not array.flags.c_contiguous:
            raise ValueError(f'an array with gaps, of strides {array.strides}, cannot be summed in place')
        self.terms[self.mine] = array
        self.messages.start()

    def finish(self, array, meanwhile=do_nothing):
        """array = the sum of all ranks' arrays. meanwhile: see waiting.until."""
        self.messages.wait('sums', meanwhile)
        kernels.add_terms(array.reshape(-1), self.terms.reshape(len(self.terms), -1))
