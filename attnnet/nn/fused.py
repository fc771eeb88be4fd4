"""The seam between modules and fused operations.

``conv_bn`` is what the networks call for each convolution, its batch norm, and the addition and
ReLU that may follow. It takes one of three ways, with the same numbers to rounding:

* training, or evaluation with gradients: one operation of the core. Where one convolution alone
  reads the result (``into``), it is not even computed: that convolution makes it as it reads;
* evaluation without gradients: batch norm folded into the convolution's weights, one operation.
  The folded weights, and the forms that the core packs them into, are kept until one of the
  tensors that they come from is written to;
* one module after the other through ``__call__``, where a hook wants to see a value between, or
  where a module is not the plain kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from .. import functional as F
from ..tensor import Tensor
from .layers import BatchNorm2d, Conv2d, ReLU
from .module import Module


class Deferred:
    """relu(bn(conv(x))) that the next convolution computes as it reads: the convolution's output,
    which carries the gradient of the result, and the constants that make the result of it."""

    __slots__ = ("constants", "convolved")

    def __init__(self, convolved: Tensor, constants: Tensor) -> None:
        self.convolved, self.constants = convolved, constants

    def computed(self) -> Tensor:
        """The result itself, (N, C, H, W)."""
        return _core.compute_deferred(self.convolved, self.constants)


def conv_bn(
    x: Tensor | Deferred,
    conv: Module,
    bn: Module | None,
    residual: Tensor | None = None,
    relu: Module | bool | None = None,
    into: Module | None = None,
) -> Tensor | Deferred:
    """relu(bn(conv(x)) + residual), each part but the convolution optional.

    Args:
        x: (N, C, H, W), or what another call deferred.
        conv: a Conv2d. bn: the BatchNorm2d behind it, or None.
        residual: added after the batch norm, of the output's shape, or None.
        relu: a ReLU module, True, or None (False) for none.
        into: the convolution that alone reads the result, by another call; None if anything else
            may read it.
    """
    if (
        not _is_plain(conv, Conv2d)
        or (bn is not None and not _is_plain(bn, BatchNorm2d))
        or (isinstance(relu, Module) and not _is_plain(relu, ReLU))
        or F.is_relu_guided()
    ):
        return _one_by_one(_computed(x), conv, bn, residual, relu)
    rectify = relu is not None and relu is not False
    if conv.training if bn is None else bn.training:
        conv.__dict__["_folded"] = None  # stale after this step: give its memory back
    elif not _core.grad_enabled() and (bn is None or bn.running_mean is not None):
        weight, bias = _folded(conv, bn)
        return _core.conv2d_fused(
            _computed(x), weight, bias, residual, rectify, conv.stride, conv.padding, conv.groups
        )
    if bn is not None:
        defer = into is not None and _is_plain(into, Conv2d)
        return _train(x, conv, bn, residual, rectify, defer)
    y = F.conv2d(_computed(x), conv.weight, conv.bias, conv.stride, conv.padding, conv.groups)
    y = y if residual is None else y + residual
    return F.relu(y) if rectify else y


def _computed(x: Any) -> Tensor:
    if isinstance(x, Deferred):
        return x.computed()
    return x if isinstance(x, Tensor) else Tensor(x)


def _is_plain(module: Module, kind: type[Module]) -> bool:
    """Whether nothing is lost where the core does what this module does."""
    return type(module) is kind and not module._hooked


def _train(
    x: Tensor | Deferred,
    conv: Conv2d,
    bn: BatchNorm2d,
    residual: Tensor | None,
    rectify: bool,
    defer: bool,
) -> Tensor | Deferred:
    x_constants = None
    if isinstance(x, Deferred):
        x, x_constants = x.convolved, x.constants
    elif not isinstance(x, Tensor):
        x = Tensor(x)
    y, constants = _core.conv2d_batch_norm(
        x,
        conv.weight,
        conv.bias,
        x_constants,
        conv.stride,
        conv.padding,
        conv.groups,
        bn.weight,
        bn.bias,
        bn.running_mean,
        bn.running_var,
        residual,
        *bn.begin(),
        rectify,
        bn.eps,
        defer,
    )
    return y if constants is None else Deferred(y, constants)


def _one_by_one(
    x: Tensor, conv: Module, bn: Module | None, residual: Tensor | None, relu: Any
) -> Tensor:
    y = conv(x)
    if bn is not None:
        y = bn(y)
    if residual is not None:
        y = y + residual
    if isinstance(relu, Module):
        return relu(y)
    return F.relu(y) if relu else y


def _folded(conv: Conv2d, bn: BatchNorm2d | None) -> tuple[Any, Tensor | None]:
    """Weights (kept by the core) and bias of the convolution that equals conv, then bn in
    evaluation mode."""
    if bn is None:
        sources, key = (conv.weight, conv.bias), [None]
    else:
        sources = (conv.weight, conv.bias, bn.weight, bn.bias, bn.running_mean, bn.running_var)
        key = [bn.eps]
    for source in sources:
        if source is not None:
            key += (id(source), source.version)
    kept = conv.__dict__.get("_folded")
    # The kept entry holds its sources, so that no id can be taken over by a new tensor.
    if kept is not None and kept[0] == key:
        return kept[2]
    weight, bias = sources[:2] if bn is None else _fold(bn.eps, *sources)
    folded = _core.keep_weights(weight), bias
    conv.__dict__["_folded"] = (key, sources, folded)
    return folded


def _fold(eps: float, *sources: Tensor | None) -> tuple[Tensor, Tensor]:
    weight, bias, gain, shift, mean, variance = (
        None if t is None else t.detach().numpy().astype(np.float64) for t in sources
    )
    scale = 1.0 / np.sqrt(variance + eps)
    scale = scale if gain is None else scale * gain
    offset = (0.0 if bias is None else bias) - mean
    offset = offset * scale + (0.0 if shift is None else shift)
    return Tensor(weight * scale[:, None, None, None]), Tensor(offset)
