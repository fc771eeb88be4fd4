"""Random numbers: one seed, one counter.

Every draw is a pure function of (seed, counter) by Philox4x32-10 (Salmon et al. 2011) and advances
the counter by one. The whole state is therefore two integers, which a checkpoint can hold.

Every thread has a state of its own, which begins with seed 0: networks that are trained in several
threads at once get the numbers that they would get one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from . import _core


class _State(threading.local):
    """The calling thread's state."""

    seed = 0
    counter = 0


_state = _State()


def manual_seed(seed: int) -> None:
    """Starts the random numbers of initialisation and dropout anew, in the calling thread.

    Args:
        seed: an integer from 0 to 2**64 - 1.

    Raises:
        ValueError: for a seed out of range.
        TypeError: for a seed that is no integer.
    """
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool):
        raise TypeError(f"manual_seed: seed must be an integer, got {type(seed).__name__}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"manual_seed: seed is {seed}, expected 0 to 2**64 - 1")
    _state.seed, _state.counter = int(seed), 0


def get_rng_state() -> dict[str, int]:
    """The calling thread's state: ``{"seed": ..., "counter": ...}``, both plain integers."""
    return {"seed": _state.seed, "counter": _state.counter}


def set_rng_state(state: dict[str, int]) -> None:
    """Puts back what :func:`get_rng_state` gave.

    Raises:
        ValueError: where ``seed`` or ``counter`` is missing or out of range.
    """
    if set(state) != {"seed", "counter"}:
        raise ValueError(f"set_rng_state: keys 'seed' and 'counter' expected, got {sorted(state)}")
    manual_seed(state["seed"])
    _state.counter = int(state["counter"])


def next_draw() -> tuple[int, int]:
    """The (seed, counter) of the next draw; advances the counter."""
    counter = _state.counter
    _state.counter = counter + 1
    return _state.seed, counter


def uniform(shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """A float32 array of a shape, uniform in [low, high)."""
    return _core.random_uniform(tuple(shape), low, high, *next_draw())


def normal(shape: Sequence[int], mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    """A float32 array of a shape, normally distributed (Box and Muller, in double)."""
    return _core.random_normal(tuple(shape), mean, std, *next_draw())
