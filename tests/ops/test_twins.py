"""The twins themselves: finite differences in float64, and PyTorch in float64 where installed."""

from __future__ import annotations

import numpy as np
import pytest
from reference import ops
from reference.gradcheck import check_twin

RNG = np.random.default_rng(20240601)


def draw(*shape):
    return RNG.standard_normal(shape)


def positive(*shape):
    return RNG.uniform(0.5, 2.0, shape)


def distinct(*shape):
    """Values at least 0.01 apart: no ties within reach of a difference."""
    return RNG.permutation(int(np.prod(shape))).reshape(shape) * 0.02 - 0.3


# name -> (twin of the arrays alone, arrays, the same in PyTorch or None)
CASES = {
    "relu": (ops.relu, [distinct(3, 5)], "relu(a)"),
    "sigmoid": (ops.sigmoid, [draw(3, 5) * 3], "sigmoid(a)"),
    "tanh": (ops.tanh, [draw(3, 5)], "tanh(a)"),
    "exp": (ops.exp, [draw(3, 5)], "exp(a)"),
    "log": (ops.log, [positive(3, 5)], "log(a)"),
    "sqrt": (ops.sqrt, [positive(3, 5)], "sqrt(a)"),
    "abs": (ops.abs, [distinct(3, 5)], "abs(a)"),
    "clamp": (
        lambda a: ops.clamp(a, -0.255, -0.111),
        [distinct(3, 5)],
        "clamp(a, -0.255, -0.111)",
    ),
    "clamp_min": (lambda a: ops.clamp(a, min=-0.155), [distinct(3, 5)], "clamp(a, -0.155)"),
    "softmax": (lambda a: ops.softmax(a, 1), [draw(2, 5, 3)], "softmax(a, 1)"),
    "log_softmax": (lambda a: ops.log_softmax(a, -1), [draw(2, 5)], "log_softmax(a, -1)"),
    "add": (ops.add, [draw(3, 1, 4), draw(5, 1)], "a + b"),
    "sub": (ops.sub, [draw(3, 1, 4), draw(5, 1)], "a - b"),
    "mul": (ops.mul, [draw(3, 1, 4), draw(5, 1)], "a * b"),
    "div": (ops.div, [draw(3, 1, 4), positive(5, 1)], "a / b"),
    "pow": (ops.pow, [positive(3, 1, 4), draw(5, 1)], "a ** b"),
    "matmul": (ops.matmul, [draw(2, 1, 3, 4), draw(5, 4, 2)], "a @ b"),
    "matmul_vector": (ops.matmul, [draw(3, 4), draw(4)], "a @ b"),
    "linear": (ops.linear, [draw(3, 4), draw(5, 4), draw(5)], "F.linear(a, b, c)"),
    "sum": (lambda a: ops.sum(a, (0, 2)), [draw(2, 3, 4)], "sum(a, (0, 2))"),
    "mean": (lambda a: ops.mean(a, -1, True), [draw(2, 3, 4)], "mean(a, -1, True)"),
    "mean_all": (ops.mean, [draw(2, 3, 4)], "mean(a)"),
    "var": (
        lambda a: ops.var(a, (0, 2), 1),
        [draw(2, 3, 4)],
        "torch.var(a, (0, 2), correction=1)",
    ),
    "amax": (lambda a: ops.amax(a, (2, 0)), [distinct(2, 3, 4)], "amax(a, (2, 0))"),
    "amin": (lambda a: ops.amin(a, 1, True), [distinct(2, 3, 4)], "amin(a, 1, True)"),
    "reshape": (lambda a: ops.reshape(a, (4, -1)), [draw(2, 6)], "reshape(a, (4, -1))"),
    "flatten": (ops.flatten, [draw(2, 3, 2)], "flatten(a, 1)"),
    "permute": (lambda a: ops.permute(a, (2, 0, -2)), [draw(2, 3, 4)], "permute(a, (2, 0, -2))"),
    "cat": (lambda a, b: ops.cat([a, b], 1), [draw(2, 3), draw(2, 1)], "cat([a, b], 1)"),
    "getitem": (
        lambda a: ops.getitem(a, (slice(1, None), ..., 2)),
        [draw(3, 2, 4)],
        "a[1:, ..., 2]",
    ),
    "pad": (
        lambda a: ops.pad(a, (1, 0, 2, 3), 0.5),
        [draw(1, 2, 2, 3)],
        "F.pad(a, (1, 0, 2, 3), value=0.5)",
    ),
    "cross_entropy": (
        lambda a: ops.cross_entropy(a, [1, 0, 4], 0.1),
        [draw(3, 5)],
        "F.cross_entropy(a, torch.tensor([1, 0, 4]), label_smoothing=0.1)",
    ),
    "conv2d": (
        lambda a, b, c: ops.conv2d(a, b, c, (2, 1), (1, 0), 2),
        [draw(2, 4, 5, 4), draw(6, 2, 3, 2), draw(6)],
        "F.conv2d(a, b, c, (2, 1), (1, 0), groups=2)",
    ),
    "conv2d_rest": (  # a row and a column that no window reaches
        lambda a, b, c: ops.conv2d(a, b, c, 3),
        [draw(1, 1, 6, 7), draw(2, 1, 2, 3), draw(2)],
        "F.conv2d(a, b, c, 3)",
    ),
    "batch_norm": (
        lambda a, b, c: ops.batch_norm(a, None, None, b, c, True),
        [draw(3, 2, 2, 3), draw(2), draw(2)],
        "F.batch_norm(a, None, None, b, c, True)",
    ),
    "batch_norm_eval": (
        lambda a, b, c: ops.batch_norm(a, np.array([0.25, -1]), np.array([0.5, 2]), b, c),
        [draw(3, 2, 2, 3), draw(2), draw(2)],
        "F.batch_norm(a, tensor([0.25, -1]).double(), tensor([0.5, 2]).double(), b, c)",
    ),
    "batch_norm_fused": (
        lambda a, b, c, d: ops.batch_norm(a, None, None, b, c, True, residual=d, relu=True),
        [draw(3, 2, 2, 3), draw(2), draw(2), draw(3, 2, 2, 3)],
        "relu(F.batch_norm(a, None, None, b, c, True) + d)",
    ),
    "max_pool2d": (
        lambda a: ops.max_pool2d(a, 3, 2, 1),
        [distinct(2, 2, 5, 6)],
        "F.max_pool2d(a, 3, 2, 1)",
    ),
    "avg_pool2d": (
        lambda a: ops.avg_pool2d(a, (3, 2), 2, 1),
        [draw(2, 2, 5, 6)],
        "F.avg_pool2d(a, (3, 2), 2, 1)",
    ),
    "adaptive_avg_pool2d": (
        lambda a: ops.adaptive_avg_pool2d(a, (3, 2)),
        [draw(2, 2, 5, 7)],
        "F.adaptive_avg_pool2d(a, (3, 2))",
    ),
    "adaptive_max_pool2d": (
        lambda a: ops.adaptive_max_pool2d(a, (3, 2)),
        [distinct(2, 2, 5, 7)],
        "F.adaptive_max_pool2d(a, (3, 2))",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_backward_is_the_derivative_of_forward(name):
    twin, arrays, _ = CASES[name]
    check_twin(twin, arrays)


@pytest.mark.parametrize("name", CASES)
def test_twin_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    twin, arrays, expression = CASES[name]
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    scope = {"torch": torch, "F": torch.nn.functional, **vars(torch)}
    theirs = eval(expression, scope, dict(zip("abcd", leaves, strict=False)))
    ours, backward = twin(*arrays)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-13)
    dy = RNG.standard_normal(ours.shape)
    theirs.backward(torch.tensor(dy))
    for got, leaf in zip(backward(dy), leaves, strict=True):
        np.testing.assert_allclose(got, leaf.grad.numpy(), rtol=1e-11, atol=1e-12)


def test_split_is_the_inverse_of_cat():
    x = draw(2, 7, 3)
    for sections in (3, [1, 4, 2]):
        parts, backward = ops.split(x, sections, 1)
        np.testing.assert_array_equal(np.concatenate(parts, 1), x)
        (dx,) = backward([None, *parts[1:]])
        expected = x.copy()
        expected[:, : parts[0].shape[1]] = 0
        np.testing.assert_array_equal(dx, expected)


def test_running_statistics_agree_with_torch():
    torch = pytest.importorskip("torch")
    x, mean, var = draw(4, 3, 2, 5), draw(3), positive(3)
    theirs = torch.tensor(mean), torch.tensor(var)
    torch.nn.functional.batch_norm(torch.tensor(x), *theirs, training=True, momentum=0.3)
    for got, expected in zip(ops.batch_norm_running(x, mean, var, 0.3), theirs, strict=True):
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-12)


def test_ties_go_to_the_first():
    x = np.array([[2.0, 5, 5], [5, 5, 1]])
    (dx,) = ops.amax(x, 1)[1](np.ones(2))
    np.testing.assert_array_equal(dx, [[0, 1, 0], [1, 0, 0]])
    (dx,) = ops.amax(x)[1](np.ones(()))
    np.testing.assert_array_equal(dx, [[0, 1, 0], [0, 0, 0]])
    (dx,) = ops.max_pool2d(x[None, None], (2, 3))[1](np.ones((1, 1, 1, 1)))
    np.testing.assert_array_equal(dx[0, 0], [[0, 1, 0], [0, 0, 0]])


def test_empty_batches_pass_through():
    empty = np.zeros((0, 4, 5, 5))
    for twin in (
        ops.relu,
        lambda x: ops.conv2d(x, draw(2, 4, 3, 3), draw(2)),
        lambda x: ops.max_pool2d(x, 2),
        lambda x: ops.amax(x, (2, 3)),
        lambda x: ops.softmax(x, 1),
    ):
        y, backward = twin(empty)
        assert y.shape[0] == 0
        assert backward(np.zeros_like(y))[0].shape == empty.shape
