"""The blocks' twins: against the study's own values, finite differences, and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from reference import blocks, golden
from reference.states import draw_state

LIMIT = 1e-10


def relative(got, expected):
    return np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30)


def expect(got, expected, name):
    assert np.shape(got) == np.shape(expected), name
    error = relative(got, expected)
    if not (error <= LIMIT):
        raise AssertionError(f"{name}: relative error {error:.2e}")


@pytest.mark.parametrize("entry", golden.CASES)
def test_twin_gives_the_golden_values(entry):
    name, options = golden.CASES[entry]
    g = golden.load(entry)
    y, backward, after = blocks.twin(name, g.x, g.before, True, **options)
    expect(y, g.y, "y")
    dx, grads = backward(g.dy)
    expect(dx, g.dx, "dx")
    assert set(grads) == set(g.grad)
    for key, value in g.grad.items():
        if golden.is_zero_gradient(key):
            assert np.abs(grads[key]).max() < 1e-12
        else:
            expect(grads[key], value, key)
    assert set(after) == set(g.after)
    for key, value in g.after.items():
        expect(after[key], value, key)
    y_eval, _, nothing = blocks.twin(name, g.x, g.before | after, False, **options)
    expect(y_eval, g.y_eval, "y_eval")
    assert nothing == {}


CASES = [(name, {}) for name in blocks.BLOCKS]
CASES += [("CA", {"pool_types": ("lp",)}), ("CA", {"pool_types": ("avg", "lse", "max")})]
CASES += [("AA", {"form": "original"})]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_backward_along_random_directions(name, options, training):
    """The derivative along a few directions, all inputs moved at once."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 32, 8, 7))
    state = draw_state(name, 32, 8, 7, rng)
    y, backward, _ = blocks.twin(name, x, state, training, **options)
    dy = rng.standard_normal(y.shape)
    dx, grads = backward(dy)
    for _ in range(3):
        move_x = rng.standard_normal(x.shape)
        moves = {k: rng.standard_normal(np.shape(state[k])) for k in grads}
        slope = np.sum(dx * move_x) + sum(np.sum(grads[k] * moves[k]) for k in grads)
        values = []
        for h in (1e-6, -1e-6):
            moved = state | {k: state[k] + h * moves[k] for k in grads}
            y_moved = blocks.twin(name, x + h * move_x, moved, training, **options)[0]
            values.append(np.sum(dy * y_moved))
        numeric = (values[0] - values[1]) / 2e-6
        assert abs(slope - numeric) <= 1e-5 * max(abs(numeric), 1.0), (slope, numeric)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("name", "channels"),
    # AA has no value channels below 32 channels
    [(n, c) for n in blocks.BLOCKS for c in (16, 40, 64) if n != "AA" or c >= 32],
)
def test_twin_agrees_with_torch(name, channels, training):
    torch = pytest.importorskip("torch")
    from attnnet.bench.peers import torch_blocks

    rng = np.random.default_rng(channels)
    size = 9
    state = draw_state(name, channels, size, size, rng)
    module = torch_blocks.make(name, channels, size).double().train(training)
    module.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    x = rng.standard_normal((3, channels, size, size))
    leaf = torch.tensor(x, requires_grad=True)
    theirs = module(leaf)
    y, backward, after = blocks.twin(name, x, state, training)
    expect(y, theirs.detach().numpy(), "y")
    dy = rng.standard_normal(y.shape)
    theirs.backward(torch.tensor(dy))
    dx, grads = backward(dy)
    expect(dx, leaf.grad.numpy(), "dx")
    parameters = dict(module.named_parameters())
    assert set(grads) == set(parameters)
    for key, value in grads.items():
        if not (training and golden.is_zero_gradient(key)):
            expect(value, parameters[key].grad.numpy(), key)
    for key, value in after.items():
        expect(value, module.state_dict()[key].numpy(), key)


def test_nab_refuses_small_images():
    rng = np.random.default_rng(0)
    state = draw_state("NAB", 8, 7, 7, rng)
    with pytest.raises(ValueError, match="7 x 7"):
        blocks.twin("NAB", np.zeros((1, 8, 7, 6)), state)
