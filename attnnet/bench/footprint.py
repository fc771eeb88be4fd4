"""Memory of training, time of the import, size on disk. Everything in processes of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from .engine import Engine, Job
from .record import Record

# What an installation brings beside NumPy: package -> the distributions that belong to it.
INSTALLED = {
    "attnnet": ("attnnet", "scipy-openblas32", "safetensors", "tqdm"),
    "torch": (
        "torch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec",
        "typing_extensions",
    ),
}  # fmt: skip
MEMORY = (
    Job("resnet18", None, 128),
    Job("resnet18", "NEW_12", 128),
    Job("resnet18", "AA_1", 128),
    Job("vgg19", None, 128, 10),
    Job("resnet50", None, 64),
)


def memory(
    engines: Sequence[Engine], threads: int, jobs: Sequence[Job] = MEMORY
) -> Iterator[Record]:
    """The peak resident memory of a process that makes three training steps.

    Args:
        engines: those that train. threads: of each process.
    """
    for job in jobs:
        for engine in engines:
            command = [sys.executable, "-m", "attnnet.bench.child", engine.name, str(threads)]
            command += [job.arch, job.block or "none", str(job.batch), str(job.classes)]
            done = subprocess.run(command, capture_output=True, text=True)
            failed = done.returncode != 0
            yield Record(
                "memory",
                f"{job.network}, batch {job.batch}",
                engine.name,
                None if failed else float(done.stdout) / 2**20,
                "MiB",
                higher=False,
                precision=engine.precision,
                note=(done.stderr.strip().splitlines() or ["failed"])[-1] if failed else "",
            )


def import_time(names: Sequence[str], rounds: int = 9) -> Iterator[Record]:
    """Milliseconds that an import takes in a process that has NumPy already.

    Args:
        names: modules. rounds: processes of each; their median is reported.
    """
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            code = "import numpy, time; a = time.perf_counter(); " \
                   f"import {name}; print(time.perf_counter() - a)"  # fmt: skip
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            if done.returncode == 0:
                taken[name].append(float(done.stdout))
    for name, seconds in taken.items():
        value = 1e3 * statistics.median(seconds) if seconds else None
        yield Record("import", f"import {name}", name, value, "ms", higher=False)


def installed_size(names: Sequence[str]) -> Iterator[Record]:
    """MiB on disk of a package with what it needs but NumPy.

    Args:
        names: keys of ``INSTALLED``.
    """
    for name in names:
        sizes = {part: _size(part) for part in INSTALLED[name]}
        missing = [part for part, size in sizes.items() if size is None]
        total = sum(size or 0 for size in sizes.values()) / 2**20
        note = f"without {', '.join(missing)}: not installed" if missing else ""
        yield Record("size", f"{name} installed", name, total, "MiB", higher=False, note=note)


def _size(distribution: str) -> int | None:
    if distribution == "attnnet":  # whose list of files, in a source tree, is that of the sources
        paths = list(Path(__file__).parents[1].rglob("*"))
    else:
        try:
            files = metadata.files(distribution)
        except metadata.PackageNotFoundError:
            return None
        paths = [Path(str(file.locate())) for file in files or []]
    return sum(path.stat().st_size for path in paths if path.is_file())


def peak_memory() -> int:
    """Bytes that this process held resident at most."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak

