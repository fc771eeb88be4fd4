"""The attention blocks of attnnet: golden values, twins, and the same block of plain operations."""

from __future__ import annotations

import numpy as np
import pytest
from reference import blocks, golden
from reference.block_harness import build, check, lengths_of, scale_of
from reference.compare import assert_close
from reference.harness import LAYOUTS, draw, make
from reference.states import draw_state

import attnnet
from attnnet import nn

EVERY = list(blocks.BLOCKS)
# (N, C, H, W): channels in blocks of 16 and not, odd sizes, one image, one pixel, the networks'
SHAPES = [
    (3, 32, 8, 8),
    (2, 48, 9, 7),
    (1, 40, 7, 8),
    (2, 64, 16, 16),
    (5, 128, 7, 7),
    (2, 64, 1, 3),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", ["__call__", "reference"])
@pytest.mark.parametrize("entry", golden.CASES)
def test_golden(entry, method, layout):
    """The values of the study's own code, by the fused operation and by the composed block."""
    name, options = golden.CASES[entry]
    g = golden.load(entry)
    shape = g.x.shape
    block = build(name, *shape[1:], g.before, True, **options)
    leaf = make(g.x, layout, requires_grad=True)
    forward, back = lengths_of(name, shape)
    y = getattr(block, method)(leaf)
    assert_close(y, g.y, forward, "y")
    y.backward(make(g.dy, layout))
    assert_close(leaf.grad, g.dx, back, "dx")
    for key, parameter in block.named_parameters():
        scale = scale_of(key, g.grad, g.dy, shape)
        assert_close(parameter.grad, g.grad[key], back, key, scale)
    for key, value in g.after.items():
        assert_close(block.state_dict()[key], value, forward, key)
    with attnnet.no_grad():
        y_eval = getattr(block.eval(), method)(make(g.x, layout))
    assert_close(y_eval, g.y_eval, forward, "y in eval mode")


def cases():
    for name in EVERY:
        for shape in SHAPES:
            if not (name == "NAB" and min(shape[2:]) < 7):
                yield name, shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "shape"), list(cases()), ids=str)
def test_against_twin(name, shape, training, layout):
    if layout == "blocked16" and shape[1] % 16:
        layout = "plain"
    rng = np.random.default_rng([*shape, len(name)])
    state = draw_state(name, *shape[1:], rng)
    check(name, shape, draw(rng, *shape), state, draw(rng, *shape), training, layout)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", EVERY)
def test_the_composed_block_against_twin(name, training):
    shape = (3, 48, 8, 9)
    rng = np.random.default_rng(11)
    state = draw_state(name, *shape[1:], rng)
    x, dy = draw(rng, *shape), draw(rng, *shape)
    check(name, shape, x, state, dy, training, "blocked16", "reference")
    check(name, shape, x, state, dy, training, "plain", "reference")


VARIANTS = [
    ("CA", {"pool_types": ("lp",)}),
    ("CA", {"pool_types": ("lse",)}),
    ("CA", {"pool_types": ("avg",)}),
    ("CA", {"pool_types": ("max", "lse", "avg", "lp")}),
    ("AA", {"form": "original"}),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_variants(name, options, layout):
    for shape in ((2, 48, 9, 7), (3, 64, 4, 5)):
        rng = np.random.default_rng(3)
        state = draw_state(name, *shape[1:], rng)
        check(name, shape, draw(rng, *shape), state, draw(rng, *shape), True, layout, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lse_does_not_overflow(layout):
    shape = (2, 32, 4, 4)
    rng = np.random.default_rng(4)
    state = draw_state("CA", *shape[1:], rng)
    x = draw(rng, *shape) + np.float32(200)
    block = build("CA", *shape[1:], state, True, pool_types=("lse",))
    expected, _, _ = blocks.twin("CA", x, state, pool_types=("lse",))
    assert_close(block(make(x, layout)), expected, 100, "y")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["CA", "SA", "CBAM", "SE_SA", "SEC_SA", "NEW"])
def test_ties_go_to_the_first_maximum(name, layout):
    """Few different values: every maximum is tied, over channels and over positions.

    The input gradient tells where it went; SE_SA and its kin scale channels before the maximum,
    so there the weights are such that every gate is the same.
    """
    shape = (2, 32, 6, 5)
    rng = np.random.default_rng(9)
    state = draw_state(name, *shape[1:], rng)
    for key in state:  # equal gates: sigmoid(0)
        if "fc." in key or "mlp." in key or key.startswith(("0.conv", "conv")):
            state[key] = np.zeros_like(state[key]) if name != "CA" else state[key]
    # Each position has its own largest value: were it 2 everywhere, the map of maxima would be
    # constant, and the batch norm behind it would divide rounding errors by a tiny deviation.
    largest = rng.integers(0, 3, (shape[0], 1, *shape[2:]))
    x = np.minimum(rng.integers(0, 3, shape), largest).astype(np.float32)
    check(name, shape, x, state, draw(rng, *shape), True, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", EVERY)
def test_only_the_wanted_gradients(name, layout):
    """Frozen parameters get none and cost none; an input that wants none gets none."""
    shape = (2, 32, 8, 8)
    rng = np.random.default_rng(6)
    state = draw_state(name, *shape[1:], rng)
    x, dy = draw(rng, *shape), draw(rng, *shape)
    whole = check(name, shape, x, state, dy, True, layout)
    frozen = build(name, *shape[1:], state, True).requires_grad_(False)
    leaf = make(x, layout, requires_grad=True)
    frozen(leaf).backward(make(dy, layout))
    assert all(p.grad is None for p in frozen.parameters())
    _, backward, _ = blocks.twin(name, x, state, True)
    assert_close(leaf.grad, backward(dy.astype(np.float64))[0], lengths_of(name, shape)[1], "dx")
    block = build(name, *shape[1:], state, True)
    constant = make(x, layout)
    block(constant).backward(make(dy, layout))
    assert constant.grad is None
    for (key, p), q in zip(block.named_parameters(), whole.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy(), key)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_add_up_over_two_backwards(name):
    shape = (2, 32, 8, 8)
    rng = np.random.default_rng(7)
    state = draw_state(name, *shape[1:], rng)
    block = build(name, *shape[1:], state, False)
    x, dy = draw(rng, *shape), draw(rng, *shape)
    for _ in range(2):
        block(make(x)).backward(make(dy))
    _, backward, _ = blocks.twin(name, x, state, False)
    _, grads = backward(2.0 * dy)
    for key, p in block.named_parameters():
        scale = scale_of(key, grads, dy, shape)
        assert_close(p.grad, grads[key], lengths_of(name, shape)[1], key, scale)


@pytest.mark.parametrize("name", EVERY)
def test_same_bits_again_and_with_any_number_of_threads(name):
    shape = (5, 32, 9, 8)
    rng = np.random.default_rng(8)
    state = draw_state(name, *shape[1:], rng)
    x, dy = draw(rng, *shape), draw(rng, *shape)
    threads, results = attnnet.get_num_threads(), []
    try:
        for count in (1, 2, 3, 2):
            attnnet.set_num_threads(count)
            block = build(name, *shape[1:], state, True)
            leaf = make(x, "blocked16", requires_grad=True)
            y = block(leaf)
            y.backward(make(dy, "blocked16"))
            arrays = [y, leaf.grad, *(p.grad for p in block.parameters())]
            results.append([np.array(t.detach().numpy()) for t in arrays])
    finally:
        attnnet.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", EVERY)
def test_nan_comes_through(name):
    """One NaN in an image reaches that image's output and no other's, in eval mode."""
    shape = (2, 32, 8, 8)
    rng = np.random.default_rng(9)
    block = build(name, *shape[1:], draw_state(name, *shape[1:], rng), False)
    x = draw(rng, *shape)
    x[1, 4, 3, 3] = np.nan
    for layout in LAYOUTS:
        with attnnet.no_grad():
            y = block(make(x, layout)).numpy()
        assert np.isnan(y[1]).any() and not np.isnan(y[0]).any()


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_batch(name):
    shape = (0, 32, 8, 8)
    block = build(name, *shape[1:], draw_state(name, *shape[1:], np.random.default_rng(1)), False)
    assert block(make(np.zeros(shape))).shape == shape


def test_nab_refuses_small_images():
    with pytest.raises(ValueError, match="7"):
        nn.NAB(32, height=6, width=9)
    with pytest.raises(ValueError, match="7"):
        nn.NAB(32)(make(np.zeros((1, 32, 6, 9))))


def test_aa_refuses_other_sizes_than_its_own():
    with pytest.raises(ValueError, match="32"):
        nn.AA(24, height=8, width=8)
    with pytest.raises(ValueError, match="height"):
        nn.AA(32)
    with pytest.raises(ValueError, match=r"\(2, 32, 8, 9\)"):
        nn.AA(32, height=8, width=8)(make(np.zeros((2, 32, 8, 9))))


@pytest.mark.parametrize("name", EVERY)
def test_other_channel_counts_are_refused(name):
    if name == "SA":
        return  # fits any
    block = build(name, 32, 8, 8, draw_state(name, 32, 8, 8, np.random.default_rng(1)), True)
    with pytest.raises(ValueError) as error:
        block(make(np.zeros((2, 48, 8, 8))))
    assert "48" in str(error.value)


def test_aa_at_the_size_of_a_first_stage():
    """1024 positions: many blocks of queries and keys, against the twin's whole map."""
    shape = (1, 32, 32, 32)
    rng = np.random.default_rng(2)
    state = draw_state("AA", *shape[1:], rng)
    x, dy = draw(rng, *shape), draw(rng, *shape)
    for form in ("paper", "original"):
        check("AA", shape, x, state, dy, True, "blocked16", form=form)
