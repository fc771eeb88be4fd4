"""A random problem for each attention block: shape, mode, options, and the way through it."""

from __future__ import annotations

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from reference import blocks, states
from reference.block_harness import check, lengths_of, scale_of
from reference.harness import draw as values

from .problem import CHANNELS, SEEDS, Problem, fragile

LEAST = {"SE": 8, "SEC": 8, "CA": 16, "AA": 32, "SE_SA": 8, "SEC_SA": 8, "CBAM": 16, "NEW": 8,
         "NAB": 1, "SA": 1}  # channels  # fmt: skip
POOLS = st.permutations(["avg", "max", "lp", "lse"])


@st.composite
def shapes(draw, name):
    """(N, C, H, W)."""
    few = 32 if name == "NAB" else 100  # a 7x7 convolution of all channels
    channels = st.one_of(CHANNELS, st.integers(LEAST[name], few))
    c = draw(channels.filter(lambda c: c >= LEAST[name]))
    least = 7 if name == "NAB" else 1
    height = draw(st.one_of(st.integers(least, 9), st.integers(least, 24)))
    most = max(least, min(24, 150 // height if name == "AA" else 24))
    width = draw(st.one_of(st.integers(least, min(9, most)), st.integers(least, most)))
    return draw(st.sampled_from([1, 1, 2, 3, 5])), c, height, width


def verify(name: str, data) -> None:
    """Draws one problem of the block and checks values, gradients and running statistics."""
    shape = data.draw(shapes(name))
    options = {}
    if name == "CA":
        options["pool_types"] = tuple(data.draw(POOLS)[: data.draw(st.integers(1, 4))])
    if name == "AA":
        options["form"] = data.draw(st.sampled_from(["paper", "original"]))
    training = data.draw(st.booleans()) and shape[0] * shape[2] * shape[3] > 1
    layout = data.draw(st.sampled_from(["plain", "blocked16"])) if shape[1] % 16 == 0 else "plain"
    method = data.draw(st.sampled_from(["__call__", "__call__", "then_relu", "reference"]))
    method = "__call__" if name == "AA" and method == "then_relu" else method
    rng = np.random.default_rng(data.draw(SEEDS))
    state = states.draw_state(name, *shape[1:], rng)
    state = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in state.items()}
    x, dy = values(rng, *shape), values(rng, *shape)
    try:
        check(name, shape, x, state, dy, training, layout, method, **options)
    except AssertionError as failure:
        if fragile(problem(name, shape, x, state, dy, training, method, options), 1, dy):
            reject()
        note = f"{shape}, training {training}, {layout}, {method}, {options}"
        raise AssertionError(f"{note}: {failure}") from None


def problem(name, shape, x, state, dy, training, method, options) -> Problem:
    """The same as functions of arrays, for ``fragile``."""
    forward, back = lengths_of(name, shape)
    keys, scales = [], []
    _, grads = blocks.twin(name, x, state, training, **options)[1](dy.astype(np.float64))
    for key in grads:
        keys.append(key)
        scales.append(scale_of(key, grads, dy, shape))

    def twin(x, *parameters):
        moved = state | dict(zip(keys, parameters, strict=True))
        y, backward, _ = blocks.twin(name, x, moved, training, **options)
        rectified = method == "then_relu"

        def gradients(dy):
            dx, grads = backward(np.where(y > 0, dy, 0.0) if rectified else dy)
            return (dx, *(grads[k] for k in keys))

        return (np.maximum(y, 0.0) if rectified else y), gradients

    return Problem(twin, twin, [x, *(state[k] for k in keys)], length=forward,
                   lengths=[back] * (1 + len(keys)), scales=[0.0, *scales])  # fmt: skip

