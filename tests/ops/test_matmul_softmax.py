"""Matmul, linear, softmax, cross entropy."""

from __future__ import annotations

import numpy as np
import pytest
from reference import ops
from reference.gradcheck import gradcheck
from reference.harness import check, draw, layouts_of

import attnnet
from attnnet import functional as F

PRODUCTS = [
    ((1, 1), (1, 1)),
    ((2, 3), (3, 5)),
    ((17, 31), (31, 13)),
    ((64, 100), (100, 96)),
    ((4, 2, 3), (4, 3, 5)),
    ((4, 2, 3), (3, 5)),
    ((2, 3), (4, 3, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((2, 16, 3, 4), (2, 16, 4, 5)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((0, 2, 3), (0, 3, 2)),
]


@pytest.mark.parametrize(("a", "b"), PRODUCTS, ids=str)
def test_matmul(a, b):
    rows = int(np.prod(a[:-1]))
    for layout in layouts_of(a, b):
        check(
            F.matmul,
            ops.matmul,
            [draw(1, *a), draw(2, *b)],
            length=a[-1],
            lengths=[b[-1] * 20, max(rows, 1)],
            layout=layout,
        )


def test_transposed_operands():
    """Views that are not contiguous, as a score q @ k^T has."""
    check(
        lambda a, b: F.matmul(a, b.transpose(-1, -2)),
        lambda a, b: _transposed_product(a, b),
        [draw(1, 3, 5, 7), draw(2, 3, 4, 7)],
        length=7,
    )


def _transposed_product(a, b):
    y, backward = ops.matmul(a, b.swapaxes(-1, -2))

    def transposed(dy):
        da, db = backward(dy)
        return da, db.swapaxes(-1, -2)

    return y, transposed


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("shape", "out"), [((1, 1), 1), ((3, 5), 7), ((128, 512), 100), ((2, 3, 5), 4), ((0, 4), 3)]
)
def test_linear(shape, out, bias):
    arrays = [draw(1, *shape), draw(2, out, shape[-1])] + ([draw(3, out)] if bias else [])
    rows = int(np.prod(shape[:-1]))
    lengths = [out, max(rows, 1), max(rows, 1)][: len(arrays)]
    scales = [0.0, 0.0, np.sqrt(rows)][: len(arrays)]
    check(F.linear, ops.linear, arrays, length=shape[-1], lengths=lengths, scales=scales)


def test_finite_differences():
    gradcheck(F.matmul, ops.matmul, [draw(1, 2, 2, 3), draw(2, 3, 2)], length=6)
    gradcheck(F.linear, ops.linear, [draw(1, 3, 2), draw(2, 4, 2), draw(3, 4)], length=6)
    for dim in (0, 1):
        gradcheck(
            lambda x, d=dim: F.softmax(x, d),
            lambda x, d=dim: ops.softmax(x, d),
            [draw(1, 3, 4)],
            length=8,
        )
    gradcheck(
        lambda x: F.cross_entropy(x, np.array([2, 0, 1]), 0.2),
        lambda x: ops.cross_entropy(x, [2, 0, 1], 0.2),
        [draw(1, 3, 4)],
        length=8,
    )


def test_products_that_do_not_fit_are_refused():
    for a, b in (((2, 3), (4, 5)), ((2, 2, 3), (3, 3, 5))):
        with pytest.raises(ValueError) as error:
            F.matmul(attnnet.Tensor(np.ones(a)), attnnet.Tensor(np.ones(b)))
        assert str(a) in str(error.value) and str(b) in str(error.value)
    with pytest.raises(ValueError, match="scalar"):
        F.matmul(attnnet.Tensor(2.0), attnnet.Tensor(np.ones((2, 2))))
    with pytest.raises(ValueError) as error:
        F.linear(attnnet.Tensor(np.ones((2, 3))), attnnet.Tensor(np.ones((5, 4))))
    assert "3" in str(error.value) and "4" in str(error.value)


SOFT = [((1,), 0), ((7,), 0), ((3, 1), 1), ((3, 5), 0), ((3, 5), -1), ((2, 1000), 1)]
SOFT += [((2, 16, 3, 3), 1), ((2, 16, 3, 5), 3), ((2, 16, 3, 5), 0), ((0, 5), 1), ((2, 3, 4), 1)]


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "dim"), SOFT, ids=str)
def test_softmax(name, shape, dim):
    for layout in layouts_of(shape):
        check(
            lambda t: getattr(F, name)(t, dim),
            lambda a: getattr(ops, name)(a, dim),
            [draw(1, *shape) * 3],
            length=shape[dim] + 20,
            scales=[1.0 if name == "log_softmax" else 0.1],
            layout=layout,
        )


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_large_logits(name):
    x = np.array([[1000.0, 999, -1000], [-1e30, 0, -np.inf], [88, 88, 88]], np.float32)
    with np.errstate(divide="ignore"):
        expected, _ = getattr(ops, name)(x, 1)
    got = getattr(F, name)(attnnet.Tensor(x), 1).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_softmax_keeps_nan():
    got = F.softmax(attnnet.Tensor([[0.0, np.nan, 1], [0, 1, 2]]), 1).numpy()
    assert np.isnan(got[0]).all() and not np.isnan(got[1]).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 10), (7, 3), (128, 100), (3, 1001)], ids=str)
def test_cross_entropy(shape, smoothing):
    target = np.random.default_rng(2).integers(0, shape[1], shape[0])
    check(
        lambda t: F.cross_entropy(t, target, smoothing),
        lambda a: ops.cross_entropy(a, target, smoothing),
        [draw(1, *shape) * 2],
        length=shape[0] + 20,
        scale=1.0,
        scales=[1 / shape[0]],
    )


def test_cross_entropy_of_certain_logits():
    """Loss of a hopeless prediction is its distance, not infinity; of a sure one, nearly zero."""
    x = np.array([[500.0, -500.0], [500.0, -500.0]], np.float32)
    leaf = attnnet.Tensor(x, requires_grad=True)
    loss = F.cross_entropy(leaf, np.array([0, 1]))
    assert abs(loss.item() - 500) <= 1e-3
    loss.backward()
    np.testing.assert_allclose(leaf.grad.numpy(), [[0, 0], [0.5, -0.5]], atol=1e-7)


@pytest.mark.parametrize(
    "form",
    [
        lambda t: t.astype(np.int32),
        lambda t: t.astype(np.uint8),
        lambda t: t.astype(">i8"),
        lambda t: np.repeat(t, 2)[::2],
        lambda t: t[::-1][::-1],
        lambda t: t.tolist(),
    ],
    ids=["int32", "uint8", "big-endian", "strided", "reversed", "list"],
)
def test_targets_of_every_integer_kind(form):
    target = np.array([2, 0, 1, 2])
    x = attnnet.Tensor(draw(1, 4, 3))
    expected = F.cross_entropy(x, target).item()
    assert F.cross_entropy(x, form(target)).item() == expected


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ([0, 3], ["3"]),
        ([0, -1], ["-1"]),
        ([0], ["1", "2"]),
        ([[0], [1]], ["target", "2"]),
        ([0.0, 1.0], ["float64"]),
    ],
    ids=str,
)
def test_wrong_targets_are_refused(target, words):
    with pytest.raises((ValueError, TypeError)) as error:
        F.cross_entropy(attnnet.Tensor(np.ones((2, 3))), np.array(target))
    for word in words:
        assert word in str(error.value), str(error.value)


def test_wrong_smoothing_is_refused():
    for smoothing in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="label_smoothing"):
            F.cross_entropy(attnnet.Tensor(np.ones((2, 3))), np.array([0, 1]), smoothing)
