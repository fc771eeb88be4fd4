"""FullGrad: the gradient at the image and at every bias, added up."""

from __future__ import annotations

import numpy as np

from ..nn.layers import BatchNorm2d, Conv2d
from ..nn.module import Module
from .maps import principal_component, resize, scale
from .methods import Method, add_method
from .record import Record, record
from .targets import Target

add_method(Method("fullgrad", "FullGrad", "Srinivas & Fleuret 2019, arXiv:1905.00780"))


def fullgrad(
    model: Module, images: np.ndarray, target: Target, eigen_smooth: bool = False
) -> tuple[np.ndarray, Record]:
    """Maps (N, H, W) before their last scaling, and what the network said.

    The terms are abs(x dL/dx) and, for every convolution with bias and every batch norm with bias,
    abs(b G) at its output, where b of a batch norm is bias - mean * weight / sqrt(var + eps). Each
    channel of each term is scaled to 0..1 and resized to the image; all are added up.

    Args:
        model: the network. images: (N, C, H, W) float32. target: what to explain.
        eigen_smooth: take the first principal component of the terms, at an eighth of the image's
            size, instead of their sum.
    """
    biases = {name: _bias(part) for name, part in model.named_modules() if _has_bias(part)}
    layers = {name: model.get_submodule(name) for name in biases}
    seen = record(model, layers, images, target, at_input=True)
    size = images.shape[2:]
    terms = [resize(scale(np.abs(images * seen.input_gradient)), size)]
    for name, bias in biases.items():
        term = np.abs(bias[:, None, None] * seen.gradients[name])
        terms.append(resize(scale(term), size).sum(1, keepdims=True))
    joined = np.concatenate(terms, 1)
    if not eigen_smooth:
        return joined.sum(1), seen
    small = (max(size[0] // 8, 1), max(size[1] // 8, 1))
    component = principal_component(resize(scale(joined), small))
    return resize(scale(component), size), seen


def _has_bias(part: Module) -> bool:
    return isinstance(part, (Conv2d, BatchNorm2d)) and part.bias is not None


def _bias(part: Module) -> np.ndarray:
    """What the layer adds to its weighted input, (C,)."""
    bias = part.bias.detach().numpy()
    if isinstance(part, Conv2d) or part.running_mean is None:
        return bias
    mean, variance = part.running_mean.numpy(), part.running_var.numpy()
    return bias - mean * part.weight.detach().numpy() / np.sqrt(variance + part.eps)
