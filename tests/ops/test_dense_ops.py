"""Batch norm, pools, softmax, products, dropout: what the comparison with the twins on ordinary
inputs does not reach. Hard numbers, sizes at which the core cuts its work or changes its way of
writing, any number of threads, messages."""

from __future__ import annotations

import numpy as np
import pytest
from reference import ops
from reference.compare import EPS32, assert_close

import attnnet
from attnnet import _core
from attnnet import functional as F

LAYOUTS = ("plain", "blocked16")


def leaf(values, layout="plain") -> attnnet.Tensor:
    tensor = _core.to_layout(attnnet.Tensor(values), layout)
    tensor.requires_grad = True
    return tensor


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def gradients(y, dy, *leaves) -> list[np.ndarray]:
    y.backward(attnnet.Tensor(dy))
    return [x.grad.numpy() for x in leaves]


# ---- batch norm -----------------------------------------------------------------------------


def outliers(rng, shape):
    """Mostly zeros, with a few huge values: often among those that the shift is the mean of."""
    x = rng.normal(size=shape)
    x[:, :, 0, 0] = 1e4
    return x


HARD = {
    "mean 1e4, deviation 1": lambda rng, shape: rng.normal(size=shape) + 1e4,
    "mean -3e3, deviation 0.01": lambda rng, shape: 0.01 * rng.normal(size=shape) - 3e3,
    "a mean of its own for each channel": lambda rng, shape: (
        rng.normal(size=shape) + 1e4 * rng.normal(size=(1, shape[1], 1, 1))
    ),
    "outliers": outliers,
    "drifting": lambda rng, shape: (
        rng.normal(size=shape) + 100 * np.arange(shape[0]).reshape(-1, 1, 1, 1)
    ),
    "tiny": lambda rng, shape: 1e-18 * rng.normal(size=shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(64, 16, 4, 4), (8, 16, 33, 31), (2, 32, 100, 90)], ids=str)
@pytest.mark.parametrize("case", HARD)
def test_batch_norm_of_hard_numbers(case, shape, layout):
    x = HARD[case](np.random.default_rng(5), shape).astype(np.float32)
    one, zero = np.ones(shape[1]), np.zeros(shape[1])
    want, backward = ops.batch_norm(x, zero, one, one, zero, training=True)
    stats = attnnet.Tensor(zero), attnnet.Tensor(one)
    tensor = leaf(x, layout)
    y = F.batch_norm(tensor, *stats, training=True)
    assert y.layout == layout
    # x is given to half a unit in its last place; what the core adds to that is a small multiple
    x64 = x.astype(np.float64)
    deviation = np.sqrt(x64.var(axis=(0, 2, 3), keepdims=True) + 1e-5)
    error = np.abs(y.numpy() - want)
    bound = 16 * EPS32 * (1 + np.abs(want))
    assert (error <= bound).all(), (error / bound).max()
    mean, var = ops.batch_norm_running(x, zero, one)
    assert_close(stats[0], mean, 1, "running mean", scale=deviation.max() / 10)
    assert_close(stats[1], var, 16, "running variance")
    dy = normal(6, *shape)
    (dx,) = gradients(y, dy, tensor)
    # its terms: dy, its mean, and y times a mean of dy * y, which is at most max |dy|
    bound = 8 * EPS32 / deviation * (2 + np.abs(want)) * np.abs(dy).max()
    error = np.abs(dx - backward(dy)[0])
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 16, 260, 260), (96, 64, 24, 24), (1, 48, 9, 1025)], ids=str)
def test_batch_norm_of_many_pieces(shape, layout):
    """Rows of several chunks, tensors of several tasks, results written past the caches."""
    x, residual, dy = normal(1, *shape), normal(2, *shape), normal(3, *shape)
    weight, bias = 1 + 0.2 * normal(4, shape[1]), normal(5, shape[1])
    want, backward = ops.batch_norm(
        x, None, None, weight, bias, training=True, residual=residual, relu=True
    )
    leaves = leaf(x, layout), leaf(weight), leaf(bias), leaf(residual)
    y = F.batch_norm(leaves[0], None, None, *leaves[1:3], True, residual=leaves[3], relu=True)
    assert_close(y, want, 16, "y")
    dy[np.abs(want) < 1e-4] = 0  # on the kink either gradient is right
    count = x[:, 0].size
    names = ("dx", "dweight", "dbias", "dresidual")
    scales = (1, np.sqrt(count), np.sqrt(count), 1)
    got = gradients(y, dy, *leaves)
    for name, mine, twin, scale in zip(names, got, backward(dy), scales, strict=True):
        assert_close(mine, twin, 16 if scale == 1 else count, name, scale)


def test_batch_norm_in_evaluation_keeps_its_own_statistics():
    """The gradient is that of the pass that was made, whatever happened to the statistics since."""
    x, weight = normal(0, 4, 16, 3, 3), normal(3, 16)
    mean, var = normal(1, 16), 1 + normal(2, 16) ** 2
    stats = attnnet.Tensor(mean), attnnet.Tensor(var)
    leaves = leaf(x, "blocked16"), leaf(weight)
    y = F.batch_norm(leaves[0], *stats, leaves[1])
    stats[0].copy_(np.zeros(16))
    stats[1].copy_(np.ones(16))
    want, backward = ops.batch_norm(x, mean, var, weight, np.zeros(16))
    dy = normal(4, *x.shape)
    got = gradients(y, dy, *leaves)
    assert_close(y, want)
    for mine, twin in zip(got, backward(dy), strict=False):
        assert_close(mine, twin, 36, scale=6)


def test_batch_norm_raises_the_version_of_running_statistics():
    stats = attnnet.Tensor(np.zeros(3)), attnnet.Tensor(np.ones(3))
    x = attnnet.Tensor(normal(0, 2, 3, 2, 2))
    before = [s.version for s in stats]
    F.batch_norm(x, *stats)
    assert [s.version for s in stats] == before
    F.batch_norm(x, *stats, training=True)
    assert all(s.version > v for s, v in zip(stats, before, strict=True))


@pytest.mark.parametrize("shape", [(6, 5), (33, 16), (5, 3, 7), (2, 4, 3, 2, 2)], ids=str)
def test_batch_norm_of_other_dimensions(shape):
    x, dy = normal(0, *shape), normal(1, *shape)
    weight, bias = normal(2, shape[1]), normal(3, shape[1])
    leaves = leaf(x), leaf(weight), leaf(bias)
    y = F.batch_norm(leaves[0], None, None, *leaves[1:], True)
    want, backward = ops.batch_norm(x, None, None, weight, bias, training=True)
    assert_close(y, want, x.size)
    for mine, twin in zip(gradients(y, dy, *leaves), backward(dy), strict=True):
        assert_close(mine, twin, x.size, scale=2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_keeps_nan_to_its_channel(layout):
    x = normal(0, 2, 16, 4, 4)
    x[1, 3, 2, 2] = np.nan
    y = F.batch_norm(leaf(x, layout), None, None, training=True, relu=True).numpy()
    assert np.isnan(y[:, 3]).all()
    assert not np.isnan(np.delete(y, 3, axis=1)).any()


# ---- pools ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pool", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((96, 64, 24, 24), (2,)),  # results written past the caches
        ((2, 16, 30, 21), ((18, 17), 3, (9, 8))),  # places do not fit a byte
        ((3, 16, 7, 9), ((1, 1),)),
        ((3, 16, 9, 7), ((2, 3), (3, 4))),  # positions that no window reaches
    ],
    ids=str,
)
def test_pools_of_unusual_sizes(shape, options, pool, layout):
    x = np.round(normal(1, *shape) * 2)  # ties abound
    tensor = leaf(x, layout)
    y = getattr(F, pool)(tensor, *options)
    want, backward = getattr(ops, pool)(x, *options)
    assert_close(y, want, 18)
    assert y.layout == layout
    dy = normal(2, *want.shape)
    assert_close(gradients(y, dy, tensor)[0], backward(dy)[0], 36)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pool", ["adaptive_max_pool2d", "adaptive_avg_pool2d"])
@pytest.mark.parametrize("size", [1, 32, (16, 8), (7, 33), (40, 3)], ids=str)
def test_adaptive_pools_of_unusual_sizes(size, pool, layout):
    x = np.round(normal(1, 3, 16, 32, 32) * 2)
    tensor = leaf(x, layout)
    y = getattr(F, pool)(tensor, size)
    want, backward = getattr(ops, pool)(x, size)
    assert_close(y, want, 32)
    dy = normal(2, *want.shape)
    assert_close(gradients(y, dy, tensor)[0], backward(dy)[0], 4)


# ---- softmax and the cross entropy ----------------------------------------------------------


def test_softmax_of_only_minus_infinity_is_nan_and_of_some_is_not():
    x = np.full((2, 5), -np.inf, np.float32)
    x[1, 2:4] = 3
    y = F.softmax(attnnet.Tensor(x), 1).numpy()
    assert np.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1], [0, 0, 0.5, 0.5, 0])


def test_cross_entropy_is_exact_far_from_zero():
    logits = (normal(0, 50, 37) + 1e5).astype(np.float32)
    target = np.arange(50) % 37
    tensor = leaf(logits)
    loss = F.cross_entropy(tensor, target, 0.1)
    want, backward = ops.cross_entropy(logits, target, 0.1)
    assert_close(loss, want)
    loss.backward()
    assert_close(tensor.grad, backward(1.0)[0], 4)


@pytest.mark.parametrize(
    ("shape", "target", "words"),
    [
        ((2, 3), [0, 7], ["target[1]", "7", "K = 3"]),
        ((2, 3), [-100, 0], ["target[0]", "-100"]),
        ((0, 3), [], ["(0, 3)", "empty batch"]),
        ((2, 3, 4), [0, 1], ["(2, 3, 4)", "(N, K)"]),
        ((2, 3), [0, 1, 2], ["(3,)", "(2,)"]),
    ],
    ids=str,
)
def test_cross_entropy_says_what_is_wrong(shape, target, words):
    with pytest.raises(ValueError) as error:
        F.cross_entropy(attnnet.Tensor(np.zeros(shape)), np.array(target, np.int64))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ([0.0, 1.0], r"target must hold integers, .* got dtype\('float64'\)$"),
        (attnnet.Tensor([0, 1]), r"got dtype\('float32'\) \(a Tensor is float32\)$"),
    ],
)
def test_cross_entropy_wants_integers(target, words):
    with pytest.raises(TypeError, match=words):
        F.cross_entropy(attnnet.Tensor(np.zeros((2, 3))), target)


# ---- products -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(128, 512, 512), (128, 2048, 100), (1, 700, 1000), (999, 3, 17)]
)
def test_linear_of_sizes_that_are_cut_into_tiles(rows, inner, columns):
    x, weight, bias = normal(0, rows, inner), normal(1, columns, inner), normal(2, columns)
    dy = normal(3, rows, columns)
    leaves = leaf(x), leaf(weight), leaf(bias)
    y = F.linear(*leaves)
    want, backward = ops.linear(x, weight, bias)
    assert_close(y, want, inner)
    lengths = columns, rows, rows
    for mine, twin, n in zip(gradients(y, dy, *leaves), backward(dy), lengths, strict=True):
        assert_close(mine, twin, n)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: F.linear(t(2, 3), t(5, 4)), ["x", "(2, 3)", "(..., 4)", "(5, 4)"]),
        (lambda t: F.linear(t(2, 3), t(3)), ["weight", "(3,)", "(K, C)"]),
        (lambda t: F.linear(t(2, 3), t(5, 3), t(3)), ["bias", "(3,)", "(5,)"]),
        (lambda t: F.matmul(t(2, 3), t(4, 5)), ["(2, 3)", "(4, 5)", "3 columns", "4 rows"]),
        (lambda t: F.batch_norm(t(2, 3), t(3), t(4)), ["running_var", "(4,)", "(3,)"]),
        (lambda t: F.batch_norm(t(2, 3), None, t(3)), ["running_mean", "None", "(3,)"]),
        (lambda t: F.batch_norm(t(4), None, None, training=True), ["(4,)", "(N, C, ...)"]),
        (lambda t: F.max_pool2d(t(1, 1, 4, 4), 2, padding=2), ["padding", "2", "kernel_size"]),
        (lambda t: F.max_pool2d(t(1, 1, 4, 4), (2, 5)), ["width", "5", "at most 4"]),
        (lambda t: F.adaptive_avg_pool2d(t(1, 1, 4, 4), 0), ["adaptive_avg_pool2d", "(0, 0)"]),
        (lambda t: F.adaptive_max_pool2d(t(1, 4), 1), ["adaptive_max_pool2d", "(1, 4)"]),
    ],
)
def test_messages_name_what_came_and_what_was_expected(call, words):
    with pytest.raises(ValueError) as error:
        call(lambda *shape: attnnet.Tensor(np.ones(shape)))
    for word in words:
        assert word in str(error.value), str(error.value)


# ---- dropout --------------------------------------------------------------------------------


def test_dropout_depends_on_seed_counter_and_element_alone():
    x = 1 + np.abs(normal(0, 3, 32, 9, 11))
    first = _core.dropout(attnnet.Tensor(x), 0.3, 7, 9)
    blocked = _core.dropout(leaf(x, "blocked16"), 0.3, 7, 9)
    assert blocked.layout == "blocked16"
    np.testing.assert_array_equal(first.numpy(), blocked.numpy())
    flat = _core.dropout(attnnet.Tensor(x.ravel()[:1000]), 0.3, 7, 9)
    np.testing.assert_array_equal(first.numpy().ravel()[:1000], flat.numpy())
    for seed, counter in ((8, 9), (7, 10)):
        other = _core.dropout(attnnet.Tensor(x), 0.3, seed, counter).numpy()
        assert 0.3 < ((other == 0) != (first.numpy() == 0)).mean() < 0.54  # 2 * 0.3 * 0.7


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_drops_its_share_and_its_gradient_is_the_same_map(p):
    x = np.ones(100_003, np.float32)
    tensor = leaf(x)
    y = _core.dropout(tensor, p, 1, 2)
    kept = y.numpy() != 0
    share = np.sqrt(p * (1 - p) / x.size)
    assert abs(kept.mean() - (1 - p)) <= 5 * share
    np.testing.assert_allclose(y.numpy()[kept], 1 / (1 - p) if p < 1 else 0, rtol=2 * EPS32)
    (dx,) = gradients(y, x, tensor)
    np.testing.assert_array_equal(dx, y.numpy())


# ---- threads --------------------------------------------------------------------------------


def one_pass_of_everything(layout) -> dict[str, bytes]:
    """The bits of every result and gradient."""
    x, residual = leaf(normal(0, 24, 32, 17, 19), layout), leaf(normal(1, 24, 32, 17, 19), layout)
    weight, bias = leaf(normal(2, 32)), leaf(normal(3, 32))
    mean, var = attnnet.Tensor(np.zeros(32)), attnnet.Tensor(np.ones(32))
    y = F.batch_norm(x, mean, var, weight, bias, True, residual=residual, relu=True)
    z = F.max_pool2d(y, 2) + F.adaptive_max_pool2d(y, (8, 9)) * F.avg_pool2d(y, 3, 2)
    pooled = F.flatten(F.adaptive_avg_pool2d(z, 1))
    matrix, offset = leaf(normal(4, 300, 32)), leaf(normal(5, 300))
    hidden = F.linear(pooled, matrix, offset)
    product = F.matmul(F.softmax(hidden, 1), leaf(normal(6, 300, 50)))
    loss = F.cross_entropy(_core.dropout(product, 0.2, 3, 4), np.arange(24), 0.1)
    loss.backward()
    leaves = {"x": x, "residual": residual, "weight": weight, "bias": bias, "matrix": matrix,
              "offset": offset}
    bits = {name: tensor.grad.numpy().tobytes() for name, tensor in leaves.items()}
    results = {"y": y, "z": z, "product": product, "loss": loss, "mean": mean, "var": var}
    return bits | {name: tensor.numpy().tobytes() for name, tensor in results.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_with_any_number_of_threads(layout):
    threads = attnnet.get_num_threads()
    try:
        attnnet.set_num_threads(1)
        want = one_pass_of_everything(layout)
        for count in (2, 3, 7):
            attnnet.set_num_threads(count)
            got = one_pass_of_everything(layout)
            assert [name for name in want if got[name] != want[name]] == [], f"{count} threads"
    finally:
        attnnet.set_num_threads(threads)
