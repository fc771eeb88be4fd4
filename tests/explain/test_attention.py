"""What attention blocks say: gates, masks and attention rows."""

from __future__ import annotations

import numpy as np
import pytest

import attnnet
from attnnet import nn
from attnnet.explain import attention_maps, attention_rows
from attnnet.nn.modes import evaluating

from . import tiny


@pytest.fixture(scope="module")
def x():
    return attnnet.Tensor(tiny.images(3, 16))


def seen_by(model, name, x):
    """Input and output of a module."""
    kept = []
    with model.get_submodule(name).register_forward_hook(lambda m, i, y: kept.append((i[0], y))), \
            evaluating(model):
        model(x)
    return (t.numpy() for t in kept[0])


@pytest.mark.parametrize(
    ("block", "kinds"),
    [("SE_2", "c"), ("SEC_2", "c"), ("CA_2", "c"), ("SA_2", "s"), ("CBAM_2", "cs"),
     ("NEW_2", "cs"), ("NAB_2", "cs"), ("SE_SA_2", "cs")])
def test_the_gates_are_what_the_block_multiplies_by(block, kinds, x):
    model = tiny.network("resnet18", block)
    name = "layer2.1.attention"
    maps = attention_maps(model, x, batch_size=2)
    assert set(maps.channel or maps.spatial) == set(model.attention_blocks())
    assert (name in maps.channel, name in maps.spatial) == ("c" in kinds, "s" in kinds)
    before, after = seen_by(model, name, x)
    channel = maps.channel[name][:, :, None, None] if "c" in kinds else 1
    spatial = maps.spatial[name][:, None] if "s" in kinds else 1
    if block in ("SE_2", "NEW_2", "SE_SA_2"):  # these add the input
        channel = 1 + channel
    np.testing.assert_allclose(before * channel * spatial, after, rtol=1e-4, atol=1e-5)


def test_shown(x):
    model = tiny.network("resnet18", "SE_1+SA_2")
    maps = attention_maps(model, x, layers=["layer1.0.attention", "layer2.1.attention"])
    assert list(maps.channel) == ["layer1.0.attention"]
    assert list(maps.spatial) == ["layer2.1.attention"]
    text = repr(maps)
    assert "layer1.0.attention channel 16:" in text and "layer2.1.attention spatial 8 x 8:" in text
    assert "<img" in maps._repr_html_()
    mask = maps.masks("layer2.1.attention")
    assert mask.shape == (3, 16, 16)
    np.testing.assert_allclose(mask.mean(), maps.spatial["layer2.1.attention"].mean(), rtol=0.05)
    with pytest.raises(ValueError, match=r"no spatial mask; those with one: layer2\.1\.attention"):
        maps.masks("layer1.0.attention")
    assert model.training


@pytest.mark.parametrize("form", ["paper", "original"])
def test_rows(form, x):
    model = tiny.network("resnet18", "AA_3")
    for block in model.attention_blocks().values():
        block.form = form
    name, query = "layer3.0.attention", (1, 2)
    rows = attention_rows(model, x, query, name, batch_size=2)
    assert rows.shape == (3, 8, 4, 4)
    np.testing.assert_allclose(rows.sum((2, 3)), 1, rtol=1e-5)
    block = model.get_submodule(name)
    before, _ = seen_by(model, name, x)
    # The composed form stores whole maps: catch what it multiplies the values by.
    kept = []
    softmax = attnnet.functional.softmax
    with pytest.MonkeyPatch.context() as patch, attnnet.no_grad():
        patch.setattr(attnnet.functional, "softmax",
                      lambda z, dim: kept.append(softmax(z, dim)) or kept[-1])
        block.reference(attnnet.Tensor(before))
    whole = np.concatenate([weights.numpy() for weights in kept])
    expected = whole[:, :, query[0] * 4 + query[1]].reshape(rows.shape)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-6)


class Twice(nn.Module):
    """Calls one block twice, another never."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.SE(8), nn.SE(8)
        self.rows = attnnet.nn.make_block("AA", 32, 4, 4)
        self.conv, self.linear = nn.Conv2d(8, 32, 1, 4), nn.Linear(32, 2)
        self.stem = nn.Conv2d(3, 8, 1)

    def forward(self, x):
        x = self.conv(self.twice(self.twice(self.stem(x))))
        return self.linear(self.rows(self.rows(x)).mean((2, 3)))


def test_blocks_that_are_not_called_once(x):
    model = Twice()
    for look in (lambda: attention_maps(model, x, "twice"), lambda: attention_maps(model, x, [
            "never", "twice"])):  # fmt: skip
        with pytest.raises(ValueError, match="'twice' is called more than once in a forward"):
            look()
    with pytest.raises(ValueError, match="'never' takes no part in the network's forward"):
        attention_maps(model, x, "never", batch_size=2)
    with pytest.raises(ValueError, match="'rows' is called more than once in a forward"):
        attention_rows(model, x, (0, 0), "rows")


def test_blocks_without_gates_are_refused_where_they_are_named(x):
    model = tiny.network("resnet18", "SE_2+AA_3")
    with pytest.raises(ValueError, match=r"'layer3\.1\.attention': AA has no gates: see"):
        attention_maps(model, x, ["layer2.0.attention", "layer3.1.attention"])
    assert list(attention_maps(model, x).channel) == ["layer2.0.attention", "layer2.1.attention"]


def test_what_is_refused(x):
    model = tiny.network("resnet18", "AA_3")
    with pytest.raises(ValueError, match=r"one AA block, found layer3\.0\.attention, layer3\.1"):
        attention_rows(model, x, (0, 0))
    for query in ((4, 0), (0, -1)):
        with pytest.raises(ValueError, match="outside of 4 x 4 positions"):
            attention_rows(model, x, query, "layer3.0.attention")
    with pytest.raises(ValueError, match="one AA block, found none"):
        attention_rows(tiny.network(), x, (0, 0))
    with pytest.raises(ValueError, match="this ResNet has no attention blocks"):
        attention_maps(tiny.network(block=None), x)
    with pytest.raises(ValueError, match=r"'conv1' is a Conv2d, which has no gates\(\)"):
        attention_maps(model, x, "conv1")
    with pytest.raises(ValueError, match="N at least 1"):
        attention_maps(model, [])
    net = nn.Sequential(nn.SA(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert attention_maps(net, x, "0").spatial["0"].shape == (3, 16, 16)
