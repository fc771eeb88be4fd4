"""Images of any accepted kind as a network's input."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..models.classifier import Classifier
from ..models.predict import network_input
from ..nn.module import Module
from ..tensor import Tensor


def pictures(model: Module, images: Any) -> np.ndarray:
    """(N, C, H, W) float32, normalised, N at least 1; see ``attnnet.explain.cam``.

    Raises:
        ValueError: for a wrong shape, value range or size, and for no images.
        TypeError: for another kind of input, or a model that is no attnnet module.
    """
    if isinstance(model, Classifier):
        x = network_input(model, images)
    elif not isinstance(model, Module):
        raise TypeError(f"model must be an attnnet Module, got {type(model).__name__}")
    elif isinstance(images, Tensor):
        x = images.detach().numpy()
    else:
        raise TypeError(
            f"how to prepare images for a {type(model).__name__} is not known: pass an attnnet "
            "Tensor (N, C, H, W), already normalised"
        )
    if x.ndim != 4 or not len(x):
        raise ValueError(f"images must be (N, C, H, W) with N at least 1, got shape {x.shape}")
    return x
