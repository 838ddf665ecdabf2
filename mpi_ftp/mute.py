"""Ranks that neither send nor wait, each with a rank's own part of the work: what a step would take if messages cost nothing. Its numbers are wrong.

Works on a communicator; knows nothing of plans.
"""
from .waiting import Messages, do_nothing


class Mute:
    """The ranks of a communicator, silent: sums stay each rank's own terms, and where messages should arrive stays what lies there. Has what a Model asks of a communicator."""

    def __init__(self, comm):
        self.comm, self.rank, self.size, self.host_names = comm, comm.rank, comm.size, comm.host_names

    def sum(self, array, meanwhile=do_nothing):
        return array

    def begin_sum(self, array, meanwhile=do_nothing):
        return do_nothing

    def split(self, colour, key=0):
        """Like a World's (collective)."""
        part = self.comm.split(colour, key)
        return part and Mute(part)

    def same_host(self, peer):
        return self.comm.same_host(peer)

    def messages(self, sends, receives, tag):
        """Messages that are complete at once. Zeros lie where they should arrive, as in half precision they do from the start, and no chance numbers."""
        for _, array in receives:
            if array.dtype.kind == 'f':
                array[...] = 0
        return Messages([], [], buffers=(sends, receives))
