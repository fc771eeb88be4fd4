"""Elementwise operations: values, gradients, broadcasting, layouts, special values."""

from __future__ import annotations

import numpy as np
import pytest
from reference import ops
from reference.gradcheck import gradcheck
from reference.harness import LAYOUTS, can_block, check, distinct, draw, layouts_of, make

import attnnet
from attnnet import functional as F

SHAPES = [
    (),
    (1,),
    (7,),
    (3, 1),
    (2, 3, 5),
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (2, 16, 3, 3),
    (3, 48, 5, 4),
]
SHAPES += [(0, 16, 4, 4), (2, 0, 3), (2, 2, 2, 2, 3), (1, 100_003)]

UNARY = {
    "relu": lambda seed, *s: distinct(seed, *s),
    "sigmoid": lambda seed, *s: draw(seed, *s) * 4,
    "tanh": lambda seed, *s: draw(seed, *s) * 2,
    "exp": lambda seed, *s: draw(seed, *s),
    "log": lambda seed, *s: draw(seed, *s, low=0.1, high=5),
    "sqrt": lambda seed, *s: draw(seed, *s, low=0.1, high=5),
    "abs": lambda seed, *s: distinct(seed, *s),
}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_unary(name, shape):
    for layout in layouts_of(shape):
        x = UNARY[name](1, *shape)
        y = check(getattr(F, name), getattr(ops, name), [x], length=4, layout=layout)
        if layout == "blocked16" and x.size:
            assert y.layout == layout, "elementwise operations keep the layout"


@pytest.mark.parametrize("name", UNARY)
def test_unary_finite_differences(name):
    gradcheck(getattr(F, name), getattr(ops, name), [UNARY[name](2, 3, 4)], length=4)


def test_methods_are_the_functions():
    x = attnnet.Tensor(draw(1, 2, 5, low=0.2, high=2))
    for name in UNARY:
        if hasattr(x, name):
            np.testing.assert_array_equal(getattr(x, name)().numpy(), getattr(F, name)(x).numpy())


EDGES = np.array([0.0, -0.0, 1e-40, 1e-30, 80, 100, -80, -100, -200, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "exp", "abs"])
def test_far_ends_and_nan(name):
    """Vectorised exp and its kin: saturation, overflow to infinity, NaN stays NaN."""
    edges = np.tile(EDGES, 3).astype(np.float32)  # long enough for vector and remainder
    with np.errstate(over="ignore"):
        expected, _ = getattr(ops, name)(edges)
        expected = expected.astype(np.float32)
    got = getattr(F, name)(attnnet.Tensor(edges)).numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
    fine = np.isfinite(expected)
    np.testing.assert_allclose(got[fine], expected[fine], rtol=4e-6, atol=1e-37)


def test_exp_is_accurate_in_every_binade():
    x = np.linspace(-87, 88, 20_011, dtype=np.float32)
    got = F.exp(attnnet.Tensor(x)).numpy().astype(np.float64)
    error = np.abs(got / np.exp(x.astype(np.float64)) - 1).max()
    assert error <= 4 * 2**-24 + 2e-7, error


def test_tanh_and_sigmoid_keep_relative_accuracy():
    small = np.concatenate([np.logspace(-20, 0.5, 3001), -np.logspace(-20, 0.5, 3001)])
    small = small.astype(np.float32)
    got = F.tanh(attnnet.Tensor(small)).numpy().astype(np.float64)
    error = np.abs(got / np.tanh(small.astype(np.float64)) - 1).max()
    assert error <= 1e-6, f"tanh near zero: {error:.1e}"
    tail = np.linspace(-80, 0, 5001, dtype=np.float32)
    got = F.sigmoid(attnnet.Tensor(tail)).numpy().astype(np.float64)
    expected, _ = ops.sigmoid(tail)
    error = np.abs(got / expected - 1).max()
    assert error <= 1e-6, f"sigmoid's tail: {error:.1e}"


def test_log_and_sqrt_outside_their_domain():
    x = np.tile(np.array([0.0, -1.0, np.inf, np.nan], np.float32), 5)
    with np.errstate(all="ignore"):
        for name, expected in (("log", np.log(x)), ("sqrt", np.sqrt(x))):
            np.testing.assert_array_equal(getattr(F, name)(attnnet.Tensor(x)).numpy(), expected)


def test_gradient_at_the_kinks():
    for name in ("relu", "abs"):
        leaf = attnnet.Tensor(np.zeros(19), requires_grad=True)
        getattr(F, name)(leaf).sum().backward()
        np.testing.assert_array_equal(leaf.grad.numpy(), np.zeros(19))


def test_every_relu_passes_the_gradient_at_nan():
    """As PyTorch's does: what went wrong shows in the gradients, too."""
    images = draw(5, 2, 16, 3, 3)
    images[1, 3, 1, 1] = np.nan
    ones = attnnet.Tensor(np.ones(16))
    zeros = attnnet.Tensor(np.zeros(16))
    passes = np.where(np.isnan(images), 1.0, images > 0).astype(np.float32)
    for work in (
        F.relu,
        lambda x: F.batch_norm(x, zeros, ones, eps=0.0, relu=True),
        lambda x: F.batch_norm(x, zeros, ones, eps=0.0, relu=True, residual=x * 0.0),
    ):
        for channels in (16, 15):
            x = attnnet.Tensor(images[:, :channels], requires_grad=True)
            if channels == 15 and work is not F.relu:
                continue
            work(x).backward(np.ones(x.shape))
            np.testing.assert_array_equal(x.grad.numpy(), passes[:, :channels])
    w1, b1, w2, b2 = (attnnet.Tensor(draw(seed, *shape), requires_grad=True) for seed, shape
                      in enumerate(((4, 16, 1, 1), (4,), (16, 4, 1, 1), (16,))))
    F.sec(attnnet.Tensor(images), w1, b1, w2, b2).sum().backward()
    assert np.isnan(b1.grad.numpy()).all(), "the ReLU within the gate"


@pytest.mark.parametrize("shape", [(5,), (2, 16, 3, 5), (0, 3)], ids=str)
@pytest.mark.parametrize(
    "bounds", [{"min": -0.1}, {"max": 0.2}, {"min": -0.1, "max": 0.2}], ids=str
)
def test_clamp(shape, bounds):
    for layout in layouts_of(shape):
        check(
            lambda x: F.clamp(x, **bounds),
            lambda x: ops.clamp(x, **bounds),
            [distinct(3, *shape)],
            layout=layout,
        )


def test_clamp_passes_the_gradient_on_its_bounds():
    leaf = attnnet.Tensor([-1.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    F.clamp(leaf, 0.0, 1.0).sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), [0, 1, 1, 1, 0])


def test_clamp_without_bounds_is_refused():
    with pytest.raises(ValueError, match="min"):
        F.clamp(attnnet.Tensor([1.0]))


# ---- two operands ---------------------------------------------------------------------------

PAIRS = [
    ((), ()),
    ((3,), ()),
    ((), (2, 3)),
    ((7,), (1,)),
    ((4, 1), (1, 5)),
    ((3, 1, 4), (5, 1)),
    ((2, 3, 5, 7), (2, 3, 5, 7)),
    ((2, 16, 3, 5), (2, 16, 3, 5)),
    ((2, 16, 3, 5), (2, 16, 1, 1)),  # a channel gate
    ((2, 16, 3, 5), (2, 1, 3, 5)),  # a spatial gate
    ((2, 1, 3, 5), (2, 16, 3, 5)),
    ((2, 32, 3, 5), (32, 1, 1)),
    ((2, 32, 3, 5), (1, 32, 1, 1)),
    ((2, 32, 3, 5), ()),
    ((2, 32, 4, 5), (5,)),
    ((2, 32, 4, 5), (2, 32, 4, 1)),  # coordinate attention
    ((2, 32, 4, 1), (2, 32, 1, 5)),
    ((1, 16, 3, 3), (4, 16, 3, 3)),
    ((0, 16, 3, 3), (16, 1, 1)),
    ((0, 3), (1, 3)),
    ((2, 1, 3, 1, 2), (4, 1, 3, 1)),
]
BINARY = {
    "add": (draw, draw),
    "sub": (draw, draw),
    "mul": (draw, draw),
    "div": (draw, lambda seed, *s: draw(seed, *s, low=0.5, high=2)),
    "pow": (lambda seed, *s: draw(seed, *s, low=0.5, high=2), draw),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_binary(name, pair):
    first, second = (
        draw_it(i, *s) for i, (draw_it, s) in enumerate(zip(BINARY[name], pair, strict=True))
    )
    size = int(np.prod(np.broadcast_shapes(*pair)))
    lengths = [max(1, size // max(1, a.size)) + 4 for a in (first, second)]
    scales = [float(np.sqrt(l)) for l in lengths]  # sums of terms of size one, which may cancel
    for layout in layouts_of(*pair):
        check(
            getattr(F, name),
            getattr(ops, name),
            [first, second],
            length=4,
            lengths=lengths,
            scales=scales,
            layout=layout,
        )


@pytest.mark.parametrize("name", BINARY)
def test_binary_finite_differences(name):
    arrays = [
        draw_it(i, *s)
        for i, (draw_it, s) in enumerate(zip(BINARY[name], ((3, 1), (2,)), strict=True))
    ]
    gradcheck(getattr(F, name), getattr(ops, name), arrays, length=9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mixed_layouts(layout):
    """One operand blocked, the other plain, of the same shape, either way round."""
    x, y = draw(1, 2, 16, 3, 3), draw(2, 2, 16, 3, 3)
    other = "plain" if layout == "blocked16" else "blocked16"
    a, b = make(x, layout, requires_grad=True), make(y, other, requires_grad=True)
    out = a * b
    np.testing.assert_array_equal(out.numpy(), x * y)
    out.backward(attnnet.Tensor(np.ones_like(x)))
    np.testing.assert_array_equal(a.grad.numpy(), y)
    np.testing.assert_array_equal(b.grad.numpy(), x)


def test_operators_and_numbers():
    x = draw(1, 3, 4, low=0.5, high=2)
    t = attnnet.Tensor(x)
    pairs = [
        (t + 2, x + 2), (2 + t, 2 + x), (t - 2, x - 2), (2 - t, 2 - x), (t * 3, x * 3),
        (3 * t, 3 * x), (t / 4, x / 4), (4 / t, 4 / x), (t**2, x**2), (2**t, 2**x), (-t, -x),
        (t @ t.transpose(0, 1), x @ x.T), (t**0.5, x**0.5), (t**-1, 1 / x),
    ]  # fmt: skip
    for i, (got, expected) in enumerate(pairs):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, err_msg=f"pair {i}")


def test_one_tensor_twice():
    x = draw(1, 5)
    for function, derivative in (
        (lambda t: t * t, 2 * x),
        (lambda t: t + t, np.full(5, 2.0)),
        (lambda t: t - t, np.zeros(5)),
        (lambda t: t / t, np.zeros(5)),
    ):
        leaf = attnnet.Tensor(x, requires_grad=True)
        function(leaf).sum().backward()
        np.testing.assert_allclose(leaf.grad.numpy(), derivative, rtol=1e-6, atol=1e-6)


def test_power_at_zero():
    leaf = attnnet.Tensor([0.0, 0.0, 2.0], requires_grad=True)
    (leaf**2).sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), [0, 0, 4])
    leaf = attnnet.Tensor([-2.0, 3.0], requires_grad=True)
    (leaf**3).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), [12, 27], rtol=1e-6)


@pytest.mark.parametrize("name", BINARY)
def test_shapes_that_do_not_broadcast_are_refused(name):
    with pytest.raises(ValueError) as error:
        getattr(F, name)(attnnet.Tensor(np.ones((2, 3))), attnnet.Tensor(np.ones((2, 4))))
    assert "(2, 3)" in str(error.value) and "(2, 4)" in str(error.value)


def test_strings_are_refused():
    with pytest.raises(TypeError):
        attnnet.Tensor([1.0]) + "1"


def test_blocked_tensors_reach_numpy_in_order():
    x = draw(1, 2, 32, 3, 5)
    assert can_block(x)
    np.testing.assert_array_equal(make(x, "blocked16").numpy(), x)
