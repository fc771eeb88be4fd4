"""The one comparison of the tests: a float32 result against a float64 oracle."""

from __future__ import annotations

import math

import numpy as np

EPS32 = float(np.finfo(np.float32).eps)


def tolerance(length: float) -> float:
    """The relative error granted to a float32 reduction of ``length`` random terms.

    Rounding errors of a sum behave like a random walk: they grow with the square root of its
    length. The constants leave room for two more roundings a term and for the four to ten times
    larger errors of Winograd's transforms.
    """
    return EPS32 * (8 + 4 * math.sqrt(length))


def assert_close(got, expected, length: float = 1, name: str = "result", scale: float = 0.0):
    """Fail unless ``got`` has the shape of ``expected`` and its values to float32 accuracy.

    Args:
        got: an array, or anything with ``numpy()`` (an attnnet tensor).
        expected: the float64 oracle.
        length: how many terms went into one element; the tolerance grows with its root.
        name: what is compared, for the message.
        scale: the least magnitude that errors are measured against; by default the largest
            finite element of ``expected``. Give the size of the terms where they cancel.

    Infinities and NaN must stand at the same places.
    """
    got = np.asarray(got.numpy() if hasattr(got, "numpy") else got)
    expected = np.asarray(expected, dtype=np.float64)
    if got.shape != expected.shape:
        raise AssertionError(f"{name}: shape {got.shape}, expected {expected.shape}")
    if expected.size == 0:
        return
    finite = np.isfinite(expected)
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
        raise AssertionError(f"{name}: not the same infinities and NaN")
    if not finite.any():
        return
    error = np.abs(got[finite].astype(np.float64) - expected[finite])
    magnitude = max(float(np.abs(expected[finite]).max()), scale)
    limit = tolerance(length) * magnitude
    worst = float(error.max())
    if not (worst <= limit):  # written so that NaN fails
        where = np.argwhere(finite)[int(np.nanargmax(error)) if not np.isnan(error).all() else 0]
        place = tuple(int(i) for i in where)
        raise AssertionError(
            f"{name}: off by {worst:.3e} at {place}, allowed {limit:.3e} "
            f"(got {got[place]!r}, expected {expected[place]!r}, "
            f"magnitude {magnitude:.3e}, reduction length {length:g}, shape {got.shape})"
        )


def relative_l2(got, expected) -> float:
    """||got - expected|| / ||expected||, in float64 (the plain norm where expected is 0)."""
    got = np.asarray(got, dtype=np.float64)
    expected = np.asarray(expected, dtype=np.float64)
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(got - expected)) / (norm if norm > 0 else 1.0)
