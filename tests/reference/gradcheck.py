"""Finite differences: the third oracle, which trusts nobody's backward.

Differences in float32 are hopeless (step and rounding error meet at about 1e-3), so the values
come from the float64 twin's *forward*, which the other tests hold against attnnet's, and the
gradient that is judged from attnnet.
"""

from __future__ import annotations

import numpy as np

from .compare import assert_close


def numeric_gradients(value, arrays, step=1e-5):
    """d value / d array for every element, by central differences in float64.

    Args:
        value: maps the arrays to a float.
        arrays: float64 arrays; they are put back as they were.
        step: relative to max(1, |x|). The differences' own error is of order step**2.
    """
    grads = []
    for array in arrays:
        grad = np.zeros_like(array)
        flat, out = array.reshape(-1), grad.reshape(-1)  # views: the twin sees every change
        for i, x in enumerate(flat.copy()):
            h = step * max(1.0, abs(x))
            flat[i] = x + h
            above = value(*arrays)
            flat[i] = x - h
            below = value(*arrays)
            flat[i] = x
            out[i] = (above - below) / (2 * h)
        grads.append(grad)
    return grads


def check_twin(twin, arrays, seed=0, limit=1e-7):
    """A twin's backward against differences of its own forward, all in float64."""
    arrays = [np.array(a, dtype=np.float64, order="C") for a in arrays]
    y, backward = twin(*arrays)
    dy = np.random.default_rng(seed).standard_normal(np.shape(y))
    numeric = numeric_gradients(lambda *a: float(np.sum(dy * twin(*a)[0])), arrays)
    for i, (got, expected) in enumerate(zip(backward(dy), numeric, strict=True)):
        error = np.abs(got - expected).max()
        allowed = limit * max(1.0, np.abs(expected).max())
        if not (error <= allowed):
            raise AssertionError(f"argument {i}: off by {error:.2e}, allowed {allowed:.2e}")


def gradcheck(function, twin, arrays, length=1, seed=0):
    """attnnet's gradients of ``function`` against central differences of the twin's forward.

    Args:
        function: takes attnnet tensors, returns one.
        twin: takes float64 arrays, returns (y, backward); only y is used.
        arrays: float32 arrays away from kinks (a difference across one means nothing).
        length: reduction length, for the tolerance.
        seed: of the output's gradient.
    """
    import attnnet

    arrays = [np.array(a, dtype=np.float32, order="C") for a in arrays]
    tensors = [attnnet.Tensor(a, requires_grad=True) for a in arrays]
    y = function(*tensors)
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(np.float32)
    y.backward(attnnet.Tensor(dy))

    def value(*a):
        return float(np.sum(dy.astype(np.float64) * twin(*a)[0]))

    numeric = numeric_gradients(value, [a.astype(np.float64) for a in arrays])
    for i, (tensor, expected) in enumerate(zip(tensors, numeric, strict=True)):
        assert_close(tensor.grad, expected, length, f"argument {i} (seed {seed})", scale=1e-3)
