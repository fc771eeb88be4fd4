"""Guided backpropagation and the other attributions to pixels."""

from __future__ import annotations

import numpy as np
import pytest

import attnnet
from attnnet import explain, nn
from attnnet import functional as F
from attnnet.autograd import guided_relu, is_relu_guided

from . import tiny


@pytest.fixture(scope="module")
def model():
    return tiny.network(block="SEC_1+NEW_2")


@pytest.fixture(scope="module")
def x():
    return attnnet.Tensor(tiny.images(2, 16))


def guided(g, y):
    return np.maximum(g, 0) * (y > 0)


def test_the_rule():
    """relu(w x) summed with weights of both signs, by hand."""
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    w, out = np.array([[1.0, 2.0], [-1.0, 0.5], [2.0, 1.0]]), np.array([1.0, -3.0, 0.5])
    tensor = attnnet.Tensor(x, requires_grad=True)
    with guided_relu():
        assert is_relu_guided()
        hidden = F.linear(tensor, attnnet.Tensor(w))
        (hidden.relu() * attnnet.Tensor(out)).sum().backward()
    assert not is_relu_guided()
    expected = guided(out * np.ones((2, 3)), x @ w.T) @ w
    np.testing.assert_allclose(tensor.grad.numpy(), expected)


BLOCKS = (None, "SE_12", "SEC_12", "CA_12", "AA_2", "CBAM_12", "NEW_12", "SE_SA_1", "NAB_1")


@pytest.mark.parametrize(
    ("arch", "block"),
    [*(("resnet18", b) for b in BLOCKS), *(("vgg11", b) for b in BLOCKS),
     ("resnet50", None), ("resnet50", "NEW_12")])
def test_every_relu_of_every_network(arch, block, monkeypatch):
    """PyTorch's twin with its one ReLU function replaced; modules call it too."""
    torch = pytest.importorskip("torch")
    from attnnet.bench.peers import torch_networks

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            ctx.save_for_backward(y)
            return y.clamp(min=0)

        @staticmethod
        def backward(ctx, grad):
            (y,) = ctx.saved_tensors
            return grad.clamp(min=0) * (y > 0)

    size = 32 if arch == "vgg11" else 8
    model = tiny.network(arch, block, size)
    twin = torch_networks.create(arch, block, image_size=size, narrow=tiny.NARROW)
    twin.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    twin = twin.double().eval()
    images = tiny.images(2, size)
    got = explain.guided_backprop(model, attnnet.Tensor(images), [3, 4])
    calls = []
    monkeypatch.setattr(torch.nn.functional, "relu",
                        lambda y, inplace=False: calls.append(1) or Guided.apply(y))
    leaf = torch.tensor(images, dtype=torch.float64, requires_grad=True)
    logits = twin(leaf)
    (logits[0, 3] + logits[1, 4]).backward()
    expected = leaf.grad.numpy()
    assert len(calls) >= 8 and np.abs(expected).max() > 0
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert error <= 1e-4, error  # the plain gradient is off by 1


def test_guided_is_not_the_plain_gradient(model, x):
    plain = explain.saliency(model, x, absolute=False)
    got = explain.guided_backprop(model, x)
    assert got.shape == x.shape and got.dtype == np.float32
    assert np.abs(got - plain).max() > 0.1 * np.abs(plain).max()
    np.testing.assert_array_equal(explain.saliency(model, x), np.abs(plain))


class OwnBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Linear(*s, bias=False) for s in ((3, 2), (2, 3)))

    def forward(self, x):
        return F.se(x, self.a.weight, self.b.weight)


def test_hidden_relus_are_refused_not_missed(x):
    net = nn.Sequential(OwnBlock(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert explain.saliency(net, x).shape == x.shape
    with pytest.raises(RuntimeError, match="cannot reach the ReLU inside a block"):
        explain.guided_backprop(net, x)
    assert not is_relu_guided()


def smooth_network():
    """Without kinks, so that finite differences hold."""
    attnnet.manual_seed(4)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(16, 3))


def test_saliency_by_differences():
    net = smooth_network()
    x = np.random.default_rng(1).standard_normal((2, 1, 6, 6)).astype(np.float32)
    got = explain.saliency(net, attnnet.Tensor(x), [2, 0], absolute=False, batch_size=1)
    for image, target in ((0, 2), (1, 0)):
        for place in ((0, 0, 0), (0, 3, 2), (0, 5, 4)):
            ends = []
            for step in (-0.05, 0.05):
                moved = x.copy()
                moved[(image, *place)] += step
                ends.append(net(attnnet.Tensor(moved))[image, target].item())
            assert abs(got[(image, *place)] - (ends[1] - ends[0]) / 0.1) < 1e-4


def test_smoothgrad():
    net, rng = smooth_network(), np.random.default_rng(2)
    x = attnnet.Tensor(rng.standard_normal((3, 1, 6, 6)))
    plain = explain.saliency(net, x, 1, absolute=False)
    np.testing.assert_allclose(explain.smoothgrad(net, x, 1, noise=0), plain, atol=1e-6)
    got = explain.smoothgrad(net, x, 1, samples=5, seed=7)
    np.testing.assert_array_equal(got, explain.smoothgrad(net, x, 1, samples=5, seed=7))
    np.testing.assert_allclose(
        got, explain.smoothgrad(net, x, 1, samples=5, seed=7, batch_size=6), atol=1e-6)
    assert np.abs(got - plain).max() > 1e-3
    generator, images = np.random.default_rng(7), x.numpy()
    first = images[0] + 0.15 * np.ptp(images[0]) * generator.standard_normal((5, 1, 6, 6),
                                                                              np.float32)
    mean = explain.saliency(net, attnnet.Tensor(first), 1, absolute=False).mean(0)
    np.testing.assert_allclose(got[0], mean, atol=1e-6)
    with pytest.raises(ValueError, match="noise must be 0 or more, got -1"):
        explain.smoothgrad(net, x, noise=-1)
    with pytest.raises(ValueError, match="samples must be"):
        explain.smoothgrad(net, x, samples=0)


@pytest.mark.parametrize("baseline", [None, 0.7])
def test_integrated_gradients_add_up(baseline):
    net = smooth_network()
    x = attnnet.Tensor(np.random.default_rng(3).standard_normal((3, 1, 6, 6)))
    got = explain.integrated_gradients(net, x, baseline=baseline, steps=20, batch_size=45)
    start = attnnet.Tensor(np.full(x.shape, baseline or 0.0))
    logits, before = net(x).numpy(), net(start).numpy()
    chosen = np.arange(3), logits.argmax(1)
    np.testing.assert_allclose(got.sum((1, 2, 3)), logits[chosen] - before[chosen], atol=1e-5)
    with pytest.raises(ValueError, match="broadcast"):
        explain.integrated_gradients(net, x, baseline=np.zeros((2, 2)))


def test_occlusion():
    """A network that sees one pixel: only windows over it change anything."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    weight = np.zeros((2, 36))
    weight[1, 6 * 2 + 3] = 1.0
    net[1].weight.copy_(weight)
    x = np.random.default_rng(5).random((2, 1, 6, 6)) + 1
    got = explain.occlusion(net, attnnet.Tensor(x), 1, window=2, stride=3)
    starts = [0, 3, 4]  # the last one ends at the border
    for image, fall in zip(x, got, strict=True):
        total, covered = np.zeros((6, 6)), np.zeros((6, 6))
        for top in starts:
            for left in starts:
                place = np.s_[top : top + 2, left : left + 2]
                covered[place] += 1
                sees = top <= 2 < top + 2 and left <= 3 < left + 2
                total[place] += image[0, 2, 3] if sees else 0
        np.testing.assert_allclose(fall, total / np.maximum(covered, 1), atol=1e-6)
    with pytest.raises(ValueError, match=r"window \(9, 2\) is larger than the images"):
        explain.occlusion(net, attnnet.Tensor(x), window=(9, 2))


def test_attribution_map():
    x = np.array([[[[1.0, -4.0]], [[-3.0, 2.0]]]])
    np.testing.assert_allclose(explain.attribution_map(x), [[[0.0, 1.0]]], atol=1e-6)


@pytest.mark.parametrize("function", ["guided_backprop", "saliency", "smoothgrad",
                                      "integrated_gradients", "occlusion"])
def test_what_is_refused(model, x, function):
    attribute = getattr(explain, function)
    with pytest.raises(ValueError, match="target must be 0 to 9"):
        attribute(model, x, 10)
    with pytest.raises(ValueError, match="N at least 1"):
        attribute(model, np.zeros((0, 3, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="batch_size must be"):
        attribute(model, x, batch_size=0)
    assert model.training and not is_relu_guided()
