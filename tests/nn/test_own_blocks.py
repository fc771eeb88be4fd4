"""Blocks of one's own: three published ones in about fifteen lines each, registered and trained.

ECA: Wang et al. 2020, "ECA-Net". Coordinate attention: Hou et al. 2021. SimAM: Yang et al. 2021.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference.compare import assert_close

import attnnet
from attnnet import functional as F
from attnnet import nn
from attnnet.nn import registry


class ECA(nn.Module):
    """A gate by a short convolution along the channels of the pooled image."""

    def __init__(self, channels):
        super().__init__()
        size = int(abs((math.log2(channels) + 1) / 2)) | 1
        self.conv = nn.Conv2d(1, 1, (1, size), padding=(0, size // 2), bias=False)

    def forward(self, x):
        pooled = x.mean((2, 3)).reshape(len(x), 1, 1, -1)
        gate = self.conv(pooled).sigmoid()
        return x * gate.reshape(len(x), -1, 1, 1)


class CoordinateAttention(nn.Module):
    """Gates for rows and columns, each from means along the other."""

    def __init__(self, channels):
        super().__init__()
        hidden = max(8, channels // 32)
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU()
        )
        self.rows, self.columns = nn.Conv2d(hidden, channels, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        height, width = x.shape[2:]
        down = x.mean(3, keepdim=True)
        across = x.mean(2, keepdim=True).permute(0, 1, 3, 2)
        both = self.squeeze(F.cat([down, across], 2))
        down, across = both.split([height, width], 2)
        gate = self.rows(down).sigmoid() * self.columns(across.permute(0, 1, 3, 2)).sigmoid()
        return x * gate


class SimAM(nn.Module):
    """A gate for every neuron from its distance to the channel's mean; no parameters."""

    def __init__(self, channels, strength=1e-4):
        super().__init__()
        self.strength = strength

    def forward(self, x):
        count = x.shape[2] * x.shape[3] - 1
        distance = (x - x.mean((2, 3), keepdim=True)) ** 2
        variance = distance.sum((2, 3), keepdim=True) / count
        return x * (distance / (4 * (variance + self.strength)) + 0.5).sigmoid()


OWN = {"ECA": ECA, "COORD": CoordinateAttention, "SIMAM": SimAM}


@pytest.fixture(autouse=True)
def registered():
    before = dict(registry._entries)
    for name, block in OWN.items():
        attnnet.register_block(name)(block)
    yield
    registry._entries.clear()
    registry._entries.update(before)


def expected_simam(x):
    d = (x - x.mean((2, 3), keepdims=True)) ** 2
    v = d.sum((2, 3), keepdims=True) / (x.shape[2] * x.shape[3] - 1)
    return x / (1 + np.exp(-(d / (4 * (v + 1e-4)) + 0.5)))


def expected_eca(x, weight):
    pooled, size = x.mean((2, 3)), weight.size
    padded = np.pad(pooled, ((0, 0), (size // 2, size // 2)))
    mixed = sum(padded[:, i : i + x.shape[1]] * weight[i] for i in range(size))
    return x / (1 + np.exp(-mixed))[:, :, None, None]


def test_forward_values():
    x = np.random.default_rng(4).standard_normal((2, 64, 6, 5))
    tensor = attnnet.Tensor(x)
    assert_close(SimAM(64)(tensor), expected_simam(x), 30)
    attnnet.manual_seed(4)
    block = ECA(64)
    weight = block.conv.weight.numpy().astype(np.float64).ravel()
    assert weight.size == 3
    assert_close(block(tensor), expected_eca(x, weight), 30)


@pytest.mark.parametrize("name", OWN)
def test_resnet_with_an_own_block_trains(name):
    attnnet.manual_seed(8)
    model = attnnet.resnet18(f"{name}_12", image_size=8)
    blocks = model.attention_blocks()
    assert model.block_name == f"{name}_12" and len(blocks) == 4
    assert all(type(block) is OWN[name] for block in blocks.values())
    rng = np.random.default_rng(8)
    x = attnnet.Tensor(rng.standard_normal((8, 3, 8, 8)))
    labels = np.arange(8) % 4
    optimizer = attnnet.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        for path, block in blocks.items():
            for key, parameter in block.named_parameters():
                grad = parameter.grad.numpy()
                assert np.isfinite(grad).all(), f"{path}.{key}"
                assert np.abs(grad).max() > 0 or "squeeze.0.bias" in key, f"{path}.{key}"
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses
