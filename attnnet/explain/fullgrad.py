"""FullGrad: the gradient at the image and at every bias, added up."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from ..nn.attention_augmented import AA
from ..nn.layers import BatchNorm2d, Conv2d
from ..nn.module import Module
from .maps import principal_component, resize, scale
from .methods import Method, add_method
from .record import Record, record
from .targets import Target

_MAPS = 2**28  # bytes of attention maps that a batch may hold

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
    layers = biased(model)
    biases = {name: _bias(part) for name, part in layers.items()}
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


def biased(model: Module) -> dict[str, Module]:
    """The layers whose biases FullGrad adds up, by name."""
    return {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, (Conv2d, BatchNorm2d)) and part.bias is not None
    }


def images_at_once(model: Module, layers: Mapping[str, Module]) -> int:
    """How many images a forward and a backward may have when layers are looked at: as many as one
    likes, but where some are inside of AA blocks, which then store whole attention maps, at least
    one and not more than ``_MAPS`` bytes of maps have room for.

    An image's map is heads * (h w)^2 floats. Of each such block one stays until the backward; of
    the largest there are three more while it is made, and while its gradient is. AA_1 of ResNet18
    on 32 x 32 pixels: 8 * 1024^2 * 4 bytes are 32 MiB, its two blocks hold 2 + 3 of them, 160 MiB
    an image.
    """
    looked_at = set(map(id, layers.values()))
    maps = [
        4 * part.heads * (part.height * part.width) ** 2
        for part in model.modules()
        if isinstance(part, AA)
        and any(id(inner) in looked_at for inner in part.modules() if inner is not part)
    ]
    return max(1, _MAPS // (sum(maps) + 3 * max(maps))) if maps else sys.maxsize


def _bias(part: Module) -> np.ndarray:
    """What the layer adds to its weighted input, (C,)."""
    bias = part.bias.detach().numpy()
    if isinstance(part, Conv2d) or part.running_mean is None:
        return bias
    mean, variance = part.running_mean.numpy(), part.running_var.numpy()
    return bias - mean * part.weight.detach().numpy() / np.sqrt(variance + part.eps)
