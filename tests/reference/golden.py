"""Values of the study's own code (float64, training mode), where the file that holds them is.

``blocks.npz`` lies beside the repository, in ``../shared/golden``; without it the tests that need
it are skipped and the twins stand alone.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[3] / "shared" / "golden" / "blocks.npz"

# entry of the file -> (block, options of its twin)
CASES = {
    "SE": ("SE", {}),
    "SEC": ("SEC", {}),
    "CA": ("CA", {}),
    "CA_lp": ("CA", {"pool_types": ("lp",)}),
    "CA_lse": ("CA", {"pool_types": ("lse",)}),
    "SA": ("SA", {}),
    "CBAM": ("CBAM", {}),
    "NEW": ("NEW", {}),
    "NAB": ("NAB", {}),
    "AA_original": ("AA", {"form": "original"}),
}


@dataclass
class Golden:
    """One block's run: y = block(x), then dy backward, then y_eval in eval mode."""

    x: np.ndarray
    y: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    y_eval: np.ndarray
    before: dict[str, np.ndarray]
    grad: dict[str, np.ndarray]
    after: dict[str, np.ndarray]


@functools.cache
def _file():
    with np.load(PATH) as archive:
        return dict(archive)


def load(entry: str) -> Golden:
    """The named entry; skips the calling test where the file is missing."""
    if not PATH.exists():
        pytest.skip(f"golden values are not here: {PATH.parent.name}/{PATH.name} beside the code")
    values = _file()

    def group(kind):
        prefix = f"{entry}/{kind}/"
        return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}

    plain = {k: values[f"{entry}/{k}"] for k in ("x", "y", "dy", "dx", "y_eval")}
    return Golden(**plain, before=group("before"), grad=group("grad"), after=group("after"))


# A bias in front of a batch norm: its gradient is exactly zero, what comes is rounding noise.
ZERO_GRADIENTS = ("spatial.conv.bias",)


def is_zero_gradient(key: str) -> bool:
    return key.endswith(ZERO_GRADIENTS)
