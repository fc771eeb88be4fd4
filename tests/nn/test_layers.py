"""Layers: each against its float64 twin, forward and backward, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from reference import layers as twins
from reference import ops
from reference.compare import assert_close

import attnnet
from attnnet import nn

SEED = 11
X = np.random.default_rng(SEED).standard_normal((2, 4, 7, 6)).astype(np.float32)
FLAT = X[:, :, 0, 0]


def weights(layer):
    return [p.numpy().astype(np.float64) for p in layer.parameters()]


CASES = {
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), X, lambda x, w, b: twins.conv2d(x, w, b, 1, 1)),
    "conv stride": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), groups=2, bias=False),
        X,
        lambda x, w: twins.conv2d(x, w, None, (2, 1), (0, 1), 2),
    ),
    "linear": (lambda: nn.Linear(4, 3), FLAT, ops.linear),
    "linear no bias": (lambda: nn.Linear(4, 3, bias=False), FLAT, ops.linear),
    "relu": (nn.ReLU, X, ops.relu),
    "sigmoid": (nn.Sigmoid, X, ops.sigmoid),
    "tanh": (nn.Tanh, X, ops.tanh),
    "softmax": (nn.Softmax, FLAT, lambda x: ops.softmax(x, -1)),
    "softmax 1": (lambda: nn.Softmax(dim=1), X, lambda x: ops.softmax(x, 1)),
    "max pool": (lambda: nn.MaxPool2d(2), X, lambda x: twins.max_pool2d(x, 2)),
    "max pool 3": (
        lambda: nn.MaxPool2d(3, stride=2, padding=1),
        X,
        lambda x: twins.max_pool2d(x, 3, 2, 1),
    ),
    "avg pool": (lambda: nn.AvgPool2d((2, 3)), X, lambda x: twins.avg_pool2d(x, (2, 3))),
    "global avg": (lambda: nn.AdaptiveAvgPool2d(1), X, lambda x: twins.adaptive_avg_pool2d(x, 1)),
    "adaptive max": (
        lambda: nn.AdaptiveMaxPool2d((3, 2)),
        X,
        lambda x: twins.adaptive_max_pool2d(x, (3, 2)),
    ),
    "flatten": (nn.Flatten, X, lambda x: ops.reshape(x, (2, -1))),
    "identity": (lambda: nn.Identity(3, ignored=True), X, lambda x: (x, lambda dy: (dy,))),
    "dropout off": (lambda: nn.Dropout(0.0), X, lambda x: (x, lambda dy: (dy,))),
}


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward(case):
    make, array, twin = CASES[case]
    attnnet.manual_seed(SEED)
    layer = make()
    x = attnnet.Tensor(array, requires_grad=True)
    y = layer(x)
    expected, backward = twin(array.astype(np.float64), *weights(layer))
    length = array[0].size
    assert_close(y, expected, length, f"y of {case} (seed {SEED})")
    dy = np.random.default_rng(SEED).standard_normal(y.shape).astype(np.float32)
    y.backward(attnnet.Tensor(dy))
    got = [x.grad, *(p.grad for p in layer.parameters())]
    grads = backward(dy.astype(np.float64))
    grads = grads if isinstance(grads, tuple) else (grads,)
    for i, (mine, theirs) in enumerate(zip(got, grads, strict=False)):
        assert_close(mine, theirs, array.size, f"gradient {i} of {case} (seed {SEED})")


@pytest.mark.parametrize("momentum", [0.1, 0.01, None])
def test_batch_norm_counts_and_tracks(momentum):
    layer = nn.BatchNorm2d(4, momentum=momentum)
    mean, var = np.zeros(4), np.ones(4)
    for batch in range(1, 4):
        x = X * batch + batch
        y, _ = twins.batch_norm(x, mean, var, np.ones(4), np.zeros(4), True, layer.eps)
        assert_close(layer(attnnet.Tensor(x)), y, X.size, f"batch {batch}")
        share = 1 / batch if momentum is None else momentum
        mean, var = twins.batch_norm_running(x, mean, var, share)
        assert_close(layer.running_mean, mean, X.size, "mean")
        assert_close(layer.running_var, var, X.size, "var")
        assert layer.state_dict()["num_batches_tracked"] == batch
    layer.eval()
    y, _ = twins.batch_norm(X, mean, var, np.ones(4), np.zeros(4), False, layer.eps)
    assert_close(layer(attnnet.Tensor(X)), y, 1, "evaluation")
    assert layer.num_batches_tracked == 3
    layer.reset_running_stats()
    assert layer.num_batches_tracked == 0 and layer.running_var.numpy().tolist() == [1.0] * 4


def test_batch_norm_without_affine_or_tracking():
    layer = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    assert not layer.state_dict()
    expected = (X - X.mean((0, 2, 3), keepdims=True)) / np.sqrt(
        X.var((0, 2, 3), keepdims=True) + 1e-5
    )
    for mode in (True, False):
        layer.train(mode)
        assert_close(layer(attnnet.Tensor(X)), expected, X.size, f"training={mode}")


def test_dropout_drops_only_in_training():
    attnnet.manual_seed(1)
    layer = nn.Dropout(0.25)
    ones = attnnet.Tensor(np.ones((100, 100)))
    y = layer(ones).numpy()
    share = float((y == 0).mean())
    assert abs(share - 0.25) < 0.03
    np.testing.assert_allclose(y[y != 0], 1 / 0.75, rtol=1e-6)
    layer.eval()
    np.testing.assert_array_equal(layer(ones).numpy(), 1.0)


def test_cross_entropy_loss():
    logits = attnnet.Tensor(FLAT, requires_grad=True)
    for smoothing in (0.0, 0.1):
        loss = nn.CrossEntropyLoss(smoothing)(logits, np.array([1, 3]))
        logp = FLAT - np.log(np.exp(FLAT).sum(1, keepdims=True))
        picked = -(1 - smoothing) * logp[[0, 1], [1, 3]] - smoothing * logp.mean(1)
        assert_close(loss, picked.mean(), 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.Conv2d(3, 4, 0),
            "kernel_size must be an integer or two of them, each at least 1",
        ),
        (lambda: nn.Conv2d(3, 4, 3, stride=(1, 2, 3)), "stride must be"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), "padding must be"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), r"groups \(2\) must divide in_channels \(3\)"),
        (lambda: nn.Conv2d(3.5, 4, 3), "in_channels must be an int of at least 1"),
        (lambda: nn.Linear(0, 4), "in_features must be an int of at least 1: got 0"),
        (lambda: nn.BatchNorm2d(-1), "num_features must be"),
        (lambda: nn.Dropout(1.5), "between 0 and 1, but got 1.5"),
        (lambda: nn.CrossEntropyLoss(-0.1), "label_smoothing must be between 0 and 1"),
        (lambda: nn.MaxPool2d(2, padding=2), "at most half of kernel_size"),
        (lambda: nn.AdaptiveAvgPool2d(0), "output_size must be"),
    ],
)
def test_constructor_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_channel_count_is_named():
    with pytest.raises(ValueError):
        nn.Conv2d(3, 4, 3)(attnnet.Tensor(X))
    with pytest.raises(ValueError):
        nn.Linear(5, 4)(attnnet.Tensor(FLAT))
