"""Runs an operation of attnnet beside its twin: forward, backward, in every layout."""

from __future__ import annotations

import numpy as np

import attnnet
from attnnet import _core

from .compare import assert_close

LAYOUTS = ("plain", "blocked16")


def can_block(array: np.ndarray) -> bool:
    return array.ndim == 4 and array.shape[1] > 0 and array.shape[1] % 16 == 0


def make(array, layout: str = "plain", requires_grad: bool = False):
    """A leaf of the array's values (float32), in the layout where its shape allows that."""
    tensor = attnnet.Tensor(np.asarray(array, np.float32))
    if layout == "blocked16" and can_block(tensor):
        tensor = _core.to_layout(tensor, layout)
        # a single pixel a channel lies in memory alike in both, and stays as it is
        assert tensor.layout == layout or tensor.shape[2:] == (1, 1), tensor.shape
    return tensor.requires_grad_() if requires_grad else tensor


def draw(seed_or_rng, *shape, low=None, high=None) -> np.ndarray:
    """Standard normal float32 (or uniform between low and high)."""
    rng = np.random.default_rng(seed_or_rng)
    if low is not None:
        return rng.uniform(low, high, shape).astype(np.float32)
    return rng.standard_normal(shape).astype(np.float32)


def distinct(seed, *shape) -> np.ndarray:
    """No two equal, none at zero: away from ties and kinks, exact in float32."""
    count = int(np.prod(shape))
    values = np.random.default_rng(seed).permutation(count).reshape(shape)
    return (values * 2 - count + 1).astype(np.float32) / 64 + np.float32(1 / 256)


def check(
    function,
    twin,
    arrays,
    *,
    length=1,
    scale=0.0,
    lengths=None,
    scales=None,
    layout="plain",
    seed=0,
):
    """Forward and every gradient of ``function(*tensors)`` against ``twin(*float64 arrays)``.

    Args:
        function: takes attnnet tensors, returns one.
        twin: takes arrays, returns (y, backward).
        arrays: float32 inputs; 4-D ones are given in ``layout`` where that exists.
        length: reduction length of an element of y.
        scale: least magnitude for y's comparison (see assert_close).
        lengths: reduction lengths of the gradients (default: ``length`` for each).
        scales: the same for the gradients.
        layout: of the inputs and of the output's gradient.
        seed: of the output's gradient.
    """
    arrays = [np.asarray(a, np.float32) for a in arrays]
    before = [a.copy() for a in arrays]
    tensors = [make(a, layout, requires_grad=True) for a in arrays]
    y = function(*tensors)
    expected, backward = twin(*(a.astype(np.float64) for a in arrays))
    context = f"layout {layout}, seed {seed}"
    assert_close(y, expected, length, f"forward ({context})", scale)
    dy = np.random.default_rng(seed).standard_normal(np.shape(expected)).astype(np.float32)
    y.backward(make(dy, layout))
    grads = [g for g in backward(dy.astype(np.float64)) if g is not None]
    lengths = lengths or [length] * len(grads)
    scales = scales or [0.0] * len(grads)
    for i, (t, g, l, s) in enumerate(zip(tensors, grads, lengths, scales, strict=True)):
        assert t.grad is not None, f"argument {i} got no gradient"
        assert_close(t.grad, g, l, f"gradient of argument {i} ({context})", s)
    for t, a in zip(tensors, before, strict=True):
        np.testing.assert_array_equal(t.numpy(), a, "an operation wrote to its input")
    return y


def layouts_of(*shapes) -> list[str]:
    """The layouts worth running for inputs of these shapes."""
    blocked = any(len(s) == 4 and s[1] > 0 and s[1] % 16 == 0 for s in shapes)
    return list(LAYOUTS) if blocked else ["plain"]
