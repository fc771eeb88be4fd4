"""The machine: who is there to compare with, and what it can do at most, measured."""

from __future__ import annotations

import contextlib
import time
from importlib import metadata

import numpy as np

from .. import _core, functional
from ..tensor import Tensor
from .timing import interleaved

# The systems to compare with: distribution -> module.
PEERS = {
    "torch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino", "mnn": "MNN",
    "grad-cam": "pytorch_grad_cam",
}  # fmt: skip


def versions() -> dict[str, str]:
    """Those of the systems to compare with that are installed."""
    found = {}
    for name in PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def peak_gflops(seconds: float = 1.0) -> float:
    """Billions of floating-point operations a second of independent multiply-adds, all threads."""
    rounds, best = 1000, 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        flops = _core.multiply_adds(rounds)
        taken = time.perf_counter() - begin
        if taken < 0.02:
            rounds *= 2
        best = max(best, flops / taken / 1e9)
    return best


def memory_gbs() -> float:
    """Gigabytes a second that an addition of two arrays of 128 MiB moves: two read, one written."""
    a, b = (Tensor(np.ones(1 << 25, np.float32)) for _ in range(2))
    timing = interleaved({"add": lambda: functional.add(a, b)})["add"]
    return 3 * 4 * (1 << 25) / min(timing.rounds) / 1e9
