"""Where the windows of a sliding layer lie: intervals of outputs to intervals of inputs, along one axis."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Windows of `size` taps, `dilation` apart, every `stride` pixels, the first at input pixel -`pad`."""
    size: int
    stride: int = 1
    pad: int = 0
    dilation: int = 1

    @property
    def extent(self):
        """Input pixels from the first to past the last tap of one window."""
        return (self.size - 1) * self.dilation + 1

    def outputs(self, n, pad_total):
        """Number of windows over `n` pixels with `pad_total` pixels of padding at both ends together."""
        return max(0, (n + pad_total - self.extent) // self.stride + 1)

    def needs(self, lo, hi):
        """The inputs [a, b) that the outputs [lo, hi) read; may reach past the tensor."""
        return lo * self.stride - self.pad, (hi - 1) * self.stride - self.pad + self.extent
