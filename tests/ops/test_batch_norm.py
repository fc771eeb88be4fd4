"""F.batch_norm: training, evaluation, running statistics, the fused residual and ReLU."""

from __future__ import annotations

import numpy as np
import pytest
from reference import ops
from reference.compare import assert_close
from reference.gradcheck import gradcheck
from reference.harness import LAYOUTS, can_block, check, draw, make

import attnnet
from attnnet import functional as F

SHAPES = [
    (2, 1, 1, 1),
    (1, 3, 2, 1),
    (3, 5, 7, 3),
    (2, 16, 1, 1),
    (4, 16, 8, 8),
    (3, 48, 5, 7),
    (2, 64, 16, 16),
    (2, 24, 6, 5),
    (7, 33, 3, 3),
]


def parameters(channels, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "mean": draw(rng, channels),
        "var": draw(rng, channels, low=0.3, high=3),
        "weight": draw(rng, channels, low=0.5, high=1.5),
        "bias": draw(rng, channels),
    }


def both(p, training, relu, momentum=0.1, eps=1e-5):
    """F.batch_norm and its twin as functions of (x, weight, bias[, residual])."""
    stats = [attnnet.Tensor(p["mean"]), attnnet.Tensor(p["var"])]

    def ours(x, weight, bias, residual=None):
        return F.batch_norm(
            x, *stats, weight, bias, training, momentum, eps, residual=residual, relu=relu
        )

    def theirs(x, weight, bias, residual=None):
        return ops.batch_norm(
            x, p["mean"], p["var"], weight, bias, training, eps, residual=residual, relu=relu
        )

    return ours, theirs, stats


def off_the_kink(p, training, x, residual):
    """Moves x where the ReLU's input is within rounding of zero, where no gradient is right."""
    for _ in range(20):
        z, _ = ops.batch_norm(x, *p.values(), training, residual=residual)
        near = np.abs(z) < 1e-4
        if not near.any():
            return
        x[near] += np.float32(0.01)
    raise AssertionError("still on the kink")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_twin(shape, training, relu, residual, layout):
    if layout == "blocked16" and not can_block(np.empty(shape)):
        layout = "plain"
    p = parameters(shape[1])
    ours, theirs, stats = both(p, training, relu)
    arrays = [draw(1, *shape), p["weight"], p["bias"]]
    if residual:
        arrays.append(draw(2, *shape))
    if relu:
        off_the_kink(p, training, arrays[0], arrays[3] if residual else None)
    count = shape[0] * shape[2] * shape[3]
    # the terms of a gradient have size one (and up to 1/sqrt(eps) when two values are all there
    # is): where they cancel, rounding is measured against them
    scales = [1.0, np.sqrt(count), np.sqrt(count), 0.0][: len(arrays)]
    check(ours, theirs, arrays, length=count, scales=scales, layout=layout)
    if training:
        mean, var = ops.batch_norm_running(arrays[0], p["mean"], p["var"])
    else:
        mean, var = p["mean"], p["var"]
    assert_close(stats[0], mean, count, "running mean")
    assert_close(stats[1], var, count, "running variance")


def test_momentum_and_eps():
    p = parameters(5)
    x = draw(3, 4, 5, 3, 3)
    ours, theirs, stats = both(p, True, False, momentum=0.01, eps=0.1)
    check(ours, theirs, [x, p["weight"], p["bias"]], length=36)
    mean, var = ops.batch_norm_running(x, p["mean"], p["var"], 0.01)
    assert_close(stats[0], mean, 36, "running mean")
    assert_close(stats[1], var, 36, "running variance")


@pytest.mark.parametrize("training", [True, False])
def test_finite_differences(training):
    p = parameters(2)
    ours, theirs, _ = both(p, training, False)
    gradcheck(ours, theirs, [draw(1, 3, 2, 2, 3), p["weight"], p["bias"]], length=18)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_large_mean_does_not_eat_the_variance(layout):
    """Variance by E[x^2] - E[x]^2 in float32 would lose everything here."""
    p = parameters(16)
    x = draw(1, 4, 16, 6, 6) + np.float32(1000)
    ours, theirs, stats = both(p, True, False)
    y = ours(make(x, layout), *map(attnnet.Tensor, (p["weight"], p["bias"])))
    expected, _ = theirs(x, p["weight"], p["bias"])
    # x itself is rounded to 1000 * 2^-24; the normalised value inherits that and no more
    assert np.abs(y.numpy() - expected).max() <= 20 * 1000 * 2**-24
    _, var = ops.batch_norm_running(x, p["mean"], p["var"])
    assert_close(stats[1], var, 144, "running variance")


def test_relu_passes_nothing_at_zero_and_keeps_nan():
    x = np.array([1, 2, -3, np.nan], np.float32).reshape(1, 4, 1, 1)
    mean = np.array([0, 2, 0, 0], np.float32)  # the second value comes out as exactly zero
    one, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
    leaf = attnnet.Tensor(x, requires_grad=True)
    y = F.batch_norm(leaf, *map(attnnet.Tensor, (mean, one, one, zero)), relu=True)
    got = y.numpy().ravel()
    assert got[0] > 0 and got[1] == 0 and got[2] == 0 and np.isnan(got[3])
    y[:, :3].sum().backward()
    grad = leaf.grad.numpy().ravel()
    assert grad[0] > 0 and grad[1] == 0 and grad[2] == 0


def test_one_value_a_channel_is_refused_in_training():
    p = parameters(16)
    ours, _, stats = both(p, True, False)
    tensors = [attnnet.Tensor(a) for a in (draw(1, 1, 16, 1, 1), p["weight"], p["bias"])]
    with pytest.raises(ValueError, match=r"\(1, 16, 1, 1\)"):
        ours(*tensors)
    np.testing.assert_array_equal(stats[0].numpy(), p["mean"])
    np.testing.assert_array_equal(stats[1].numpy(), p["var"])
    both(p, False, False)[0](*tensors)  # in evaluation it is fine


def test_empty_batch():
    p = parameters(16)
    x = np.zeros((0, 16, 4, 4), np.float32)
    ours, _, _ = both(p, False, False)
    assert ours(*map(attnnet.Tensor, (x, p["weight"], p["bias"]))).shape == x.shape
    ours, _, stats = both(p, True, False)
    with pytest.raises(ValueError, match=r"\(0, 16, 4, 4\)"):
        ours(*map(attnnet.Tensor, (x, p["weight"], p["bias"])))
    np.testing.assert_array_equal(stats[0].numpy(), p["mean"])


@pytest.mark.parametrize("which", ["mean", "var", "weight", "bias"])
def test_wrong_channel_counts_are_refused(which):
    p = parameters(4)
    p[which] = p[which][:3]
    ours, _, _ = both(p, True, False)
    with pytest.raises(ValueError) as error:
        ours(*map(attnnet.Tensor, (draw(1, 2, 4, 3, 3), p["weight"], p["bias"])))
    assert "3" in str(error.value) and "4" in str(error.value)


def test_residual_of_another_shape_is_refused():
    p = parameters(4)
    ours, _, _ = both(p, True, True)
    tensors = map(
        attnnet.Tensor, (draw(1, 2, 4, 3, 3), p["weight"], p["bias"], draw(2, 2, 4, 3, 1))
    )
    with pytest.raises(ValueError, match=r"\(2, 4, 3, 1\)"):
        ours(*tensors)
