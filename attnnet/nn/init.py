"""Initial values of parameters, drawn from attnnet's own counter-based generator.

``attnnet.manual_seed(s)`` before a model is made fixes every value. Each function fills a tensor
in place and returns it. The names are PyTorch's.
"""

from __future__ import annotations

import math

import numpy as np

from .. import random
from ..tensor import Tensor


def fan_in(shape: tuple[int, ...]) -> int:
    """The number of inputs that one output sums over.

    Args:
        shape: of a weight: ``(K, C)`` of a linear layer or ``(K, C/groups, R, S)`` of a
            convolution.

    Raises:
        ValueError: for fewer than two dimensions.
    """
    if len(shape) < 2:
        raise ValueError(f"fan_in needs a weight of two or more dimensions, got shape {shape}")
    return math.prod(shape[1:])


def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Fill with draws from U(low, high)."""
    tensor.copy_(random.uniform(tensor.shape, low, high))
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with draws from N(mean, std^2)."""
    tensor.copy_(random.normal(tensor.shape, mean, std))
    return tensor


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Fill with one value."""
    tensor.copy_(np.full(tensor.shape, value, dtype=np.float32))
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def fan_in_uniform_(weight: Tensor, bias: Tensor | None = None) -> None:
    """PyTorch's default of convolutions and linear layers: U(-b, b), b = 1 / sqrt(fan_in).

    Args:
        weight: ``(K, C)`` or ``(K, C/groups, R, S)``; fills it.
        bias: ``(K,)`` or None; filled from the same interval, whose width the weight sets.
    """
    inputs = fan_in(weight.shape)
    bound = 1.0 / math.sqrt(inputs) if inputs > 0 else 0.0
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)


def vgg_normal_(weight: Tensor, bias: Tensor | None = None) -> None:
    """The VGG convolutions of the study: N(0, 2 / (R * S * K)), zero bias.

    Args:
        weight: ``(K, C/groups, R, S)`` of a convolution with K output channels.
        bias: ``(K,)`` or None; zeroed.
    """
    out_channels, _, rows, columns = weight.shape
    normal_(weight, 0.0, math.sqrt(2.0 / (rows * columns * out_channels)))
    if bias is not None:
        zeros_(bias)
