"""Where the time goes, by operation: a table, and a trace for the usual viewers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from . import _core
from .markup import table


class Event(NamedTuple):
    """One call of an operation of the core."""

    name: str  # as the operation's function
    backward: bool  # whether it computed gradients
    thread: int  # the calling thread, a number of its own
    begin: int  # nanoseconds since some moment
    duration: int  # nanoseconds
    shapes: tuple[tuple[int, ...], ...]  # of its first tensors; backward: of the gradient


class Row(NamedTuple):
    """All calls of one operation."""

    name: str
    backward: bool
    shapes: tuple[tuple[int, ...], ...]  # empty where calls of all shapes are summed
    calls: int
    seconds: float
    share: float  # of the profile's seconds, in %


class Profile:
    """Notes each operation that runs inside a ``with`` block, in all threads.

        >>> with attnnet.Profile() as profile:
        ...     loss = F.cross_entropy(model(images), labels)
        ...     loss.backward()
        >>> print(profile)
        >>> profile.save_trace("step.json")

    Attributes:
        events: the calls, in the order in which they ended.
        seconds: how long the block took.
        lost: calls that found no memory to be noted.

    Raises:
        RuntimeError: on entering, while another profile is running.
    """

    events: list[Event]
    seconds: float
    lost: int

    def __init__(self) -> None:
        self.events, self.seconds, self.lost = [], 0.0, 0

    def __enter__(self) -> Profile:
        _core.profile_start()
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.seconds = time.perf_counter() - self._begin
        events, self.lost = _core.profile_stop()
        self.events = [Event(*event) for event in events]

    def rows(self, shapes: bool = False) -> list[Row]:
        """The operations, the one that took longest first.

        Args:
            shapes: one row for each combination of shapes (default: all shapes in one).
        """
        calls: dict[tuple, int] = {}
        spent: dict[tuple, int] = {}
        for event in self.events:
            key = event.name, event.backward, event.shapes if shapes else ()
            calls[key] = calls.get(key, 0) + 1
            spent[key] = spent.get(key, 0) + event.duration
        order = sorted(spent, key=spent.__getitem__, reverse=True)
        return [
            Row(*key, calls[key], spent[key] / 1e9, spent[key] / 1e7 / self.seconds)
            for key in order
        ]

    def table(self, shapes: bool = False, limit: int | None = 30) -> str:
        """The rows as text; what they leave of the block's time is Python's and the caller's.

        Args:
            shapes: as for :meth:`rows`.
            limit: so many rows at most (default 30; None: all).
        """
        lines = [f"{'operation':<26} {'calls':>6} {'ms':>10} {'%':>6}" + "  shapes" * shapes]
        for name, calls, milliseconds, share, sizes in self._cells(shapes, limit):
            lines.append(f"{name:<26} {calls:>6} {milliseconds:>10} {share:>6}  {sizes}".rstrip())
        return "\n".join(lines)

    def _cells(self, shapes: bool, limit: int | None) -> Iterable[tuple[str, ...]]:
        rows = self.rows(shapes)
        shown = rows if limit is None else rows[:limit]
        for row in shown:
            yield (
                row.name + ", backward" * row.backward,
                str(row.calls),
                f"{1e3 * row.seconds:.2f}",
                f"{row.share:.1f}",
                ", ".join("x".join(map(str, shape)) for shape in row.shapes),
            )
        hidden = sum(row.seconds for row in rows[len(shown):])
        outside = self.seconds - sum(row.seconds for row in rows)
        for name, seconds in (("less", hidden), ("outside operations", outside)):
            if seconds > 0:
                share = f"{100 * seconds / self.seconds:.1f}"
                yield name, "", f"{1e3 * seconds:.2f}", share, ""
        yield "all", str(len(self.events)), f"{1e3 * self.seconds:.2f}", "", ""

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        cells = (row[:4] for row in self._cells(False, 30))
        return table(("operation", "calls", "ms", "%"), cells)

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes a trace in the Trace Event Format, which Perfetto (ui.perfetto.dev), Chrome's
        about:tracing and speedscope open."""
        begin = min((event.begin for event in self.events), default=0)
        trace = [
            {
                "name": event.name,
                "cat": "backward" if event.backward else "forward",
                "ph": "X",
                "ts": (event.begin - begin) / 1e3,
                "dur": event.duration / 1e3,
                "pid": 0,
                "tid": event.thread,
                "args": {"shapes": [list(shape) for shape in event.shapes]},
            }
            for event in self.events
        ]
        Path(path).write_text(json.dumps({"traceEvents": trace, "displayTimeUnit": "ms"}))

