"""What a study shows while it goes: a table in a terminal and in a notebook, lines elsewhere."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..markup import as_html, table
from ..training.progress import duration, in_notebook
from .folder import State

_OFTEN = {"terminal": 0.25, "notebook": 1.0}  # seconds between two drawings, at least
_ORDER = ("running", "failed", "begun", "done", "waiting")


@dataclass
class Line:
    """A run's line. kind: as in ``State``, or "running"."""

    kind: str
    share: float = 0.0
    epochs: int = 0
    of: int = 0
    top1: float | None = None
    since: float = 0.0
    share_then: float = 0.0
    note: str = ""

    def whole(self, now: float) -> float | None:
        """Seconds that all of it takes at its pace since it was started here; None: not known."""
        gone = self.share - self.share_then
        if self.kind != "running" or gone <= 0:
            return None
        return (now - self.since) / gone

    def remaining(self, now: float) -> float | None:
        """Seconds to its end; None: not known yet."""
        whole = self.whole(now)
        return None if whole is None else whole * (1 - self.share)


class Board:
    """The state of all runs, shown as it changes.

    Args:
        title: of the study. states: by the name of each run the state that it is in.
        show: True: a table where there is room for one, else a line when a run starts or ends;
            "lines": the lines alone; False: nothing.
    """

    def __init__(
        self, title: str, states: Mapping[str, State], show: bool | str = True
    ) -> None:
        self.title = title
        self.lines = {name: Line(state.kind, note=state.message) for name, state in states.items()}
        self._place = _place() if show is True else "lines" if show else "nowhere"
        self._began = self._drawn = time.monotonic()
        self._height = 0
        self._handle: Any = None
        if self._place == "lines":
            print(f"study {title}: {self.summary()}", flush=True)
        self.draw(force=True)

    def event(self, name: str, word: dict[str, Any]) -> None:
        """Takes in what happened to a run."""
        kind = word["event"]
        if kind != "tick":
            self._take(self.lines[name], name, kind, word)
        self.draw(force=kind in ("end", "again"))

    def _take(self, line: Line, name: str, kind: str, word: dict[str, Any]) -> None:
        if kind == "start":
            line.kind, line.note = "running", ""
            line.since, line.share_then = 0.0, line.share
            self._say(f"{name}: started")
        elif kind == "progress":
            if not line.since:
                line.since, line.share_then = time.monotonic(), word["share"]
            line.share, line.epochs, line.of = word["share"], word["epochs"], word["of"]
            line.top1 = word.get("top1", line.top1)
        elif kind == "again":
            line.kind, line.note = "begun", word["message"]
            self._say(f"{name}: {word['message']}; it goes on from its last checkpoint")
        elif kind == "end":
            outcome = word["outcome"]
            line.kind = {"stopped": "begun"}.get(outcome["state"], outcome["state"])
            line.note = outcome.get("message", "")
            self._say(f"{name}: {_ended(outcome)}")

    def count(self, kind: str) -> int:
        """How many runs are in a state."""
        return sum(line.kind == kind for line in self.lines.values())

    def failures(self) -> dict[str, str]:
        """Why runs failed, by their names."""
        return {name: line.note for name, line in self.lines.items() if line.kind == "failed"}

    def summary(self) -> str:
        """All runs in one line."""
        parts = [f"{self.count('done')} of {len(self.lines)} runs done"]
        parts += [f"{n} {kind}" for kind in ("running", "failed") if (n := self.count(kind))]
        return ", ".join(parts)

    def _head(self) -> str:
        now = time.monotonic()
        text = f"study {self.title}: {self.summary()}; {duration(now - self._began)}"
        left = self._remaining(now)
        return text + (f", about {duration(left)} to go" if left else "")

    def _remaining(self, now: float) -> float | None:
        """Seconds to the end of the study, as if all runs took as long as those that go."""
        known = [whole for line in self.lines.values() if (whole := line.whole(now)) is not None]
        if not known:
            return None
        todo = sum(1 - line.share for line in self.lines.values()
                   if line.kind in ("running", "begun", "waiting"))  # fmt: skip
        return statistics.fmean(known) * todo / len(known)

    def rows(self) -> list[list[str]]:
        """A row a run that there is something to say of: name, state, epochs, accuracy, rest."""
        now = time.monotonic()
        found = sorted(self.lines.items(), key=lambda item: _ORDER.index(item[1].kind))
        rows = []
        for name, line in found:
            epochs = f"{line.epochs}/{line.of}" if line.of else ""
            top1 = "" if line.top1 is None else f"{line.top1:.2f} %"
            left = line.remaining(now)
            rest = f"{duration(left)} left" if left else line.note
            rows.append([name, line.kind, epochs, top1, rest])
        return rows

    def draw(self, force: bool = False) -> None:
        """Shows the table, unless it was shown a moment ago."""
        now = time.monotonic()
        if self._place not in _OFTEN or (not force and now - self._drawn < _OFTEN[self._place]):
            return
        self._drawn = now
        if self._place == "terminal":
            self._draw_terminal()
        else:
            self._draw_notebook()

    def _draw_terminal(self) -> None:
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 3)
        rows = [row for row in self.rows() if row[1] not in ("waiting", "done")]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(5)]
        lines = [self._head()]
        for row in rows[:room]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
        if len(rows) > room:
            lines.append(f"  and {len(rows) - room} more")
        # Up to the first line of the last drawing, and clear from there.
        up = f"\x1b[{self._height}F\x1b[J" if self._height else ""
        sys.stdout.write(up + "".join(line[: size.columns - 1] + "\n" for line in lines))
        sys.stdout.flush()
        self._height = len(lines)

    def _draw_notebook(self) -> None:
        from IPython.display import HTML, display

        rows = [row for row in self.rows() if row[1] != "waiting"]
        inside = table(("run", "state", "epochs", "validation", ""), rows) if rows else ""
        shown = HTML(f"<p>{as_html(self._head())}</p>{inside}")
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def _say(self, text: str) -> None:
        if self._place == "lines":
            print(f"{text} ({self.summary()})", flush=True)


def _place() -> str:
    if in_notebook():
        return "notebook"
    return "terminal" if hasattr(sys.stdout, "isatty") and sys.stdout.isatty() else "lines"


def _ended(outcome: dict[str, Any]) -> str:
    if outcome["state"] == "failed":
        return f"failed: {outcome['message']}"
    return outcome["state"]
