"""summary(): shapes, parameters, multiply-adds; and that looking changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import attnnet
from attnnet import nn


def test_rows_and_totals():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 10)),
    )  # fmt: skip
    net[0].requires_grad_(False)
    summary = net.summary((3, 4, 4))
    assert [(r.name, r.kind) for r in summary.rows] == [
        ("0", "Conv2d"), ("1", "BatchNorm2d"), ("2", "ReLU"),
        ("3.0", "Flatten"), ("3.1", "Linear"),
    ]  # fmt: skip
    assert summary.rows[0].output_shape == (1, 8, 4, 4)
    assert [r.parameters for r in summary.rows] == [216, 16, 0, 0, 1290]
    assert [r.multiply_adds for r in summary.rows] == [3 * 9 * 8 * 16, 0, 0, 0, 1280]
    assert summary.total_parameters == 216 + 16 + 1290
    assert summary.trainable_parameters == 16 + 1290
    assert summary.total_multiply_adds == 3456 + 1280
    assert "1,290" in str(summary) and "(216 frozen)" in str(summary)
    html = summary._repr_html_()
    assert html.count("<tr>") == 6 and "multiply-adds: 4,736 an image" in html


def test_nothing_is_changed():
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())
    net[1].eval()
    before, draws = net.state_dict(), attnnet.get_rng_state()
    net.summary((2, 3, 3))
    assert net.training and not net[1].training and net[2].training
    assert not any(module._hooked for module in net.modules())
    assert attnnet.get_rng_state() == draws and attnnet.is_grad_enabled()
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_own_parameters_beside_children_and_shared_ones():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter([1.0])
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x)) * self.gain

    summary = Scaled().summary((4,))
    assert {r.name: r.parameters for r in summary.rows} == {"(itself)": 1, "fc": 20}
    assert {r.name: r.multiply_adds for r in summary.rows}["fc"] == 32  # called twice
    assert summary.total_parameters == 21


def test_attention_blocks_are_one_row():
    net = nn.Sequential(nn.SE(32), nn.CBAM(32), nn.AA(32, 8, 8))
    summary = net.summary((32, 8, 8))
    kinds = [r.kind for r in summary.rows]
    assert kinds == ["SE", "CA", "SA", "AA"]
    assert summary.rows[0].multiply_adds == 2 * 32 * 4
    assert summary.rows[1].multiply_adds == 2 * (2 * 32 * 2)
    assert summary.rows[2].multiply_adds == 98 * 64
    assert sum(r.parameters for r in summary.rows) == summary.total_parameters
    convs = 24 * 32 * 9 + 328 * 32 + 8 * 8
    assert summary.rows[3].multiply_adds == 64 * (convs + 64 * (160 + 8) + 16 * 160)


def test_errors():
    with pytest.raises(ValueError, match="input_shape must hold positive sizes"):
        nn.ReLU().summary((3, 0))
    net = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(ValueError):
        net.summary((4,))
    assert net.training and not net._hooked
