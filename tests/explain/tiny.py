"""Small networks with weights that depend on a seed alone, and images for them."""

from __future__ import annotations

import numpy as np
from reference.narrow import narrowed

import attnnet
from attnnet import nn

NARROW = 4  # widths are a quarter: 16 channels at least, which every block takes


def network(arch: str = "resnet18", block: str | None = "NEW_12", size: int = 16, seed: int = 5,
            classes: int = 10) -> attnnet.nn.Module:
    """In evaluation mode's terms a trained network: batch norms have statistics of their own."""
    rng_state = attnnet.get_rng_state()
    attnnet.manual_seed(seed)
    with narrowed(NARROW):
        model = attnnet.create_model(arch, block, num_classes=classes, image_size=size)
    attnnet.set_rng_state(rng_state)
    rng = np.random.default_rng(seed)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            shape = part.weight.shape
            part.weight.copy_(0.5 + rng.random(shape))
            part.bias.copy_(rng.random(shape) - 0.5)
            part.running_mean.copy_(rng.random(shape) - 0.5)
            part.running_var.copy_(0.5 + rng.random(shape))
        elif isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.copy_(rng.random(part.bias.shape) - 0.5)
    return model


def images(count: int, size: int, seed: int = 12) -> np.ndarray:
    """Normalised images with a bright spot each: float32 (count, 3, size, size).

    With this seed no ReLU of ``network()`` has an input so near zero that rounding decides, which
    would move maps by a hundredth (3e-6 of noise on the images moves them by 6e-6).
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    spots = []
    for _ in range(count):
        row, column, width = size * rng.random(), size * rng.random(), 1 + size / 6 * rng.random()
        spot = np.exp(-((y - row) ** 2 + (x - column) ** 2) / width**2)
        spots.append(spot * (rng.random((3, 1, 1)) * 4 - 1) + 0.3 * rng.random((3, size, size)))
    return np.array(spots, np.float32)
