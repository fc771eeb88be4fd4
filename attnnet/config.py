"""What is in use: versions, instruction set, OpenBLAS, threads, memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

from . import _core


def get_num_threads() -> int:
    """Threads that operations use.

    By default as many as ``ATTNNET_NUM_THREADS`` or ``OMP_NUM_THREADS`` say at import; without
    either one for each core that the process's affinity and its control group (a container's
    limit) leave it.
    """
    return _core.num_threads()


def set_num_threads(num_threads: int) -> None:
    """Sets the number of threads, 1 to 256. Results do not depend on it, to the bit.

    Raises:
        ValueError: for a number out of range.
    """
    _core.set_num_threads(num_threads)


def memory_stats() -> dict[str, int]:
    """Bytes of tensor memory: ``in_use``, ``cached`` for reuse, ``peak``, ``limit`` (0: none).

    ``objects`` counts the core's small objects beside it: tensors, nodes of the tape and the like.
    """
    return _core.memory_stats()


def set_memory_limit(bytes: int) -> None:
    """From now on tensors and workspaces together take at most this many bytes; what would pass it
    raises ``MemoryError`` with what was asked for. 0 lifts the limit.

    Raises:
        ValueError: for a negative number.
    """
    _core.set_memory_limit(bytes)


def empty_cache() -> None:
    """Gives cached memory back to the system."""
    _core.empty_cache()


def config() -> dict[str, object]:
    """What :func:`show_config` prints, as a dictionary."""
    from . import __version__

    core = _core.config()
    return {
        "attnnet": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "instruction set": core["isa"],
        "instruction sets available": ", ".join(core["isa_available"]),
        "threads": core["threads"],
        "openblas": core["blas"],
        "openblas core type": core["blas_core"],
        "compiler": core["compiler"],
        "platform": platform.platform(),
    }


def machine() -> dict[str, object]:
    """The processor, the cores that this process may use (None: not known), and :func:`config`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {"processor": _processor(), "cores": cores, **config()}


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


def show_config() -> None:
    """Prints versions, the instruction set and OpenBLAS kernels in use, and the threads.

    ``ATTNNET_ISA`` (baseline, avx2, avx512) chooses another instruction set at import.
    """
    for name, value in config().items():
        print(f"{name:28} {value}")
