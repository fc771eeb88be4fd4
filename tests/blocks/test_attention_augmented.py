"""Relative attention and the attention augmented convolution, against their float64 twins."""

from __future__ import annotations

import numpy as np
import pytest
from reference import attention, blocks, golden
from reference.compare import assert_close
from reference.memory import in_use
from reference.states import draw_state

import attnnet
from attnnet import Tensor, _core
from attnnet import functional as F

FORMS = ("paper", "original")

# heads, channels a head of keys and of values, images, H, W
SHAPES = [
    (2, 20, 2, 1, 32, 32),  # stage 1 of ResNet18, two of its heads
    (8, 20, 8, 2, 8, 8),
    (8, 20, 4, 3, 4, 4),
    (8, 16, 16, 1, 2, 2),
    (1, 1, 1, 1, 1, 1),
    (2, 64, 64, 1, 7, 7),  # the widest stage of a bottleneck network
    (3, 7, 5, 2, 5, 37),
    (2, 5, 3, 2, 37, 5),
    (2, 3, 1, 1, 1, 300),  # a row longer than a block of keys
    (2, 3, 6, 1, 41, 1),
    (1, 2, 3, 2, 17, 33),
    (4, 9, 7, 1, 13, 19),
]


def draw(shape, seed, size=1.0):
    """kqv, tables and the output's gradient, float32."""
    heads, d, e, n, height, width = shape
    rng = np.random.default_rng(seed)
    arrays = (
        size * rng.standard_normal((n, heads * (2 * d + e), height, width)),
        rng.standard_normal((2 * height - 1, d)),
        rng.standard_normal((2 * width - 1, d)),
        rng.standard_normal((n, heads * e, height, width)),
    )
    return [a.astype(np.float32) for a in arrays]


def run(shape, form, arrays, layout="plain"):
    """The result and the gradients of kqv, rel_h, rel_w."""
    heads, d, e = shape[:3]
    kqv, rel_h, rel_w, dy = arrays
    kqv = _core.to_layout(Tensor(kqv), layout).requires_grad_()
    tables = [Tensor(t, requires_grad=True) for t in (rel_h, rel_w)]
    y = F.relative_attention(kqv, *tables, heads, heads * d, heads * e, form == "original")
    y.backward(_core.to_layout(Tensor(dy), layout))
    return y, [t.grad.numpy() for t in (kqv, *tables)]


def twin(monkeypatch, shape, form, arrays):
    heads, _, e = shape[:3]
    monkeypatch.setattr(attention, "HEADS", heads)
    kqv, rel_h, rel_w, dy = (a.astype(np.float64) for a in arrays)
    (k, q, v), join = attention.split_kqv(kqv, heads * e)
    y, backward = attention.attention(q, k, v, rel_h, rel_w, form)
    dq, dk, dv, drel_h, drel_w = backward(dy)
    return y, [join(dk, dq, dv), drel_h, drel_w]


def compare(shape, form, got, expected, seed, score_size=0.0):
    """An element is a sum over keys (for the tables over queries too) of probabilities, each with
    the error of its score, a sum of 3 d products, or d (1 + 2 heads) in the original's form. Where
    scores are large their own rounding counts: as much as a reduction of score_size^2 terms."""
    heads, d, e, n, height, width = shape
    y, grads = got
    y_expected, grads_expected = expected
    score = d * (3 if form == "paper" else 1 + 2 * heads) + score_size**2
    places = height * width
    note = f"(seed {seed}, {shape}, {form})"
    assert_close(y, y_expected, score + places, f"y {note}")
    lengths = (score + e + places, score + n * places, score + n * places)
    for name, mine, theirs, length in zip(
        ("kqv", "rel_h", "rel_w"), grads, grads_expected, lengths, strict=True
    ):
        # A table of a single row has no gradient: terms of size 1 cancel.
        assert_close(mine, theirs, length, f"gradient of {name} {note}", scale=1.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_against_the_twin(shape, form, monkeypatch):
    seed = 11
    arrays = draw(shape, seed)
    compare(shape, form, run(shape, form, arrays), twin(monkeypatch, shape, form, arrays), seed)


@pytest.mark.parametrize("form", FORMS)
def test_scores_far_apart(form, monkeypatch):
    """Scores of some hundreds, most probabilities zero: the maximum is raised again and again."""
    shape, seed = (2, 5, 6, 2, 20, 13), 12
    arrays = draw(shape, seed, size=10.0)
    got, expected = run(shape, form, arrays), twin(monkeypatch, shape, form, arrays)
    compare(shape, form, got, expected, seed, score_size=100.0 * np.sqrt(5.0))


def test_maximum_rises_late_and_steeply(monkeypatch):
    """Each row of keys outdoes all before it by more than a float's range of exponentials."""
    shape, seed = (1, 2, 3, 1, 40, 17), 13
    arrays = draw(shape, seed)
    ramp = np.repeat(np.arange(40.0), 17).reshape(40, 17)
    arrays[0][0, 0], arrays[0][0, 2] = 150.0 * ramp, 1.0
    arrays[1][:] = arrays[2][:] = 0.0
    got, expected = run(shape, "paper", arrays), twin(monkeypatch, shape, "paper", arrays)
    assert_close(got[0], expected[0], 6000, "y")
    assert np.isfinite(got[1][0]).all()


def test_nan_and_infinity_stay_visible():
    shape = (2, 4, 2, 2, 6, 6)
    arrays = draw(shape, 14)
    arrays[0][1, 3, 2, 2] = np.nan  # a key of head 0 of image 1: every query sees it
    y, _ = run(shape, "paper", arrays)
    y = y.numpy()
    assert np.isfinite(y[0]).all() and np.isfinite(y[1, 2:]).all()
    assert np.isnan(y[1, :2]).all()
    arrays[0][1, 3, 2, 2] = np.inf
    y, _ = run(shape, "paper", arrays)
    assert not np.isfinite(y.numpy()[1, :2]).all()


@pytest.mark.parametrize("form", FORMS)
def test_layouts_give_the_same(form):
    shape = (8, 20, 2, 2, 9, 11)
    arrays = draw(shape, 15)
    y, grads = run(shape, form, arrays)
    y_blocked, grads_blocked = run(shape, form, arrays, "blocked16")
    assert y_blocked.layout == ("blocked16" if form == "paper" else "plain")
    np.testing.assert_array_equal(y.numpy(), y_blocked.numpy())
    for one, other in zip(grads, grads_blocked, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", FORMS)
def test_same_bits_with_any_number_of_threads(form):
    shape = (8, 20, 2, 3, 12, 10)
    arrays = draw(shape, 16)
    before, results = attnnet.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            attnnet.set_num_threads(threads)
            y, grads = run(shape, form, arrays)
            results.append([y.numpy(), *grads])
    finally:
        attnnet.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_never_holds_a_map(form):
    """Beside what it returns and saves, a bounded space: the map of one image alone is 32 MiB."""
    shape, kib = (8, 20, 2, 8, 32, 32), 1024
    arrays = draw(shape, 17)
    _core.empty_cache()
    tensors = [Tensor(a, requires_grad=True) for a in arrays[:3]]
    dy = Tensor(arrays[3])
    start = in_use()
    _core.reset_peak_memory()
    y = F.relative_attention(*tensors, 8, 160, 16, form == "original")
    forward = _core.memory_stats()["peak"] - start
    kept = in_use() - start
    y.backward(dy)
    backward = _core.memory_stats()["peak"] - start
    kqv, out, lse = (4 * n * 1024 for n in (8 * 336, 8 * 16, 8 * 8))
    rounding = 9 / 8  # of the allocator's sizes
    threads = attnnet.get_num_threads()
    assert kept <= rounding * (out + lse)
    assert forward <= rounding * (out + lse + threads * 160 * kib + 64 * kib)
    tables = 64 * 4 * 20 * 2 * 96  # their gradients, by chunks of tasks
    limit = rounding * (out + lse + kqv + tables + threads * 512 * kib + 256 * kib)
    assert backward <= limit, f"{backward / kib:.0f} KiB of {limit / kib:.0f}"


def test_refused_memory_leaks_nothing():
    shape = (8, 20, 2, 1, 16, 16)
    *inputs, dy = (Tensor(a, requires_grad=True) for a in draw(shape, 23))
    before = in_use()
    try:
        for room in (4 << 10, 48 << 10):  # not even the result; the result, no scratch space
            attnnet.set_memory_limit(before + room)
            with pytest.raises(MemoryError, match="memory limit"):
                F.relative_attention(*inputs, 8, 160, 16)
            assert in_use() == before
        attnnet.set_memory_limit(0)
        y = F.relative_attention(*inputs, 8, 160, 16)
        kept = in_use()
        attnnet.set_memory_limit(kept + (400 << 10))  # the gradient of kqv, no scratch space
        with pytest.raises(MemoryError, match="memory limit"):
            y.backward(dy.detach())
        assert in_use() == kept
    finally:
        attnnet.set_memory_limit(0)


def test_empty_batch():
    shape = (2, 3, 4, 0, 5, 6)
    y, (dkqv, drel_h, drel_w) = run(shape, "paper", draw(shape, 18))
    assert y.shape == (0, 8, 5, 6) and dkqv.shape == (0, 20, 5, 6)
    assert not drel_h.any() and not drel_w.any()


def test_only_wanted_gradients():
    shape = (2, 3, 4, 1, 5, 6)
    kqv, rel_h, rel_w, dy = draw(shape, 19)
    full = run(shape, "paper", [kqv, rel_h, rel_w, dy])[1]
    table = Tensor(rel_w, requires_grad=True)
    F.relative_attention(kqv, rel_h, table, 2, 6, 8).backward(Tensor(dy))
    np.testing.assert_array_equal(table.grad.numpy(), full[2])
    with attnnet.no_grad():
        y = F.relative_attention(kqv, rel_h, table, 2, 6, 8)
    assert not y.requires_grad


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_what_the_attention_uses(form):
    shape = (2, 3, 2, 2, 5, 4)
    kqv, rel_h, rel_w, _ = draw(shape, 20)
    y = F.relative_attention(kqv, rel_h, rel_w, 2, 6, 4, form == "original").numpy()
    v = kqv[:, 12:].astype(np.float64)
    image, query = 1, 13
    rows = F.relative_attention_rows(kqv, rel_h, rel_w, 2, 6, 4, form == "original", image=image,
                                     query=query).numpy()
    assert rows.shape == (2, 20)
    assert_close(rows.sum(1), np.ones(2), 20, "sums")
    if form == "original":
        values, results = v[image].reshape(2, 20, 2), y[image].reshape(2, 20, 2)
    else:
        values = v[image].reshape(2, 2, 20).transpose(0, 2, 1)
        results = y[image].reshape(2, 2, 20).transpose(0, 2, 1)
    assert_close(results[:, query], np.einsum("hk,hke->he", rows, values), 20, "result")


ERRORS = [
    ((2, 19, 4, 5), (7, 3), (9, 3), 2, 6, 8, r"19 channels, expected 2 \* dk \+ dv = 20"),
    ((2, 20, 4, 5), (7, 3), (9, 3), 0, 6, 8, "heads is 0"),
    ((2, 20, 4, 5), (7, 3), (9, 3), 4, 6, 8, "dk is 6, expected a positive multiple of heads = 4"),
    ((2, 20, 4, 5), (7, 3), (9, 3), 3, 6, 8, "dv is 8, expected a positive multiple of heads = 3"),
    ((2, 20, 4, 5), (7, 3), (9, 3), 2, 10, 0, "dv is 0"),
    ((2, 20, 4, 5), (8, 3), (9, 3), 2, 6, 8, r"rel_h has shape \(8, 3\).*\(7, 3\)"),
    ((2, 20, 4, 5), (7, 3), (9, 6), 2, 6, 8, r"rel_w has shape \(9, 6\).*\(9, 3\)"),
    ((2, 20, 4, 5), (7, 3), (9,), 2, 6, 8, r"rel_w has shape \(9,\)"),
    ((20, 4, 5), (7, 3), (9, 3), 2, 6, 8, r"kqv has shape \(20, 4, 5\)"),
    ((2, 20, 0, 5), (7, 3), (9, 3), 2, 6, 8, r"kqv has shape \(2, 20, 0, 5\)"),
]


@pytest.mark.parametrize(("kqv", "rel_h", "rel_w", "heads", "dk", "dv", "message"), ERRORS)
def test_errors_name_shapes(kqv, rel_h, rel_w, heads, dk, dv, message):
    arrays = [np.zeros(s, np.float32) for s in (kqv, rel_h, rel_w)]
    with pytest.raises(ValueError, match=message):
        F.relative_attention(*arrays, heads, dk, dv)
    with pytest.raises(ValueError, match=message):
        F.relative_attention_rows(*arrays, heads, dk, dv)


@pytest.mark.parametrize(("at", "message"), [
    ({"image": 2}, "image is 2, expected 0 to 1"), ({"image": -1}, "image is -1"),
    ({"query": 20}, r"query is 20.*H \* W - 1 = 19"), ({"query": -1}, "query is -1"),
])
def test_rows_refuse_places_that_are_not_there(at, message):
    arrays = [np.zeros(s, np.float32) for s in ((2, 20, 4, 5), (7, 3), (9, 3))]
    with pytest.raises(ValueError, match=message):
        F.relative_attention_rows(*arrays, 2, 6, 8, **at)


def test_backward_refuses_a_changed_input():
    shape = (2, 3, 4, 1, 5, 6)
    kqv, rel_h, rel_w, dy = (Tensor(a, requires_grad=True) for a in draw(shape, 21))
    y = F.relative_attention(kqv, rel_h, rel_w, 2, 6, 8)
    with attnnet.no_grad():
        rel_h.copy_(np.zeros(rel_h.shape, np.float32))
    with pytest.raises(RuntimeError, match="relative_attention"):
        y.backward(dy.detach())


# The whole block

KEYS = ("conv_out.weight", "conv_out.bias", "kqv_conv.weight", "kqv_conv.bias", "attn_out.weight",
        "attn_out.bias", "rel_encoding_h", "rel_encoding_w")


def run_block(x, state, dy, form):
    x = Tensor(np.asarray(x, np.float32), requires_grad=True)
    parameters = [Tensor(np.asarray(state[k], np.float32), requires_grad=True) for k in KEYS]
    y = F.attention_augmented(x, *parameters, original_form=form == "original")
    y.backward(Tensor(np.asarray(dy, np.float32)))
    return y, x.grad, {k: p.grad for k, p in zip(KEYS, parameters, strict=True)}


def check_block(got, expected, length):
    (y, dx, grads), (y_expected, dx_expected, grads_expected) = got, expected
    assert_close(y, y_expected, length, "y")
    assert_close(dx, dx_expected, length, "dx")
    assert set(grads) == set(grads_expected)
    for key in KEYS:
        assert_close(grads[key], grads_expected[key], length, key)


def test_block_gives_the_golden_values():
    g = golden.load("AA_original")
    got = run_block(g.x, g.before, g.dy, "original")
    check_block(got, (g.y, g.dx, g.grad), 9 * 32 + 3 * 64)


@pytest.mark.parametrize("form", FORMS)
def test_block_against_its_twin(form):
    rng = np.random.default_rng(22)
    x = rng.standard_normal((2, 64, 7, 9)).astype(np.float32)
    state = {k: v.astype(np.float32) for k, v in draw_state("AA", 64, 7, 9, rng).items()}
    dy = rng.standard_normal((2, 64, 7, 9)).astype(np.float32)
    y, backward, _ = blocks.twin("AA", x, state, form=form)
    check_block(run_block(x, state, dy, form), (y, *backward(dy.astype(np.float64))), 9 * 64 + 126)


def test_block_refuses_what_does_not_fit():
    weights = [Tensor(np.zeros(s, np.float32)) for s in
               ((4, 8, 3, 3), (4,), (16, 8, 1, 1), (16,), (4, 4, 1, 1), (4,), (9, 3), (9, 3))]
    x = Tensor(np.zeros((1, 8, 5, 5), np.float32))
    assert F.attention_augmented(x, *weights, heads=2).shape == (1, 8, 5, 5)
    with pytest.raises(ValueError, match="rel_h"):
        F.attention_augmented(x[:, :, :4], *weights, heads=2)
    with pytest.raises(ValueError, match="kqv_w has 15 output channels"):
        F.attention_augmented(x, *weights[:2], weights[2][:15], *weights[3:], heads=2)
    with pytest.raises(ValueError, match="R odd"):
        F.attention_augmented(x, weights[0][..., :2], *weights[1:], heads=2)
