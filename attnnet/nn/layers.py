"""Layers: thin modules over ``attnnet.functional``, named and initialised as PyTorch's.

Shapes are (N, C, H, W) for images: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional as F
from ..operands import Pair, as_pair
from ..tensor import Tensor
from . import init
from .module import Module
from .parameter import Parameter


def positive(value: Any, name: str) -> int:
    """A whole number of at least one.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1: got {value!r}")
    return int(value)


class Conv2d(Module):
    """2-D convolution: (N, C, H, W) -> (N, K, OH, OW), OH = (H + 2 padding - R) // stride + 1.

    Args:
        in_channels: C. out_channels: K.
        kernel_size: R, or (R, S).
        stride: default 1; an int or (rows, columns).
        padding: zeros on each side, default 0; an int or (rows, columns).
        groups: default 1; divides both channel counts.
        bias: whether there is one (default yes).

    Weight (K, C/groups, R, S) and bias (K,) start from U(-b, b), b = 1 / sqrt(C/groups * R * S).

    Raises:
        ValueError: for sizes that are no positive ints, or groups that do not divide.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = positive(in_channels, "in_channels")
        self.out_channels = positive(out_channels, "out_channels")
        self.kernel_size = as_pair(kernel_size, "kernel_size", 1)
        self.stride = as_pair(stride, "stride", 1)
        self.padding = as_pair(padding, "padding", 0)
        self.groups = positive(groups, "groups")
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups ({groups}) must divide in_channels ({in_channels}) and out_channels "
                f"({out_channels})"
            )
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(np.zeros(shape, np.float32))
        self.bias = Parameter(np.zeros(out_channels, np.float32)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.fan_in_uniform_(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape) * init.fan_in(self.weight.shape)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        text += f", padding={self.padding}" if any(self.padding) else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        return text + (", bias=False" if self.bias is None else "")


class BatchNorm2d(Module):
    """Batch normalisation over N, H, W of (N, C, H, W).

    y = (x - mean) / sqrt(var + eps) * weight + bias. In training, mean and biased variance are
    the batch's, and the running values move by ``momentum`` towards them (the variance that
    enters is the unbiased one); in evaluation the running values are used.

    Args:
        num_features: C.
        eps: added to the variance, default 1e-5.
        momentum: weight of the new value, default 0.1; None takes the mean over all batches.
        affine: whether there are weight (1 at first) and bias (0), default yes.
        track_running_stats: whether running values are kept, default yes; without them the
            batch's own statistics are used in evaluation too.

    Paper: Ioffe & Szegedy 2015, "Batch Normalization".
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = positive(num_features, "num_features")
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        track = track_running_stats
        self.register_buffer("running_mean", Tensor(np.zeros(num_features)) if track else None)
        self.register_buffer("running_var", Tensor(np.ones(num_features)) if track else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track else None)

    def reset_running_stats(self) -> None:
        """Set mean 0, variance 1, no batches."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            self.num_batches_tracked[...] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x)

    def normalise(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """What ``forward`` computes, then + residual, then ReLU, in one pass.

        Args:
            x: (N, C, H, W). residual: the same shape, or None. relu: default no.
        """
        training, momentum = self.begin()
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training,
            momentum,
            self.eps,
            residual=residual,
            relu=relu,
        )

    def begin(self) -> tuple[bool, float]:
        """Count one more batch, in training; whether its own statistics are used, and their share
        in the running ones."""
        tracked = self.running_mean is not None
        momentum = self.momentum
        if self.training and tracked:
            self.num_batches_tracked[...] += 1
            if momentum is None:
                momentum = 1.0 / int(self.num_batches_tracked)
        return self.training or not tracked, momentum or 0.0

    def extra_repr(self) -> str:
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        text += "" if self.affine else ", affine=False"
        return text + ("" if self.track_running_stats else ", track_running_stats=False")


class Linear(Module):
    """Affine map of the last axis: (N, in_features) -> (N, out_features), y = x W^T + b.

    Args:
        in_features, out_features: sizes. bias: whether there is one (default yes).

    Weight (out, in) and bias (out,) start from U(-b, b), b = 1 / sqrt(in_features).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = positive(in_features, "in_features")
        self.out_features = positive(out_features, "out_features")
        self.weight = Parameter(np.zeros((out_features, in_features), np.float32))
        self.bias = Parameter(np.zeros(out_features, np.float32)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.fan_in_uniform_(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape) * self.in_features

    def extra_repr(self) -> str:
        text = f"in_features={self.in_features}, out_features={self.out_features}"
        return text + f", bias={self.bias is not None}"


class ReLU(Module):
    """max(x, 0), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """tanh(x), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Softmax(Module):
    """exp(x) / sum exp(x) along one axis. Args: dim (default: the last)."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Dropout(Module):
    """In training, zeroes elements with probability p and scales the rest by 1 / (1 - p).

    Args:
        p: probability, 0 to 1, default 0.5.

    Raises:
        ValueError: for p outside 0..1.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = float(p)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """(N, C, H, W) -> (N, C*H*W). Args: start_dim (default 1)."""

    def __init__(self, start_dim: int = 1) -> None:
        super().__init__()
        self.start_dim = start_dim

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, self.start_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}"


class Identity(Module):
    """Returns its input; takes and ignores any constructor arguments."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class CrossEntropyLoss(Module):
    """-log softmax(logits)[target], mean over the batch.

    Args:
        label_smoothing: 0 to 1, default 0: the share of the target spread over all classes.

    Call with logits (N, K) and integer targets (N,) in 0..K-1.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")
        self.label_smoothing = float(label_smoothing)

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        return F.cross_entropy(logits, target, self.label_smoothing)

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}"
