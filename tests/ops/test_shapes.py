"""Reshape, permute, cat, split, slicing, pad: values land where NumPy puts them."""

from __future__ import annotations

import numpy as np
import pytest
from reference import ops
from reference.harness import check, draw, layouts_of, make

import attnnet
from attnnet import functional as F

BLOCKED = (2, 32, 5, 3)


@pytest.mark.parametrize(
    ("shape", "new"),
    [
        ((), (1, 1)),
        ((6,), (2, 3)),
        ((2, 3, 4), (-1,)),
        ((2, 3, 4), (4, -1, 2)),
        (BLOCKED, (2, 32, 15)),
        (BLOCKED, (2, 480)),
        (BLOCKED, (2, 8, 4, 15)),
        (BLOCKED, (2, 16, 2, 15)),  # blocked can follow blocked, with other neighbours
        ((2, 2, 8, 3), (2, 16, 3, 1)),
        ((2, 64), (2, 64, 1, 1)),
        ((2, 64, 1, 1), (2, 64)),
        ((0, 16, 2, 2), (0, 64)),
    ],
    ids=str,
)
def test_reshape(shape, new):
    for layout in layouts_of(shape):
        check(
            lambda t: F.reshape(t, new),
            lambda a: ops.reshape(a, new),
            [draw(1, *shape)],
            layout=layout,
        )


@pytest.mark.parametrize("start", [0, 1, 2, -1])
@pytest.mark.parametrize("shape", [(3, 4, 5), BLOCKED, (0, 16, 2, 2)], ids=str)
def test_flatten(shape, start):
    for layout in layouts_of(shape):
        check(
            lambda t: F.flatten(t, start),
            lambda a: ops.flatten(a, start % len(shape)),
            [draw(1, *shape)],
            layout=layout,
        )


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((7,), (0,)),
        ((2, 3), (1, 0)),
        ((2, 3, 4), (2, 0, 1)),
        (BLOCKED, (0, 1, 2, 3)),
        (BLOCKED, (0, 2, 3, 1)),
        (BLOCKED, (0, 1, 3, 2)),
        (BLOCKED, (1, 0, 2, 3)),
        ((2, 5, 16, 3), (0, -2, 1, -1)),
        ((2, 3, 4, 5, 2), (4, 2, 0, 1, 3)),
        ((0, 16, 2, 3), (3, 2, 1, 0)),
    ],
    ids=str,
)
def test_permute(shape, dims):
    for layout in layouts_of(shape):
        check(
            lambda t: F.permute(t, dims),
            lambda a: ops.permute(a, dims),
            [draw(1, *shape)],
            layout=layout,
        )


def test_transpose():
    x = draw(1, 2, 3, 4)
    np.testing.assert_array_equal(attnnet.Tensor(x).transpose(0, -1).numpy(), np.swapaxes(x, 0, -1))


@pytest.mark.parametrize(
    ("shapes", "dim"),
    [
        ([(3,), (2,)], 0),
        ([(2, 3)], 1),
        ([(2, 3), (2, 1), (2, 4)], -1),
        ([(2, 16, 3, 3), (2, 32, 3, 3)], 1),
        ([(2, 24, 3, 3), (2, 8, 3, 3)], 1),  # AA's 3 : 1, blocked together but not apart
        ([(2, 1, 5, 4), (2, 1, 5, 4)], 1),  # the spatial gate's two maps
        ([(2, 16, 3, 3), (1, 16, 3, 3)], 0),
        ([(2, 16, 3, 1), (2, 16, 4, 1)], 2),
        ([(2, 16, 3, 1), (2, 16, 3, 2)], 3),
        ([(2, 0, 3, 3), (2, 16, 3, 3)], 1),
        ([(0, 16, 3, 3), (0, 16, 3, 3)], 1),
        ([(2, n % 3) for n in range(200)], 1),
    ],
    ids=lambda value: str(value)[:60],
)
def test_cat(shapes, dim):
    for layout in layouts_of(*shapes):
        check(
            lambda *t: F.cat(t, dim),
            lambda *a: ops.cat(a, dim),
            [draw(i, *s) for i, s in enumerate(shapes)],
            layout=layout,
        )


@pytest.mark.parametrize(
    ("shape", "sections", "dim"),
    [
        ((7,), 3, 0),
        ((2, 6), [1, 3, 2], 1),
        ((2, 48, 3, 3), 16, 1),
        ((2, 48, 3, 3), [20, 20, 8], -3),
        ((2, 16, 7, 2), [4, 3], 2),
        ((4, 16, 3, 3), 2, 0),
    ],
    ids=str,
)
def test_split(shape, sections, dim):
    x = draw(1, *shape)
    for layout in layouts_of(shape):
        leaf = make(x, layout, requires_grad=True)
        parts = F.split(leaf, sections, dim)
        expected, backward = ops.split(x, sections, dim)
        assert len(parts) == len(expected)
        for part, e in zip(parts, expected, strict=True):
            np.testing.assert_array_equal(part.numpy(), e)
        # only the last part is used: the others' gradients are zeros
        parts[-1].backward(attnnet.Tensor(np.ones_like(expected[-1])))
        (dx,) = backward([None] * (len(expected) - 1) + [np.ones_like(expected[-1])])
        np.testing.assert_array_equal(leaf.grad.numpy(), dx)


S = slice
KEYS = [
    ((7,), 3),
    ((7,), -1),
    ((7,), S(2, 5)),
    ((7,), S(None, None, 3)),
    ((7,), S(5, 2)),
    ((2, 3, 4), (1, S(None), -2)),
    ((2, 3, 4), (..., 0)),
    ((2, 3, 4), (S(None), None, S(1, None))),
    ((2, 3, 4), (S(None), S(-2, None), S(None, None, 2))),
    (BLOCKED, 1),
    (BLOCKED, (S(None), S(16, 32))),
    (BLOCKED, (S(None), S(3, 20, 2))),
    (BLOCKED, (S(None), S(None), S(1, 4), S(None, None, 2))),
    (BLOCKED, (S(None), 5, 2, 1)),
    ((0, 16, 2, 2), (S(None), 1)),
]


@pytest.mark.parametrize(("shape", "key"), KEYS, ids=str)
def test_slicing(shape, key):
    for layout in layouts_of(shape):
        check(
            lambda t: t[key],
            lambda a: ops.getitem(a, key),
            [draw(1, *shape)],
            layout=layout,
        )


def test_overlapping_slices_add_their_gradients():
    leaf = attnnet.Tensor(np.zeros(5), requires_grad=True)
    (leaf[1:4] + leaf[2:5]).sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), [0, 1, 2, 2, 1])


@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (0, 2, 3, 0), (0, 0, 0, 0)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), BLOCKED, (0, 16, 2, 2)], ids=str)
def test_pad(shape, sides):
    for layout in layouts_of(shape):
        for value in (0.0, -2.5):
            check(
                lambda t, v=value: F.pad(t, sides, v),
                lambda a, v=value: ops.pad(a, sides, v),
                [draw(1, *shape)],
                layout=layout,
            )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: F.reshape(t, (5, 5)), ["(2, 3, 4)", "(5, 5)"]),
        (lambda t: F.reshape(t, (-1, -1)), ["-1"]),
        (lambda t: F.reshape(t, (-1, 7)), ["7"]),
        (lambda t: F.permute(t, (0, 1)), ["3"]),
        (lambda t: F.permute(t, (0, 1, 1)), ["3", "(0, 1, 1)"]),
        (lambda t: F.permute(t, (0, 1, 3)), ["(0, 1, 3)"]),
        (lambda t: F.cat([], 0), []),
        (lambda t: F.cat([t, t[:, :2]], 0), ["(2, 3, 4)", "(2, 2, 4)"]),
        (lambda t: F.cat([t, t], 3), ["3"]),
        (lambda t: F.split(t, [1, 1], 1), ["3"]),
        (lambda t: F.split(t, 0, 1), ["0"]),
    ],
)
def test_refusals(call, words):
    with pytest.raises((ValueError, IndexError)) as error:
        call(attnnet.Tensor(np.ones((2, 3, 4))))
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize("key", [5, -3, (0, 0, 0, 0), (..., ...), (0, 3)], ids=str)
def test_indices_out_of_range_are_refused(key):
    with pytest.raises(IndexError):
        attnnet.Tensor(np.ones((2, 3, 4)))[key]


def test_a_sum_of_sizes_past_two_to_the_63_is_refused():
    x = attnnet.Tensor(np.zeros((0, 2**52), np.float32))
    assert F.cat([x] * 2, 1).shape == (0, 2**53)
    with pytest.raises(MemoryError, match="cat: the sum of dimension 1"):
        F.cat([x] * 2**11, 1)


def test_sizes_of_twenty_digits_are_refused():
    """Eight of them are more than a message holds: its end is missing, no more."""
    x = attnnet.Tensor(np.zeros((1,) * 8))
    with pytest.raises(ValueError, match=r"permute: .*\(-9223372036854775808, -9223"):
        x.permute(*[-(2**63)] * 8)
    with pytest.raises(ValueError):
        x.reshape([2**62 + i for i in range(8)])
