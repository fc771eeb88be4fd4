"""Initial values: distributions, bounds, and that a seed repeats them."""

from __future__ import annotations

import math

import numpy as np
import pytest

import attnnet
from attnnet import nn
from attnnet.nn import init


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [(lambda: nn.Conv2d(16, 64, 3), 144), (lambda: nn.Conv2d(16, 64, 3, groups=4), 36),
     (lambda: nn.Linear(50, 400), 50)],
)  # fmt: skip
def test_default_is_uniform_by_fan_in(make, fan_in):
    attnnet.manual_seed(5)
    layer = make()
    bound = 1 / math.sqrt(fan_in)
    values = layer.weight.numpy().ravel()
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.98 * bound
    # standard error of the mean and, for U(-b, b), of the variance b^2 / 3
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.size)
    assert abs(values.var() / (bound**2 / 3) - 1) < 5 / math.sqrt(values.size)
    assert 0 < np.abs(layer.bias.numpy()).max() <= bound


def test_vgg_normal():
    attnnet.manual_seed(5)
    conv = nn.Conv2d(32, 64, 3)
    init.vgg_normal_(conv.weight, conv.bias)
    values, variance = conv.weight.numpy().ravel(), 2 / (9 * 64)
    assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)
    assert abs(values.var() / variance - 1) < 5 * math.sqrt(2 / values.size)
    assert np.abs(values).max() > 3 * math.sqrt(variance)  # not uniform
    assert not conv.bias.numpy().any()


def test_a_seed_repeats_and_a_new_draw_differs():
    attnnet.manual_seed(7)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    attnnet.manual_seed(7)
    again = nn.Linear(4, 4)
    np.testing.assert_array_equal(first.weight.numpy(), again.weight.numpy())
    assert not np.array_equal(first.weight.numpy(), second.weight.numpy())


def test_fillers():
    tensor = attnnet.Tensor(np.zeros((3, 2)))
    version = tensor.version
    assert init.ones_(tensor) is tensor and tensor.version > version
    assert tensor.numpy().min() == 1
    assert init.constant_(tensor, 3.5).numpy().max() == 3.5
    assert not init.zeros_(tensor).numpy().any()
    assert init.uniform_(tensor, 2, 3).numpy().min() >= 2
    assert init.normal_(tensor, 100, 1).numpy().min() > 90
    with pytest.raises(ValueError, match="two or more dimensions"):
        init.fan_in((3,))
