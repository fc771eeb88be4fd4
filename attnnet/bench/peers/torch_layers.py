"""Single layers in PyTorch. Needs PyTorch."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from ..layers import Block, Convolution, Layer
from . import torch_blocks


class _NormAddReLU(nn.BatchNorm2d):
    def forward(self, x, residual):
        return F.relu(super().forward(x) + residual)


def build(layer: Layer) -> nn.Module:
    """The layer, its weights not yet ours.

    Raises:
        KeyError: a block that this package alone has.
    """
    channels, size = layer.shape[1:3]
    if isinstance(layer, Convolution):
        k, c, r, _ = layer.weight
        return nn.Conv2d(c, k, r, layer.stride, layer.padding, bias=False)
    if isinstance(layer, Block):
        return torch_blocks.make(layer.block, channels, size)
    return _NormAddReLU(channels)
