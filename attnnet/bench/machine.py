"""The machine: what it is, and what it can do at most, measured."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core, config, functional
from ..tensor import Tensor
from .timing import interleaved

# The systems to compare with: distribution -> module.
PEERS = {
    "torch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino", "mnn": "MNN",
    "grad-cam": "pytorch_grad_cam",
}  # fmt: skip


def describe() -> dict[str, Any]:
    """Processor, threads, instruction set, and the versions of what may take part."""
    versions = {name: _version(name) for name in PEERS}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        **config.config(),
        **{name: version for name, version in versions.items() if version},
    }


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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        facts: dict[str, str] = {}
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
        if "model name" in facts:
            family, model = facts.get("cpu family"), facts.get("model")
            return f"{facts['model name']} (family {family}, model {model})"
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
