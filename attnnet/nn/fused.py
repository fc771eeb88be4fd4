"""The seam between modules and fused operations.

``conv_bn`` is what the networks call for each convolution, its batch norm, and the addition and
ReLU that may follow. It takes one of three ways, with the same numbers to rounding:

* training, or evaluation with gradients: convolution, then one pass that normalises, adds, clips;
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


def conv_bn(
    x: Tensor,
    conv: Module,
    bn: Module | None,
    residual: Tensor | None = None,
    relu: Module | bool | None = None,
) -> Tensor:
    """relu(bn(conv(x)) + residual), each part but the convolution optional.

    Args:
        x: (N, C, H, W).
        conv: a Conv2d. bn: the BatchNorm2d behind it, or None.
        residual: added after the batch norm, of the output's shape, or None.
        relu: a ReLU module, True, or None (False) for none.
    """
    if (
        conv._hooked
        or type(conv) is not Conv2d
        or (bn is not None and (bn._hooked or type(bn) is not BatchNorm2d))
        or (isinstance(relu, Module) and (relu._hooked or type(relu) is not ReLU))
    ):
        return _one_by_one(x, conv, bn, residual, relu)
    if not isinstance(x, Tensor):
        x = Tensor(x)
    rectify = relu is not None and relu is not False
    if conv.training if bn is None else bn.training:
        conv.__dict__["_folded"] = None  # stale after this step: give its memory back
    elif not _core.grad_enabled() and (bn is None or bn.running_mean is not None):
        weight, bias = _folded(conv, bn)
        return _core.conv2d_fused(
            x, weight, bias, residual, rectify, conv.stride, conv.padding, conv.groups
        )
    y = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.groups)
    if bn is not None:
        return bn.normalise(y, residual, rectify)
    y = y if residual is None else y + residual
    return F.relu(y) if rectify else y


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
