"""F.conv2d against its twin: kernels, strides, paddings, groups, sizes; and its refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from reference import ops
from reference.gradcheck import gradcheck
from reference.harness import LAYOUTS, can_block, check, draw

import attnnet
from attnnet import functional as F

# (N, C, H, W), K, (R, S), stride, padding, groups
CASES = [
    ((1, 1, 1, 1), 1, (1, 1), 1, 0, 1),
    ((2, 3, 5, 7), 4, (3, 3), 1, 1, 1),
    ((2, 3, 32, 32), 64, (3, 3), 1, 1, 1),  # the stem
    ((1, 16, 8, 8), 16, (3, 3), 1, 1, 1),
    ((2, 16, 6, 10), 32, (3, 3), 1, 1, 1),
    ((3, 32, 7, 5), 16, (3, 3), 1, 1, 1),
    ((2, 48, 9, 11), 80, (3, 3), 1, 1, 1),
    ((7, 64, 4, 4), 128, (3, 3), 1, 1, 1),
    ((5, 96, 2, 2), 96, (3, 3), 1, 1, 1),
    ((3, 32, 1, 1), 32, (3, 3), 1, 1, 1),
    ((2, 17, 13, 13), 19, (3, 3), 1, 1, 1),
    ((2, 32, 6, 6), 17, (3, 3), 1, 1, 1),  # blocked in, plain out
    ((2, 17, 6, 6), 32, (3, 3), 1, 1, 1),  # plain in, blocked out
    ((2, 32, 9, 6), 32, (3, 3), 1, 0, 1),
    ((2, 16, 5, 6), 16, (3, 3), 1, 2, 1),  # wider padding than a kernel needs
    ((2, 16, 8, 8), 32, (3, 3), 2, 1, 1),
    ((3, 32, 7, 9), 48, (3, 3), 2, 1, 1),
    ((2, 64, 4, 4), 64, (3, 3), 2, 1, 1),
    ((2, 3, 9, 8), 5, (3, 3), 2, 1, 1),
    ((2, 16, 6, 6), 48, (1, 1), 1, 0, 1),
    ((2, 64, 4, 4), 328, (1, 1), 1, 0, 1),
    ((3, 32, 7, 6), 64, (1, 1), 2, 0, 1),  # a shortcut
    ((2, 5, 4, 3), 1, (1, 1), 1, 0, 1),
    ((2, 2, 9, 8), 1, (7, 7), 1, 3, 1),  # the spatial gate
    ((2, 2, 2, 2), 1, (7, 7), 1, 3, 1),
    ((2, 32, 10, 9), 32, (7, 7), 3, 0, 1),  # NAB: rows and columns that no window reaches
    ((2, 16, 7, 7), 16, (7, 7), 3, 0, 1),
    ((2, 4, 6, 7), 6, (2, 3), (2, 1), (1, 0), 2),
    ((2, 6, 7, 5), 6, (3, 3), 1, 1, 6),  # depthwise
    ((2, 32, 6, 5), 32, (3, 3), 1, 1, 32),
    ((2, 32, 5, 5), 64, (3, 3), 1, 1, 2),
    ((1, 12, 5, 5), 8, (5, 5), 1, 2, 4),
    ((1, 1, 1, 13), 1, (1, 3), 1, (0, 1), 1),  # ECA's one-dimensional one
    ((0, 16, 8, 8), 16, (3, 3), 1, 1, 1),
    ((0, 3, 8, 8), 5, (3, 3), 2, 1, 1),
]


def name_of(case):
    shape, k, kernel, stride, padding, groups = case
    size = "x".join(map(str, shape))
    return f"{size}-{k}-{kernel[0]}x{kernel[1]}-s{stride}-p{padding}-g{groups}".replace(" ", "")


def run(case, bias, layout):
    (n, c, h, w), k, kernel, stride, padding, groups = case
    rng = np.random.default_rng(sum(case[0]) + k)
    fan_in = c // groups * kernel[0] * kernel[1]
    arrays = [draw(rng, n, c, h, w), draw(rng, k, c // groups, *kernel) / np.sqrt(fan_in)]
    if bias:
        arrays.append(draw(rng, k))

    def ours(x, weight, bias=None):
        return F.conv2d(x, weight, bias, stride, padding, groups)

    def theirs(x, weight, bias=None):
        return ops.conv2d(x, weight, bias, stride, padding, groups)

    y, _ = theirs(*arrays)
    places = y.shape[0] * y.shape[2] * y.shape[3]
    lengths = [k // groups * kernel[0] * kernel[1], places, places]
    # a sum over few places may cancel by chance: the terms themselves are of size one
    scales = [0.0, np.sqrt(places), np.sqrt(places)]
    count = len(arrays)
    check(
        ours,
        theirs,
        arrays,
        length=fan_in,
        lengths=lengths[:count],
        scales=scales[:count],
        layout=layout,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_against_twin(case, layout):
    if layout == "blocked16" and not can_block(np.empty(case[0])):
        layout = "plain"  # only the bias is new then
    run(case, bias=layout == "plain", layout=layout)


@pytest.mark.parametrize("bias", [False, True])
def test_with_and_without_bias(bias):
    for case in (CASES[1], CASES[4], CASES[15], CASES[21], CASES[28]):
        run(case, bias, "plain")


def test_random_shapes():
    """Sizes nobody thought of; the seed of each is in the message."""
    for seed in range(25):
        rng = np.random.default_rng(seed)
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        c, k = (int(rng.choice([1, 2, 5, 8, 16])) * groups for _ in range(2))
        kernel = tuple(int(v) for v in rng.integers(1, 5, 2))
        stride = tuple(int(v) for v in rng.integers(1, 4, 2))
        padding = tuple(int(v) for v in rng.integers(0, 3, 2))
        size = [int(rng.integers(max(1, kernel[i] - 2 * padding[i]), 12)) for i in range(2)]
        case = ((int(rng.integers(1, 4)), c, *size), k, kernel, stride, padding, groups)
        try:
            run(case, bool(seed % 2), LAYOUTS[seed % 2])
        except AssertionError as failure:
            raise AssertionError(f"seed {seed}, case {case}: {failure}") from None


def test_finite_differences():
    gradcheck(
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
        lambda x, w, b: ops.conv2d(x, w, b, 2, 1),
        [draw(1, 2, 3, 5, 4), draw(2, 2, 3, 3, 3), draw(3, 2)],
        length=36,
    )


def test_only_the_wanted_gradients():
    """Each of the eight choices of what requires a gradient gives what it asks for."""
    arrays = draw(1, 2, 16, 6, 6), draw(2, 32, 16, 3, 3), draw(3, 32)
    _, backward = ops.conv2d(*arrays, 1, 1)
    dy = draw(4, 2, 32, 6, 6)
    expected = backward(dy.astype(np.float64))
    for wanted in itertools.product([False, True], repeat=3):
        tensors = [attnnet.Tensor(a, requires_grad=r) for a, r in zip(arrays, wanted, strict=True)]
        y = F.conv2d(*tensors, padding=1)
        assert y.requires_grad == any(wanted)
        if any(wanted):
            y.backward(attnnet.Tensor(dy))
        for t, r, e in zip(tensors, wanted, expected, strict=True):
            assert (t.grad is not None) == r
            if r:
                error = np.abs(t.grad.numpy() - e).max()
                assert error <= 1e-4 * np.abs(e).max(), (wanted, error)


def test_weights_changed_in_place_are_seen():
    """Kept transformed weights must never go stale: the same tensor, new values, new result."""
    x = attnnet.Tensor(draw(1, 2, 32, 8, 8))
    weight = attnnet.Tensor(draw(2, 32, 32, 3, 3))
    with attnnet.no_grad():
        first = np.array(F.conv2d(x, weight, padding=1).numpy())
        again = np.array(F.conv2d(x, weight, padding=1).numpy())
        np.testing.assert_array_equal(first, again)
        weight.copy_(-np.asarray(weight.numpy()))
        np.testing.assert_array_equal(F.conv2d(x, weight, padding=1).numpy(), -first)


def test_same_bits_with_any_number_of_threads():
    threads = attnnet.get_num_threads()
    arrays = draw(1, 5, 32, 9, 9), draw(2, 48, 32, 3, 3), draw(3, 48)
    results = []
    try:
        for count in (1, 2, 3):
            attnnet.set_num_threads(count)
            tensors = [attnnet.Tensor(a, requires_grad=True) for a in arrays]
            y = F.conv2d(*tensors, padding=1)
            (y * y).sum().backward()
            results.append([np.array(y.numpy())] + [np.array(t.grad.numpy()) for t in tensors])
    finally:
        attnnet.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nan_and_infinity_stay():
    x = np.zeros((1, 16, 8, 8), np.float32)
    x[0, 3, 4, 4] = np.nan
    y = F.conv2d(attnnet.Tensor(x), attnnet.Tensor(np.ones((16, 16, 3, 3))), padding=1).numpy()
    assert np.isnan(y[0, :, 3:6, 3:6]).all()
    assert not np.isnan(y).all(axis=(1, 2, 3)).any() or np.isnan(y).any()


@pytest.mark.parametrize(
    ("shapes", "options", "words"),
    [
        (((1, 3, 4, 4), (2, 4, 3, 3)), {}, ["3", "4"]),  # channels
        (((1, 3, 4), (2, 3, 3, 3)), {}, ["(1, 3, 4)"]),
        (((1, 3, 4, 4), (2, 3, 3)), {}, ["(2, 3, 3)"]),
        (((1, 3, 2, 2), (2, 3, 3, 3)), {}, ["2", "3"]),  # the kernel is larger than the input
        (((1, 3, 4, 4), (2, 3, 3, 3), (3,)), {}, ["3"]),  # bias
        (((1, 4, 4, 4), (3, 2, 3, 3)), {"groups": 2}, ["groups", "3"]),
        (((1, 3, 4, 4), (2, 3, 3, 3)), {"stride": 0}, ["stride", "0"]),
        (((1, 3, 4, 4), (2, 3, 3, 3)), {"padding": -1}, ["padding", "-1"]),
        (((1, 3, 4, 4), (2, 3, 3, 3)), {"groups": 0}, ["groups", "0"]),
    ],
)
def test_refusals_name_what_is_wrong(shapes, options, words):
    tensors = [attnnet.Tensor(np.zeros(s)) for s in shapes]
    with pytest.raises(ValueError) as error:
        F.conv2d(*tensors, **options)
    for word in words:
        assert word in str(error.value), str(error.value)
