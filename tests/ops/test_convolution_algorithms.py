"""Every convolution algorithm, forced, against the float64 twin; and that it really ran."""

from __future__ import annotations

import numpy as np
import pytest
from reference import layers
from reference.compare import assert_close, relative_l2
from reference.memory import in_use

import attnnet
import attnnet.functional as F
from attnnet import _core

# (N, C, H, W), (K, R, S), stride, padding, groups
BLOCKED = [
    ((2, 16, 8, 8), (16, 3, 3), 1, 1, 1),
    ((3, 32, 4, 4), (48, 3, 3), 1, 1, 1),
    ((1, 48, 7, 5), (32, 3, 3), 1, 0, 1),
    ((5, 16, 2, 2), (80, 3, 3), 1, 1, 1),
    ((2, 16, 1, 1), (32, 3, 3), 1, 1, 1),
    ((2, 64, 13, 11), (64, 3, 3), 1, 2, 1),
    ((2, 32, 1, 9), (16, 3, 3), 1, (1, 2), 1),
    ((1, 16, 33, 34), (16, 3, 3), 1, 1, 1),
    ((9, 80, 5, 5), (96, 3, 3), 1, 1, 1),
]
# Enough tiles that Winograd cuts the work by images.
MANY_TILES = [
    ((3, 16, 37, 38), (48, 3, 3), 1, 1, 1),
    ((19, 64, 13, 14), (32, 3, 3), 1, 1, 1),
    ((5, 32, 31, 29), (16, 3, 3), 1, (0, 2), 1),
]
# Images of 2 x 2 pixels have a form of their own; cut by channels, then by images.
PAIRS = [
    ((3, 32, 2, 2), (48, 3, 3), 1, 1, 1),
    ((1, 16, 2, 2), (16, 3, 3), 1, 1, 1),
    ((130, 48, 2, 2), (16, 3, 3), 1, 1, 1),
    ((130, 16, 2, 2), (144, 3, 3), 1, 1, 1),
]
STRIDE_2 = [
    ((3, 32, 16, 16), (64, 3, 3), 2, 1, 1),
    ((2, 16, 7, 9), (32, 3, 3), 2, 1, 1),
    ((1, 48, 8, 8), (80, 3, 3), 2, 1, 1),
    ((5, 16, 1, 2), (16, 3, 3), 2, 1, 1),
    ((2, 32, 13, 18), (48, 3, 3), 2, (2, 1), 1),
    ((1, 16, 6, 5), (16, 3, 3), 2, 2, 1),
    # Enough tiles that the work is cut by images.
    ((3, 32, 65, 66), (16, 3, 3), 2, 1, 1),
    ((11, 16, 31, 30), (48, 3, 3), 2, (1, 2), 1),
]
OTHER_KERNELS = [
    ((2, 32, 8, 8), (64, 1, 1), 1, 0, 1),
    ((9, 64, 4, 4), (32, 1, 1), 1, 0, 1),
    ((2, 16, 17, 13), (48, 1, 1), 1, 0, 1),
    ((2, 32, 8, 8), (64, 1, 1), 2, 0, 1),
    ((2, 16, 14, 14), (16, 7, 7), 3, 0, 1),
    ((1, 16, 12, 12), (32, 5, 3), (1, 2), (2, 0), 1),
    ((2, 16, 9, 9), (16, 1, 1), (4, 3), 0, 1),
    ((2, 16, 5, 5), (16, 2, 2), 3, 1, 1),
    ((1, 400, 3, 3), (272, 3, 3), 1, 1, 1),
    # Most taps fall into the padding: pixel by pixel, over many images.
    ((130, 16, 2, 2), (48, 3, 3), 1, 1, 1),
    ((15, 32, 1, 1), (16, 3, 3), 1, 1, 1),
    ((16, 16, 3, 2), (32, 5, 5), 2, 2, 1),
    ((14, 16, 1, 3), (16, 3, 1), (2, 1), (1, 1), 1),
    # So many pieces that neighbours share a task, and outputs that are written past the caches.
    ((33, 16, 65, 64), (16, 1, 1), 1, 0, 1),
]
IMAGES = [
    ((2, 3, 32, 32), (64, 3, 3), 1, 1, 1),
    ((1, 1, 28, 28), (16, 5, 5), 1, 2, 1),
    ((2, 3, 19, 23), (48, 7, 7), 2, 3, 1),
    ((3, 15, 6, 6), (32, 1, 1), 1, 0, 1),
]
ANY = [
    ((2, 2, 8, 8), (1, 7, 7), 1, 3, 1),
    ((2, 5, 7, 6), (7, 3, 2), (2, 1), (1, 0), 1),
    ((2, 12, 6, 6), (24, 3, 3), 1, 1, 3),
    ((2, 32, 6, 6), (32, 3, 3), 2, 1, 32),
    ((3, 20, 4, 4), (10, 1, 1), 1, 0, 1),
    ((2, 3, 2, 2), (3, 1, 1), 3, 4, 1),
]
CASES = (
    [("winograd", *c) for c in BLOCKED + MANY_TILES + PAIRS]
    + [("winograd_small", *c) for c in BLOCKED + MANY_TILES + PAIRS]
    + [("polyphase", *c) for c in STRIDE_2]
    + [("implicit_gemm", *c) for c in BLOCKED + STRIDE_2[:2] + OTHER_KERNELS]
    + [("stem", *c) for c in IMAGES]
    + [("im2col", *c) for c in ANY + IMAGES + BLOCKED[:3] + STRIDE_2[:2]]
)


@pytest.fixture
def force():
    """Sets the preferred algorithm for one test."""
    yield _core.set_convolution_algorithm
    _core.set_convolution_algorithm(None)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def plan(x_shape, w_shape, stride, padding, groups, keep=False):
    return _core.convolution_plan(x_shape, w_shape, pair(stride), pair(padding), groups, keep)


def operands(case, seed):
    x_shape, (k, r, s), *_, groups = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(x_shape).astype(np.float32)
    weight = rng.standard_normal((k, x_shape[1] // groups, r, s)).astype(np.float32)
    bias = rng.standard_normal(k).astype(np.float32)
    return rng, x, weight, bias


def seed_of(case):
    return sum(case[0]) * 31 + sum(case[1])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case, force):
    algorithm, x_shape, kernel, stride, padding, groups = case
    force(algorithm)
    seed = seed_of(case[1:])
    rng, x, weight, bias = operands(case[1:], seed)
    assert plan(x_shape, weight.shape, stride, padding, groups)["algorithm"] == algorithm
    y, backward = layers.conv2d(x, weight, bias, stride, padding, groups)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    expected = backward(dy.astype(np.float64))

    tensors = [attnnet.Tensor(a, requires_grad=True) for a in (x, weight, bias)]
    out = F.conv2d(*tensors, stride=stride, padding=padding, groups=groups)
    out.backward(attnnet.Tensor(dy))
    pixels = y.shape[0] * y.shape[2] * y.shape[3]
    name = f"{algorithm} (seed {seed})"
    assert_close(out, y, weight[0].size, f"{name} output")
    lengths = (kernel[0] * kernel[1] * kernel[2] // groups, pixels, pixels)
    for what, tensor, want, length in zip("xwb", tensors, expected, lengths, strict=True):
        assert_close(tensor.grad, want, length, f"{name} gradient of {what}")


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_only_what_is_wanted(case, force):
    """One gradient alone has the same bits as both together."""
    force(case[0])
    stride, padding, groups = case[3:]
    rng, x, weight, _ = operands(case[1:], 5)
    both = [attnnet.Tensor(a, requires_grad=True) for a in (x, weight)]
    out = F.conv2d(*both, None, stride, padding, groups)
    dy = attnnet.Tensor(rng.standard_normal(out.shape).astype(np.float32))
    out.backward(dy)
    for wanted in (0, 1):
        one = [attnnet.Tensor(a, requires_grad=i == wanted) for i, a in enumerate((x, weight))]
        F.conv2d(*one, None, stride, padding, groups).backward(dy)
        assert np.array_equal(one[wanted].grad.numpy(), both[wanted].grad.numpy())
        assert one[1 - wanted].grad is None


@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_fused_finish(case, force):
    force(case[0])
    stride, padding, groups = case[3:]
    rng, x, weight, bias = operands(case[1:], 7)
    y, _ = layers.conv2d(x, weight, bias, stride, padding, groups)
    residual = rng.standard_normal(y.shape).astype(np.float32)
    for use_bias in (True, False):
        for use_residual in (True, False):
            for relu in (True, False):
                expected = y - (0 if use_bias else bias.astype(np.float64)[:, None, None])
                expected = expected + (residual if use_residual else 0)
                got = _core.conv2d_fused(
                    attnnet.Tensor(x), attnnet.Tensor(weight),
                    attnnet.Tensor(bias) if use_bias else None,
                    attnnet.Tensor(residual) if use_residual else None,
                    relu, pair(stride), pair(padding), groups)
                expected = np.maximum(expected, 0) if relu else expected
                assert_close(got, expected, weight[0].size, f"{use_bias} {use_residual} {relu}")


def fused(x, weight, bias, case):
    stride, padding, groups = case[2:]
    return _core.conv2d_fused(x, weight, bias, None, True, pair(stride), pair(padding), groups)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kept_weights(case, force):
    """The bits are those of weights as they come; made once, with any number of threads."""
    force(case[0])
    _, *arrays = operands(case[1:], 13)
    x, weight, bias = (attnnet.Tensor(a) for a in arrays)
    expected = fused(x, weight, bias, case[1:]).numpy()
    kept, usual = _core.keep_weights(weight), attnnet.get_num_threads()
    size = plan(case[1], weight.shape, *case[3:], True)["kept_bytes"]
    assert (size > 0) == (case[0] != "im2col")
    try:
        for threads in (1, 2, 3):
            attnnet.set_num_threads(threads)
            before = in_use()
            assert np.array_equal(fused(x, kept, bias, case[1:]).numpy(), expected)
            made = in_use() - before
            assert made >= size if threads == 1 else made == 0
    finally:
        attnnet.set_num_threads(usual)
    before = in_use()
    del kept
    assert before - in_use() >= size


# One image of stages 1 to 5 of the networks, and their steps of stride 2.
ONE_IMAGE = [
    ((1, 64, 32, 32), (64, 3, 3), 1, 1, 1),
    ((1, 128, 16, 16), (128, 3, 3), 1, 1, 1),
    ((1, 256, 8, 8), (256, 3, 3), 1, 1, 1),
    ((1, 512, 4, 4), (512, 3, 3), 1, 1, 1),
    ((7, 512, 2, 2), (512, 3, 3), 1, 1, 1),
    ((1, 64, 32, 32), (128, 3, 3), 2, 1, 1),
    ((1, 256, 8, 8), (512, 3, 3), 2, 1, 1),
    ((1, 128, 16, 16), (256, 1, 1), 2, 0, 1),
]


@pytest.mark.parametrize("case", ONE_IMAGE, ids=str)
def test_kept_weights_choose_their_own_algorithm(case):
    """Maybe another algorithm than in training: as near to the twin, on one core or more."""
    _, *arrays = operands(case, 17)
    y, _ = layers.conv2d(*arrays, *case[2:])
    x, weight, bias = (attnnet.Tensor(a) for a in arrays)
    kept, before, results = _core.keep_weights(weight), attnnet.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            attnnet.set_num_threads(threads)
            results.append(fused(x, kept, bias, case))
    finally:
        attnnet.set_num_threads(before)
    terms = weight.numpy()[0].size
    assert relative_l2(results[0].numpy(), np.maximum(y, 0)) <= 7e-8 * np.sqrt(terms)
    for other in results[1:]:
        assert np.array_equal(results[0].numpy(), other.numpy())


@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_same_bits_with_any_number_of_threads(case, force):
    force(case[0])
    stride, padding, groups = case[3:]
    rng, x, weight, bias = operands(case[1:], 11)
    before, results = attnnet.get_num_threads(), []
    dy = None
    try:
        for threads in (1, 2, 5):
            attnnet.set_num_threads(threads)
            tensors = [attnnet.Tensor(a, requires_grad=True) for a in (x, weight, bias)]
            out = F.conv2d(*tensors, stride=stride, padding=padding, groups=groups)
            dy = rng.standard_normal(out.shape) if dy is None else dy
            out.backward(attnnet.Tensor(dy))
            results.append([out.numpy(), *(t.grad.numpy() for t in tensors)])
    finally:
        attnnet.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("algorithm", _core.convolution_algorithms())
def test_poisoned_memory(algorithm, force):
    """What lies in the workspace from before must not matter."""
    force(algorithm)
    case = next(c for c in CASES if c[0] == algorithm)
    stride, padding, groups = case[3:]
    _, x, weight, _ = operands(case[1:], 3)
    results = []
    for poison in (0.0, np.nan):
        waste = [attnnet.Tensor(np.full(1 << s, poison, np.float32)) for s in range(4, 22)]
        waste += [attnnet.Tensor(np.full(3 << s, poison, np.float32)) for s in range(4, 21)]
        del waste
        tensors = [attnnet.Tensor(a, requires_grad=True) for a in (x, weight)]
        out = F.conv2d(*tensors, None, stride, padding, groups)
        out.backward(attnnet.Tensor(np.ones(out.shape, np.float32)))
        results.append([out.numpy(), *(t.grad.numpy() for t in tensors)])
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("algorithm", _core.convolution_algorithms())
def test_empty_batch(algorithm, force):
    force(algorithm)
    c, k = {"stem": (3, 16), "im2col": (5, 7)}.get(algorithm, (16, 32))
    stride = 2 if algorithm == "polyphase" else 1
    assert plan((0, c, 8, 8), (k, c, 3, 3), stride, 1, 1)["algorithm"] == algorithm
    x = attnnet.Tensor(np.zeros((0, c, 8, 8)), requires_grad=True)
    weight = attnnet.Tensor(np.ones((k, c, 3, 3)), requires_grad=True)
    bias = attnnet.Tensor(np.ones(k), requires_grad=True)
    y = F.conv2d(x, weight, bias, stride, padding=1)
    assert y.shape == (0, k, 8 // stride, 8 // stride)
    y.sum().backward()
    assert x.grad.shape == (0, c, 8, 8)
    assert not weight.grad.numpy().any()
    assert not bias.grad.numpy().any()


@pytest.mark.parametrize(
    ("algorithm", "stride", "rate"),
    [("winograd", 1, 7e-8), ("winograd_small", 1, 7e-8), ("implicit_gemm", 1, 3.5e-8),
     ("im2col", 1, 3.5e-8), ("polyphase", 2, 6.2e-8), ("implicit_gemm", 2, 3.5e-8)],
)
@pytest.mark.parametrize("shape", [(4, 64, 32), (16, 128, 8), (16, 512, 4)], ids=str)
def test_error_against_float64(algorithm, stride, rate, shape, force):
    """The relative error is a random walk over the summed terms; `rate` is twice what was measured.

    Measured as ||error|| / ||result|| / sqrt(terms): Winograd 3.5e-8 for the output and the input
    gradient (of small tiles 1.1e-8 for the output), polyphase 1.6e-8 and 3.1e-8, direct sums
    1.7e-8; the weight gradient is not above.
    """
    force(algorithm)
    n, c, h = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c, h, h)).astype(np.float32)
    weight = (rng.standard_normal((64, c, 3, 3)) / np.sqrt(9 * c)).astype(np.float32)
    y, backward = layers.conv2d(x, weight, None, stride, 1)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx, dw, _ = backward(dy.astype(np.float64))
    a, b = attnnet.Tensor(x, requires_grad=True), attnnet.Tensor(weight, requires_grad=True)
    out = F.conv2d(a, b, None, stride, 1)
    out.backward(attnnet.Tensor(dy))
    pixels = n * y.shape[2] * y.shape[3]
    for name, got, expected, terms in (("output", out, y, 9 * c),
                                       ("dx", a.grad, dx, 9 * 64 / stride**2),
                                       ("dw", b.grad, dw, pixels)):
        error = relative_l2(got.numpy(), expected) / np.sqrt(terms)
        assert error <= rate, f"{algorithm} {name}: {error:.2e}"


def test_choice():
    """What the plan prefers where nothing is forced."""
    for expected, x, w, stride, padding, groups in [
        ("winograd", (8, 64, 32, 32), (128, 64, 3, 3), 1, 1, 1),
        ("polyphase", (8, 64, 32, 32), (128, 64, 3, 3), 2, 1, 1),
        ("polyphase", (1, 256, 8, 8), (512, 256, 3, 3), 2, 1, 1),
        ("implicit_gemm", (8, 64, 12, 12), (128, 64, 3, 3), 2, 1, 1),
        ("implicit_gemm", (8, 64, 32, 32), (128, 64, 3, 3), 2, 0, 1),
        ("implicit_gemm", (8, 64, 32, 32), (128, 64, 3, 3), (2, 1), 1, 1),
        ("winograd", (128, 512, 2, 2), (512, 512, 3, 3), 1, 1, 1),
        ("implicit_gemm", (128, 512, 1, 2), (512, 512, 3, 3), 1, 1, 1),
        ("implicit_gemm", (8, 64, 32, 32), (128, 64, 1, 1), 1, 0, 1),
        ("stem", (8, 3, 32, 32), (64, 3, 3, 3), 1, 1, 1),
        ("im2col", (8, 64, 32, 32), (64, 1, 3, 3), 1, 1, 64),
        ("im2col", (8, 64, 32, 32), (10, 64, 1, 1), 1, 0, 1),
    ]:
        assert plan(x, w, stride, padding, groups)["algorithm"] == expected


@pytest.mark.parametrize("cases", [BLOCKED + MANY_TILES, STRIDE_2], ids=["winograd", "polyphase"])
def test_winograd_cuts(cases, force):
    """Both ways of cutting the work are among the cases."""
    force("winograd" if cases[0][2] == 1 else "polyphase")
    plans = [
        plan(x, (k, x[1], 3, 3), stride, padding, groups)
        for x, (k, *_), stride, padding, groups in cases
    ]
    for which in ("forward", "backward"):
        assert {p[which]["by_channels"] for p in plans} == {True, False}


def test_large_outputs(force):
    """Outputs too large for the caches are written around them: the same numbers."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((18, 16, 96, 96)).astype(np.float32)
    for name, weight_shape, stride in (("winograd", (16, 16, 3, 3), 1),
                                       ("polyphase", (64, 16, 3, 3), 2),
                                       ("implicit_gemm", (16, 16, 2, 2), 2)):
        force(name)
        weight = attnnet.Tensor(rng.standard_normal(weight_shape), requires_grad=True)

        def run(batch, weight=weight, stride=stride):
            batch = attnnet.Tensor(batch, requires_grad=True)
            y = F.conv2d(batch, weight, None, stride, 1)
            y.sum().backward()
            return y.numpy(), batch.grad.numpy()

        whole = run(x)
        assert max(result.size for result in whole) > 1 << 21
        for got, *pieces in zip(whole, *(run(x[i : i + 1]) for i in range(18)), strict=True):
            assert np.array_equal(got, np.concatenate(pieces))


def test_choice_with_kept_weights():
    """Few outputs read the weights once, as they are; transformed ones are kept where they are not
    large."""
    for expected, multiple, x, k, stride in [
        ("winograd", 4, (1, 64, 32, 32), 64, 1),
        ("winograd", 4, (128, 64, 32, 32), 64, 1),
        ("winograd", 4, (8, 256, 8, 8), 256, 1),
        ("winograd", 1, (128, 512, 4, 4), 512, 1),
        ("winograd_small", 1, (1, 512, 4, 4), 512, 1),
        ("winograd_small", 1, (1, 256, 8, 8), 256, 1),
        ("implicit_gemm", 1, (1, 512, 2, 2), 512, 1),
        ("polyphase", 4, (1, 64, 32, 32), 128, 2),
        ("implicit_gemm", 1, (1, 256, 8, 8), 512, 2),
    ]:
        got = plan(x, (k, x[1], 3, 3), stride, 1, 1, True)
        assert got["algorithm"] == expected
        assert 0 <= got["kept_bytes"] - multiple * 4 * 9 * x[1] * k <= 320 * 36 * (k // 32)


def test_forcing():
    with pytest.raises(ValueError, match=r"'winogrod', expected one of .*im2col"):
        _core.set_convolution_algorithm("winogrod")


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        ((2, 3, 8), (4, 3, 3, 3), {}, r"x has shape \(2, 3, 8\), expected \(N, C, H, W\)"),
        ((2, 3, 8, 8), (4, 3), {}, r"weight has shape \(4, 3\), expected \(K, C/groups, R, S\)"),
        ((2, 3, 8, 8), (4, 5, 3, 3), {}, r"has shape \(4, 5, 3, 3\), expected \(K, 3, R, S\)"),
        ((2, 3, 2, 8), (4, 3, 3, 3), {}, r"\(4, 3, 3, 3\), expected a kernel .* at most 2 x 8"),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"stride": 0}, r"stride is \(0, 0\), expected 1 or more"),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"padding": -1}, r"padding is \(-1, -1\), expected 0 or more"),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"groups": 2}, r"groups is 2, which must divide"),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"groups": 0}, r"groups is 0, expected 1 or more"),
    ],
    ids=str,
)
def test_wrong_arguments(x, weight, options, message):
    with pytest.raises(ValueError, match=message):
        F.conv2d(attnnet.Tensor(np.zeros(x)), attnnet.Tensor(np.zeros(weight)), None, **options)


def test_wrong_bias():
    x, weight = attnnet.Tensor(np.zeros((1, 3, 4, 4))), attnnet.Tensor(np.zeros((4, 3, 3, 3)))
    with pytest.raises(ValueError, match=r"bias has shape \(3,\), expected \(4,\)"):
        F.conv2d(x, weight, attnnet.Tensor(np.zeros(3)))
