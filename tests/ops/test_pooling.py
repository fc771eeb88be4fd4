"""Max, average and adaptive pools."""

from __future__ import annotations

import numpy as np
import pytest
from reference import ops
from reference.gradcheck import gradcheck
from reference.harness import LAYOUTS, check, distinct, draw, layouts_of

import attnnet
from attnnet import functional as F

SHAPES = [(1, 1, 2, 2), (2, 3, 5, 7), (3, 16, 8, 8), (2, 48, 9, 6), (2, 17, 4, 4), (0, 16, 6, 6)]
OPTIONS = [  # kernel, stride, padding
    (2, None, 0),
    (2, 2, 0),
    (1, 1, 0),
    (3, 2, 1),
    (3, 1, 1),
    ((2, 1), None, 0),
    ((3, 2), (2, 3), (1, 0)),
    (2, 3, 1),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_pool(name, shape, options):
    kernel = np.broadcast_to(options[0], 2)
    padding = np.broadcast_to(options[2], 2)
    if any(shape[2 + i] + 2 * padding[i] < kernel[i] for i in range(2)):
        return
    x = distinct(1, *shape) if name == "max_pool2d" else draw(1, *shape)
    for layout in layouts_of(shape):
        y = check(
            lambda t: getattr(F, name)(t, *options),
            lambda a: getattr(ops, name)(a, *options),
            [x],
            length=9,
            layout=layout,
        )
        if shape[0]:
            assert y.layout == layout


@pytest.mark.parametrize("size", [1, 2, (1, 3), (4, 5), (8, 8)], ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 16, 1, 1)], ids=str)
@pytest.mark.parametrize("name", ["adaptive_max_pool2d", "adaptive_avg_pool2d"])
def test_adaptive_pool(name, shape, size):
    """Bins overlap where the size does not divide, and repeat where it is larger than the input."""
    x = distinct(1, *shape) if "max" in name else draw(1, *shape)
    for layout in layouts_of(shape):
        check(
            lambda t: getattr(F, name)(t, size),
            lambda a: getattr(ops, name)(a, size),
            [x],
            length=64,
            layout=layout,
        )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_average_without_counting_the_padding(layout):
    check(
        lambda t: F.avg_pool2d(t, 3, 2, 1, count_include_pad=False),
        lambda a: ops.avg_pool2d(a, 3, 2, 1, count_include_pad=False),
        [draw(1, 2, 16, 6, 5)],
        length=9,
        layout=layout,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [(2, None, 0), (3, 2, 1), (3, 1, 1)], ids=str)
def test_ties_go_to_the_first_of_a_window(options, layout):
    x = np.random.default_rng(7).integers(0, 2, (2, 16, 8, 6)).astype(np.float32)
    for ours, theirs in (
        (lambda t: F.max_pool2d(t, *options), lambda a: ops.max_pool2d(a, *options)),
        (lambda t: F.adaptive_max_pool2d(t, 1), lambda a: ops.adaptive_max_pool2d(a, 1)),
        (lambda t: F.adaptive_max_pool2d(t, (3, 4)), lambda a: ops.adaptive_max_pool2d(a, (3, 4))),
    ):
        check(ours, theirs, [x], length=9, layout=layout)


def test_padding_never_wins_a_maximum():
    x = np.full((1, 16, 3, 3), -5.0, np.float32)
    y = F.max_pool2d(attnnet.Tensor(x), 3, 2, 1)
    np.testing.assert_array_equal(y.numpy(), np.full((1, 16, 2, 2), -5))


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_nan_stays(name):
    x = distinct(1, 1, 16, 4, 4)
    x[0, 2, 1, 1] = np.nan
    y = getattr(F, name)(attnnet.Tensor(x), 2).numpy()
    assert np.isnan(y[0, 2, 0, 0]) and np.isnan(y).sum() == 1


def test_infinities_are_values():
    x = np.full((1, 1, 2, 2), -np.inf, np.float32)
    leaf = attnnet.Tensor(x, requires_grad=True)
    y = F.max_pool2d(leaf, 2)
    assert y.item() == -np.inf
    y.sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy().ravel(), [1, 0, 0, 0])


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_finite_differences(name):
    gradcheck(
        lambda t: getattr(F, name)(t, 3, 2, 1),
        lambda a: getattr(ops, name)(a, 3, 2, 1),
        [distinct(2, 1, 2, 5, 4)],
        length=9,
    )


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    ("options", "word"),
    [((5,), "5"), ((0,), "kernel"), ((2, 0), "stride"), ((2, 2, 2), "padding"), ((2, 2, -1), "-1")],
)
def test_refusals(name, options, word):
    """Padding beyond half a window would make windows of nothing but padding."""
    with pytest.raises(ValueError) as error:
        getattr(F, name)(attnnet.Tensor(np.ones((1, 2, 4, 4))), *options)
    assert word in str(error.value)


def test_adaptive_refusals():
    for size in (0, (2, -1)):
        with pytest.raises(ValueError, match=r"output_size|output size"):
            F.adaptive_avg_pool2d(attnnet.Tensor(np.ones((1, 2, 4, 4))), size)
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        F.adaptive_max_pool2d(attnnet.Tensor(np.ones((2, 4))), 1)
