"""How many cores this process may use: what its user, its affinity and its control group say."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

MOST_THREADS = 256  # that the core takes


def affinity() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def quota(root: str | os.PathLike[str] = "/") -> float | None:
    """How many cores' worth of time the process's control groups grant it, for example 1.5 in a
    container started with ``--cpus 1.5``; None where they set no limit.

    Args:
        root: the folder that holds ``proc`` and ``sys``.

    Source: the kernel's documentation of control groups, versions 1 (``cpu.cfs_quota_us``) and 2
    (``cpu.max``).
    """
    limits = []
    for folder in _groups(Path(root)):
        limit = _version_2(folder) or _version_1(folder)
        if limit is not None:
            limits.append(limit)
    return min(limits, default=None)


def free() -> int:
    """The cores that affinity and control groups leave, a part of one counted as one; at most
    256."""
    granted = quota()
    cores = len(affinity()) if granted is None else min(len(affinity()), math.ceil(granted))
    return max(1, min(cores, MOST_THREADS))


def own() -> int | None:
    """The number of threads that ``ATTNNET_NUM_THREADS`` sets; None where it does not.

    Raises:
        ValueError: it is no number from 1 to 256.
    """
    text = os.environ.get("ATTNNET_NUM_THREADS", "").strip()
    if not text:
        return None
    if not _is_count(text) or int(text) > MOST_THREADS:
        raise ValueError(
            f"the environment variable ATTNNET_NUM_THREADS is {text!r}, expected a number from "
            f"1 to {MOST_THREADS}"
        )
    return int(text)


def chosen() -> int | None:
    """What ``ATTNNET_NUM_THREADS`` sets, or else ``OMP_NUM_THREADS``, at most 256; None where
    neither does.

    Raises:
        ValueError: as :func:`own`.
    """
    # Made for other libraries: "4", or "4,2" for regions within regions. Anything else is theirs.
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return own() or (min(int(text), MOST_THREADS) if _is_count(text) else None)


def default_threads() -> int:
    """As many as are chosen, else as cores are free."""
    return chosen() or free()


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the process's groups and of all groups around them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount / controllers if controllers else mount
        inner = top / name.lstrip("/")
        yield inner
        yield from (folder for folder in inner.parents if folder.is_relative_to(top))


def _version_2(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    return _cores(*words) if len(words) == 2 else None


def _version_1(folder: Path) -> float | None:
    return _cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _cores(granted: str, period: str) -> float | None:
    """None for no limit, which is "max" or -1."""
    try:
        cores = int(granted) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
