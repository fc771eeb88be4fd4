"""The fused blocks: the study's golden values, the float64 twins at odd sizes, ties, gates, ReLU,
bits that do not depend on threads, and errors."""

from __future__ import annotations

import numpy as np
import pytest
from reference import blocks, golden
from reference.compare import assert_close
from reference.memory import in_use
from reference.states import draw_state

import attnnet
from attnnet import _core
from attnnet import functional_blocks as fb

BLOCKS = ("SE", "SEC", "CA", "SA", "NEW", "NAB")
CHANNEL_KEYS = {
    "SE": ("fc.0.weight", "fc.2.weight"),
    "NEW": ("fc.0.weight", "fc.2.weight"),
    "SEC": ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"),
    "CA": ("mlp.1.weight", "mlp.1.bias", "mlp.3.weight", "mlp.3.bias"),
    "NAB": ("sam.0.weight", "sam.0.bias", "cam.0.weight", "cam.0.bias"),
    "SA": (),
}
FUNCTIONS = {"SE": fb.se, "SEC": fb.sec, "CA": fb.ca, "SA": fb.sa, "NEW": fb.new_block,
             "NAB": fb.nab}
SPATIAL = ("conv.weight", "conv.bias", "bn.running_mean", "bn.running_var", "bn.weight", "bn.bias")


def prefix_of(name):
    return {"SA": "spatial.", "NEW": "sg.spatial."}.get(name)


def arguments(name, state, training, pool_types=None):
    """The block's arguments after x, in its function's order."""
    positional = [state[key] for key in CHANNEL_KEYS[name]]
    if name in ("SA", "NEW"):
        positional += [state[prefix_of(name) + key] for key in SPATIAL]
        positional += [training, 0.01, 1e-5]
    if name == "CA":
        positional.append(pool_types or ("avg", "max"))
    return positional


def tensors(state):
    """float32 tensors of the state; the parameters want gradients."""
    made = {}
    for key, value in state.items():
        running = "running" in key or "num_batches" in key
        made[key] = attnnet.Tensor(value, requires_grad=not running)
    return made


def run(name, x, state, dy, training, layout="plain", relu=False, **options):
    """y, dx, {key: gradient}, {key: running value} of the fused block."""
    made = tensors(state)
    tensor = attnnet.Tensor(x)
    if layout == "blocked16":
        tensor = _core.to_layout(tensor, layout)
    tensor.requires_grad = True
    y = FUNCTIONS[name](tensor, *arguments(name, made, training, **options), relu=relu)
    y.backward(attnnet.Tensor(dy))
    grads = {k: t.grad.numpy() for k, t in made.items() if t.grad is not None}
    running = {k: t.numpy() for k, t in made.items() if "running" in k}
    return y.numpy(), tensor.grad.numpy(), grads, running


def as_float32(values):
    """The float64 values that float32 holds, so that both sides start from the same numbers."""
    return values.astype(np.float32).astype(np.float64)


def compare(name, got, expected, length, x, dy):
    """Everything of one run; `length` is the number of terms of the longest reduction.

    The spatial gate's parameters get sums over positions of terms of either sign, each of them a
    sum over channels of dy * x: they may cancel, so errors are measured against such terms.
    """
    terms = 2 * np.sqrt(x.shape[1]) * np.sqrt(np.mean((dy * x) ** 2)) if x.size else 0.0
    (y, dx, grads, running), (y_ref, dx_ref, grads_ref, after) = got, expected
    assert_close(y, y_ref, 64, f"{name} y")
    assert_close(dx, dx_ref, length, f"{name} dx")
    assert set(grads) == set(grads_ref)
    for key, value in grads_ref.items():
        scale = terms if "spatial" in key else 0.0
        assert_close(grads[key], value.reshape(grads[key].shape), length, f"{name} {key}", scale)
    for key, value in after.items():
        assert_close(running[key], value, 64, f"{name} {key}", 1.0)


@pytest.mark.parametrize("layout", ["plain", "blocked16"])
@pytest.mark.parametrize("entry", [e for e in golden.CASES if golden.CASES[e][0] in BLOCKS])
def test_golden_values(entry, layout):
    name, options = golden.CASES[entry]
    g = golden.load(entry)
    got = run(name, g.x, g.before, g.dy, True, layout, **options)
    compare(name, got, (g.y, g.dx, g.grad, g.after), g.x.size / g.x.shape[1], g.x, g.dy)
    state = tensors(g.before | got[3])
    with attnnet.no_grad():
        y = FUNCTIONS[name](attnnet.Tensor(g.x), *arguments(name, state, False, **options))
    assert_close(y, g.y_eval, 64, f"{name} y_eval")


def twin_with_relu(name, x, state, dy, training, relu, **options):
    y, backward, after = blocks.twin(name, x, state, training, **options)
    dx, grads = backward(np.where(y > 0, dy, 0.0) if relu else dy)
    return (np.maximum(y, 0.0) if relu else y), dx, grads, after


SIZES = [(3, 32, 5, 7), (9, 48, 1, 1), (1, 48, 3, 6), (2, 20, 9, 8), (2, 64, 17, 19),
         (1, 16, 33, 1)]


@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_odd_sizes(name, shape, training, relu):
    if name == "NAB":
        shape = (*shape[:2], max(shape[2], 7), max(shape[3], 7))
    seed = 100 * shape[1] + shape[2]
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    x = as_float32(rng.standard_normal(shape) + 0.3)
    dy = as_float32(rng.standard_normal(shape))
    state = {k: as_float32(v) for k, v in draw_state(name, *shape[1:], rng).items()}
    expected = twin_with_relu(name, x, state, dy, training, relu)
    count = x.size / shape[1]
    compare(name, run(name, x, state, dy, training, relu=relu), expected,
            max(count, shape[1]), x, dy)


POOLS = [("max",), ("lp",), ("lse",), ("lse", "avg"), ("max", "lp", "avg", "lse")]


@pytest.mark.parametrize("C", [32, 20])
@pytest.mark.parametrize("pool_types", POOLS, ids="+".join)
def test_pool_types(pool_types, C):
    rng = np.random.default_rng(7)
    x, dy = (as_float32(rng.standard_normal((2, C, 6, 5))) for _ in range(2))
    state = {k: as_float32(v) for k, v in draw_state("CA", C, 6, 5, rng).items()}
    expected = twin_with_relu("CA", x, state, dy, True, False, pool_types=pool_types)
    compare("CA", run("CA", x, state, dy, True, pool_types=pool_types), expected, 60, x, dy)


@pytest.mark.parametrize("C", [48, 20])
@pytest.mark.parametrize("name", ["CA", "SA", "NEW"])
def test_ties_go_to_the_first(name, C):
    """Few different values, so that almost every maximum is a tie."""
    rng = np.random.default_rng(3)
    x = rng.integers(-1, 2, (2, C, 6, 7)).astype(float)
    dy = as_float32(rng.standard_normal(x.shape))
    state = {k: as_float32(v) for k, v in draw_state(name, C, 6, 7, rng).items()}
    expected = twin_with_relu(name, x, state, dy, True, False)
    compare(name, run(name, x, state, dy, True), expected, 84, x, dy)


@pytest.mark.parametrize("name", BLOCKS)
def test_same_bits_with_any_number_of_threads(name):
    rng = np.random.default_rng(11)
    shape = (5, 32, 11, 9)
    x, dy = rng.standard_normal(shape), rng.standard_normal(shape)
    state = draw_state(name, *shape[1:], rng)
    before, results = attnnet.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            attnnet.set_num_threads(threads)
            y, dx, grads, running = run(name, x, state, dy, True)
            results.append([y, dx, *grads.values(), *running.values()])
    finally:
        attnnet.set_num_threads(before)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_large_tensors_that_bypass_the_cache():
    """Above the size from which stores pass by the cache; also more tasks than threads."""
    rng = np.random.default_rng(2)
    shape = (13, 64, 64, 64)  # 13.6 MB
    x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    for name in ("SE", "CA", "SA", "NEW"):
        state = draw_state(name, *shape[1:], rng)
        got = run(name, x, state, dy, True, relu=True)
        part = run(name, x[:2], state, dy[:2], False, relu=True)
        expected = twin_with_relu(name, x[:2].astype(float), {k: as_float32(v) for k, v in
                                  state.items()}, dy[:2].astype(float), False, True)
        compare(name, part, expected, 2 * 4096, x[:2], dy[:2])
        if name in ("SE", "CA"):  # an image's result does not depend on the others
            assert np.array_equal(got[0][:2], part[0]) and np.array_equal(got[1][:2], part[1])


@pytest.mark.parametrize("name", BLOCKS)
def test_gates_explain_the_result(name):
    rng = np.random.default_rng(5)
    shape = (2, 32, 8, 9)
    x = attnnet.Tensor(rng.standard_normal(shape))
    state = tensors(draw_state(name, *shape[1:], rng))
    running = {k: t.numpy().copy() for k, t in state.items() if "running" in k}
    values = arguments(name, state, True)
    gates = fb.block_gates({"NEW": "new_block"}.get(name, name.lower()), x, *values)
    assert all(np.array_equal(state[k].numpy(), v) for k, v in running.items())
    factor = np.ones(shape)
    if gates.channel is not None:
        assert gates.channel.shape == shape[:2] and not gates.channel.requires_grad
        offset = 1.0 if name in ("SE", "NEW") else 0.0
        factor = factor * (offset + gates.channel.numpy()[:, :, None, None])
    if gates.position is not None:
        assert gates.position.shape == (2, 1, 8, 9) and not gates.position.requires_grad
        factor = factor * gates.position.numpy()
    assert (gates.channel is None) == (name == "SA")
    assert (gates.position is None) == (name in ("SE", "SEC", "CA"))
    assert_close(FUNCTIONS[name](x, *values), x.numpy() * factor, 1, name)


@pytest.mark.parametrize("name", BLOCKS)
def test_only_what_is_wanted_gets_a_gradient(name):
    rng = np.random.default_rng(6)
    shape = (2, 32, 7, 7)
    state = draw_state(name, *shape[1:], rng)
    x, dy = rng.standard_normal(shape), attnnet.Tensor(rng.standard_normal(shape))
    full = run(name, x, state, dy.numpy(), True)
    for wanted in full[2]:
        made = {k: attnnet.Tensor(v, requires_grad=k == wanted) for k, v in state.items()}
        y = FUNCTIONS[name](attnnet.Tensor(x), *arguments(name, made, True))
        y.backward(dy)
        assert np.array_equal(made[wanted].grad.numpy(), full[2][wanted]), wanted
        assert all(t.grad is None for k, t in made.items() if k != wanted)
    made = {k: attnnet.Tensor(v) for k, v in state.items()}
    tensor = attnnet.Tensor(x, requires_grad=True)
    FUNCTIONS[name](tensor, *arguments(name, made, True)).backward(dy)
    assert np.array_equal(tensor.grad.numpy(), full[1])


@pytest.mark.parametrize("name", ["SE", "SEC", "CA", "SA", "NEW"])
def test_little_is_kept_beside_the_input(name):
    shape = (8, 64, 32, 32)
    rng = np.random.default_rng(1)
    x = _core.to_layout(attnnet.Tensor(rng.standard_normal(shape)), "blocked16")
    state = tensors(draw_state(name, *shape[1:], rng))
    before = in_use()
    y = FUNCTIONS[name](x, *arguments(name, state, True))
    kept = in_use() - before - 4 * y.numel()
    assert 0 < kept < 4 * x.numel() // 8


@pytest.mark.parametrize("name", BLOCKS)
def test_out_of_memory_leaves_nothing_behind(name):
    shape = (4, 32, 16, 16)  # 131 kB: neither y nor dx fits
    rng = np.random.default_rng(1)
    x = attnnet.Tensor(rng.standard_normal(shape), requires_grad=True)
    dy = attnnet.Tensor(np.ones(shape))
    state = tensors(draw_state(name, *shape[1:], rng))
    values = arguments(name, state, True)
    y = FUNCTIONS[name](x, *values)
    before = in_use()
    try:
        for room in (0, 1 << 10, 16 << 10, 100 << 10):
            attnnet.set_memory_limit(before + room)
            with pytest.raises(MemoryError):
                FUNCTIONS[name](x, *values)
            with pytest.raises(MemoryError):
                y.backward(dy, retain_graph=True)
            attnnet.set_memory_limit(0)
            assert in_use() == before
    finally:
        attnnet.set_memory_limit(0)


@pytest.mark.parametrize("name", BLOCKS)
def test_empty_batch(name):
    state = draw_state(name, 32, 8, 8, np.random.default_rng(1))
    x = np.zeros((0, 32, 8, 8))
    y, dx, grads, _ = run(name, x, state, x, False)
    assert y.shape == dx.shape == x.shape
    assert all(np.all(g == 0) for g in grads.values())


@pytest.mark.parametrize("name", BLOCKS)
def test_inputs_stay_as_they_are(name):
    rng = np.random.default_rng(8)
    state = tensors(draw_state(name, 32, 8, 8, rng))
    x = attnnet.Tensor(rng.standard_normal((2, 32, 8, 8)), requires_grad=True)
    before = {k: t.numpy().copy() for k, t in state.items() if "running" not in k}
    x_before, dy = x.numpy().copy(), attnnet.Tensor(np.ones((2, 32, 8, 8)))
    FUNCTIONS[name](x, *arguments(name, state, True)).backward(dy)
    assert np.array_equal(x.numpy(), x_before) and np.all(dy.numpy() == 1)
    assert all(np.array_equal(state[k].numpy(), v) for k, v in before.items())


@pytest.mark.parametrize("name", BLOCKS)
def test_nan_is_not_hidden(name):
    rng = np.random.default_rng(9)
    x = rng.standard_normal((2, 32, 8, 8))
    x[1, 17, 3, 4] = np.nan
    state = tensors(draw_state(name, 32, 8, 8, rng))
    for relu in (False, True):
        y = FUNCTIONS[name](attnnet.Tensor(x), *arguments(name, state, True), relu=relu).numpy()
        assert np.isnan(y[1, 17, 3, 4])


def test_changed_input_is_refused_in_backward():
    rng = np.random.default_rng(4)
    state = tensors(draw_state("SE", 32, 4, 4, rng))
    x = attnnet.Tensor(rng.standard_normal((2, 32, 4, 4)))
    y = fb.se(x, *arguments("SE", state, True))
    state["fc.0.weight"].detach().copy_(np.zeros((4, 32)))
    with pytest.raises(RuntimeError, match="se needs for its gradient was changed in place"):
        y.sum().backward()


def refuse(message, name, x_shape, change=None, training=True, **options):
    state = draw_state(name, 32, 8, 8, np.random.default_rng(0)) | (change or {})
    values = arguments(name, tensors(state), training, **options)
    with pytest.raises(ValueError) as caught:
        FUNCTIONS[name](attnnet.Tensor(np.zeros(x_shape)), *values)
    assert message in str(caught.value), str(caught.value)


GOOD = (2, 32, 8, 8)


def test_errors_name_the_argument_and_the_shapes():
    refuse("se: x has shape (2, 32), expected (N, C, H, W)", "SE", (2, 32))
    refuse("sa: x has shape (2, 32, 0, 8), expected at least", "SA", (2, 32, 0, 8))
    refuse("se: w1 has shape (4, 32), expected (K, 48) or (K, 48, 1, 1)", "SE", (2, 48, 4, 4))
    refuse("se: w2 has shape (4, 32), expected (32, 4) or (32, 4, 1, 1)", "SE", GOOD,
           {"fc.2.weight": np.zeros((4, 32))})
    refuse("sec: w1 has shape (0, 32): 32 channels are too few", "SEC", GOOD,
           {"conv1.weight": np.zeros((0, 32))})
    refuse("ca: b1 has shape (3,), expected (2,)", "CA", GOOD, {"mlp.1.bias": np.zeros(3)})
    refuse("ca: pool_types is ('avg', 'med')", "CA", GOOD, pool_types=("avg", "med"))
    refuse("ca: pool_types names one pool twice", "CA", GOOD, pool_types=("avg", "avg"))
    refuse("new_block: conv_w has shape (1, 2, 3, 3), expected (1, 2, 7, 7)", "NEW", GOOD,
           {"sg.spatial.conv.weight": np.zeros((1, 2, 3, 3))})
    refuse("sa: bn_w has shape (2,), expected (1,)", "SA", GOOD, {"spatial.bn.weight": np.ones(2)})
    refuse("nab: x has shape (2, 32, 6, 8), expected H and W of at least 7", "NAB", (2, 32, 6, 8))
    refuse("nab: cam_w has shape (32, 16, 7, 7), expected (32, 32, 7, 7)", "NAB", GOOD,
           {"cam.0.weight": np.zeros((32, 16, 7, 7))})
    with pytest.raises(ValueError, match="block"):
        fb.block_gates("see", None)


@pytest.mark.parametrize("name", ["SA", "NEW"])
def test_one_value_has_no_batch_statistics(name):
    refuse("needs more than one value (N * H * W) in training", name, (1, 32, 1, 1))
    state = tensors(draw_state(name, 32, 1, 1, np.random.default_rng(0)))
    y = FUNCTIONS[name](attnnet.Tensor(np.ones((1, 32, 1, 1))), *arguments(name, state, False))
    assert np.all(np.isfinite(y.numpy()))
