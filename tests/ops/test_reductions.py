"""Sum, mean, variance, maximum and minimum over any axes."""

from __future__ import annotations

import numpy as np
import pytest
from reference import ops
from reference.gradcheck import gradcheck
from reference.harness import LAYOUTS, check, distinct, draw, layouts_of, make

import attnnet
from attnnet import functional as F

CASES = [  # shape, dim
    ((), None),
    ((1,), 0),
    ((7,), None),
    ((3, 5), 0),
    ((3, 5), -1),
    ((2, 3, 5), (0, 2)),
    ((2, 3, 5), (-1, 0)),
    ((2, 3, 5), None),
    ((2, 16, 5, 7), (2, 3)),  # global pool
    ((2, 16, 5, 7), 1),  # channel pool
    ((2, 48, 5, 3), (0, 2, 3)),  # batch norm's
    ((2, 48, 5, 3), 2),  # coordinate attention's
    ((2, 48, 5, 3), 3),
    ((2, 48, 5, 3), 0),
    ((2, 48, 5, 3), (1, 2)),
    ((2, 48, 5, 3), None),
    ((2, 17, 3, 3), 1),
    ((3, 16, 1, 1), (2, 3)),
    ((0, 16, 4, 4), (2, 3)),
    ((0, 16, 4, 4), 1),
    ((1, 100_003), 1),
    ((100_003, 1), 0),
    ((2, 3, 1, 2, 2), (1, 4)),
]


@pytest.mark.parametrize("keepdim", [False, True], ids=["", "keepdim"])
@pytest.mark.parametrize("name", ["sum", "mean", "var", "amax", "amin"])
@pytest.mark.parametrize(("shape", "dim"), CASES, ids=str)
def test_against_twin(name, shape, dim, keepdim):
    axes = list(range(len(shape)) if dim is None else np.atleast_1d(dim))
    count = int(np.prod([shape[a] for a in axes]))
    if name == "var" and count < 2:
        return  # a variance of one value is 0/0: below
    x = distinct(1, *shape) if name in ("amax", "amin") else draw(1, *shape)
    # what a sum of random terms of size one comes to, where it does not cancel
    scale = {"sum": np.sqrt(count), "mean": 1 / np.sqrt(max(count, 1))}.get(name, 0.0)
    for layout in layouts_of(shape):
        y = check(
            lambda t: getattr(F, name)(t, dim, keepdim=keepdim),
            lambda a: getattr(ops, name)(a, dim, keepdim=keepdim),
            [x],
            length=count,
            scale=scale,
            layout=layout,
        )
        assert y.ndim == (len(shape) if keepdim else len(shape) - len(axes))


@pytest.mark.parametrize("name", ["sum", "mean", "var", "amax", "amin"])
def test_finite_differences(name):
    gradcheck(
        lambda x: getattr(F, name)(x, (0, 2)),
        lambda x: getattr(ops, name)(x, (0, 2)),
        [distinct(2, 2, 3, 4)],
        length=8,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["amax", "amin"])
@pytest.mark.parametrize("dim", [1, (2, 3), (1, 2, 3), None, 0], ids=str)
def test_ties_go_to_the_first(name, dim, layout):
    """First in channel order and in row-major positions, whatever the layout."""
    x = np.random.default_rng(3).integers(0, 3, (3, 32, 5, 4)).astype(np.float32)
    check(
        lambda t: getattr(F, name)(t, dim),
        lambda a: getattr(ops, name)(a, dim),
        [x],
        layout=layout,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["amax", "amin", "sum", "mean", "var"])
def test_nan_wins(name, layout):
    x = draw(1, 2, 16, 3, 3)
    x[1, 5, 1, 1] = np.nan
    got = getattr(F, name)(make(x, layout), (2, 3)).numpy()
    expected = np.zeros((2, 16), bool)
    expected[1, 5] = True
    np.testing.assert_array_equal(np.isnan(got), expected)


def test_a_large_mean_does_not_eat_the_variance():
    x = draw(1, 50, 20) + np.float32(1000)
    expected, _ = ops.var(x, None)
    got = F.var(attnnet.Tensor(x)).item()
    assert abs(got - expected) <= 1e-4 * expected


def test_correction():
    x = draw(1, 3, 7)
    for correction in (0, 1, 2):
        check(
            lambda t, c=correction: F.var(t, 1, correction=c),
            lambda a, c=correction: ops.var(a, 1, c),
            [x],
            length=7,
        )


def test_long_sums_keep_their_accuracy():
    """Ten million values near one: a single running float32 sum would stop at 2^24 of them."""
    x = attnnet.Tensor(np.full((1 << 24) + 4096, 1.1, np.float32))
    expected = float(np.float32(1.1)) * ((1 << 24) + 4096)
    assert abs(x.sum().item() / expected - 1) <= 1e-5
    assert abs(x.mean().item() / float(np.float32(1.1)) - 1) <= 1e-5


def test_same_bits_with_any_number_of_threads():
    threads = attnnet.get_num_threads()
    x = attnnet.Tensor(draw(1, 40, 48, 17, 13))
    results = []
    try:
        for count in (1, 2, 3):
            attnnet.set_num_threads(count)
            results.append([np.array(F.sum(x, d).numpy()) for d in (None, 1, (0, 2, 3), (2, 3))])
    finally:
        attnnet.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_maximum_of_nothing_is_refused():
    with pytest.raises(ValueError):
        F.amax(attnnet.Tensor(np.zeros((2, 0))), 1)


@pytest.mark.parametrize("dim", [2, -3, (0, 2)])
def test_axes_out_of_range_are_refused(dim):
    for name in ("sum", "mean", "amax", "var"):
        with pytest.raises((ValueError, IndexError)) as error:
            getattr(F, name)(attnnet.Tensor(np.ones((2, 3))), dim)
        assert str(np.atleast_1d(dim)[-1]) in str(error.value)


def test_an_axis_twice_is_refused():
    with pytest.raises(ValueError):
        F.sum(attnnet.Tensor(np.ones((2, 3))), (1, -1))
