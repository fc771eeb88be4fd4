"""What the property tests draw: an operation beside its twin, on arrays of random shapes.

A problem is checked by the harness that the other tests use. Where it fails, it is asked whether
anything can be told there at all: see ``fragile``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import event, reject
from hypothesis import strategies as st
from reference.compare import tolerance
from reference.harness import LAYOUTS, can_block, check

SEEDS = st.integers(0, 2**20)
# Channels: few, blocks of 16, about one block, several blocks and a rest.
CHANNELS = st.one_of(
    st.integers(1, 9), st.sampled_from([16, 32, 48, 64]),
    st.sampled_from([15, 16, 17, 20, 31, 32, 33, 40, 48, 64, 80]),
)  # fmt: skip
MOST = 60_000  # elements of an array: an example takes milliseconds


@dataclass(repr=False)
class Problem:
    """``ours`` of tensors is to be ``twin`` of float64 arrays.

    Args:
        ours, twin, arrays, length, scale, lengths, scales: see ``reference.harness.check``.
        after: called when ``ours`` has run; raises AssertionError where what it left is wrong.
        note: what was drawn beside the shapes, for the message.
    """

    ours: Callable
    twin: Callable
    arrays: Sequence[np.ndarray]
    length: float = 1
    scale: float = 0.0
    lengths: list | None = None
    scales: list | None = None
    after: Callable[[], None] | None = None
    note: str = ""

    def __repr__(self) -> str:
        return f"<arrays {[a.shape for a in self.arrays]} {self.note}>"


@dataclass(frozen=True)
class Form:
    """How an operation gets an array: as it is, or as a view of another.

    The leaf holds ``store(array)``; the operation sees ``view(leaf)``, which is the array again.
    """

    kind: str = "as it is"
    order: tuple[int, ...] = ()

    def store(self, array: np.ndarray) -> np.ndarray:
        if self.kind == "permuted":
            return array.transpose(self.order)  # not contiguous either
        if self.kind == "reversed":
            return array[..., ::-1]
        if self.kind == "cut":
            whole = np.zeros([2 * n + 1 for n in array.shape], array.dtype)
            whole[self._cut(array.ndim)] = array
            return whole
        return array

    def view(self, tensor):
        if self.kind == "permuted":
            return tensor.permute(tuple(int(i) for i in np.argsort(self.order)))
        if self.kind == "reversed":
            return tensor[..., ::-1]
        return tensor[self._cut(tensor.ndim)] if self.kind == "cut" else tensor

    @staticmethod
    def _cut(ndim: int) -> tuple[slice, ...]:
        return (slice(1, None, 2),) * ndim


@st.composite
def forms(draw, array: np.ndarray) -> Form:
    kinds = ["as it is", "as it is", "as it is"]
    if array.ndim:
        kinds += ["permuted", "reversed"]
        kinds += ["cut"] if array.size * 2**array.ndim <= MOST else []
    kind = draw(st.sampled_from(kinds))
    order = tuple(draw(st.permutations(range(array.ndim)))) if kind == "permuted" else ()
    return Form(kind, order)


def verify(problem: Problem, data) -> None:
    """Draws how the arrays are given, and checks values and gradients."""
    p, given = problem, [data.draw(forms(a)) for a in problem.arrays]
    stored = [form.store(a) for form, a in zip(given, p.arrays, strict=True)]
    layout = data.draw(st.sampled_from(LAYOUTS)) if any(map(can_block, stored)) else "plain"
    seed = data.draw(SEEDS)

    def ours(*leaves):
        return p.ours(*(form.view(t) for form, t in zip(given, leaves, strict=True)))

    def twin(*_):
        y, backward = p.twin(*(np.asarray(a, np.float64) for a in p.arrays))

        def stored_gradients(dy):
            pairs = zip(given, backward(dy), strict=False)  # no gradient for what is not there
            return [None if g is None else form.store(g) for form, g in pairs]

        return y, stored_gradients

    note = f"{p.note} given {[form.kind for form in given]}"
    try:
        check(ours, twin, stored, length=p.length, scale=p.scale, lengths=p.lengths,
              scales=p.scales, layout=layout, seed=seed)  # fmt: skip
        if p.after:
            p.after()
    except AssertionError as failure:
        if fragile(p, seed):
            event("fragile")
            reject()
        shapes = [a.shape for a in p.arrays]
        raise AssertionError(f"{shapes} {note}: {failure}") from None


def fragile(p: Problem, seed: int, dy=None, tries: int = 6) -> bool:
    """Whether the twin itself moves by more than is granted when its inputs move by rounding.

    So it is where a ReLU's input is zero or a window's two largest are equal but for rounding, or
    where a sum cancels: there two right answers differ, and nothing can be told.

    Args:
        seed: that the problem was checked with. dy: the output's gradient, where that is known.
    """
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(a, np.float64) for a in p.arrays]
    y, backward = p.twin(*arrays)
    if dy is None:  # the harness's
        dy = rng.standard_normal(np.shape(y)).astype(np.float32)
    dy = dy.astype(np.float64)
    exact = [y, *(g for g in backward(dy) if g is not None)]
    lengths = [p.length, *(p.lengths or [p.length] * (len(exact) - 1))]
    scales = [p.scale, *(p.scales or [0.0] * (len(exact) - 1))]
    # An eighth of what is granted to the sums inside: what rounding does there, about.
    size = tolerance(max(lengths)) / 8
    for _ in range(tries):
        moved = [a + size * np.abs(a).max(initial=0.0) * rng.uniform(-1, 1, a.shape)
                 for a in arrays]  # fmt: skip
        y, backward = p.twin(*moved)
        results = [y, *(g for g in backward(dy) if g is not None)]
        for got, expected, length, scale in zip(results, exact, lengths, scales, strict=True):
            if np.size(expected) == 0:
                continue
            limit = tolerance(length) * max(float(np.abs(expected).max()), scale)
            if not (float(np.abs(got - expected).max()) <= limit):
                return True
    return False
