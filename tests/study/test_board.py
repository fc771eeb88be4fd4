"""What a study shows while it goes, in a terminal, in a notebook and in a log."""

import io
import sys
import types

import pytest

from attnnet.study import board as boards
from attnnet.study.board import Board
from attnnet.study.folder import State
from study.small import plan


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = types.SimpleNamespace(time=1000.0)
    monkeypatch.setattr(boards, "time", types.SimpleNamespace(monotonic=lambda: now.time))
    return now


def states(*kinds):
    return {run.name: State(kind) for run, kind in zip(plan().runs, kinds, strict=True)}


def progress(share, epochs=0, **more):
    return {"event": "progress", "share": share, "epochs": epochs, "of": 10, **more}


BASE, SE = (run.name for run in plan().runs[:2])


def test_a_terminal_shows_what_goes_on_and_how_long_it_takes(monkeypatch, clock):
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "120")
    board = Board("mine", states("done", "waiting", "waiting", "waiting"))
    assert out.getvalue() == "study mine: 1 of 4 runs done; 0 s\n"
    board.event(SE, {"event": "start", "pid": 1})
    board.event(SE, progress(0.5, 5))  # it goes on from its middle
    clock.time += 60
    board.event(SE, progress(0.75, 7, top1=61.234))
    last = out.getvalue().split("\x1b[")[-1].split("J", 1)[-1].splitlines()
    # A quarter took a minute: a quarter is left of this one, four each of the two others.
    assert last == [
        "study mine: 1 of 4 runs done, 1 running; 1 min 00 s, about 9 min 00 s to go",
        f"  {SE}  running  7/10  61.23 %  1 min 00 s left",
    ]
    assert "\x1b[1F\x1b[J" in out.getvalue(), "drawn over the last drawing"
    board.event(SE, {"event": "end", "outcome": {"state": "failed", "message": "why", "kind": "x"}})
    assert out.getvalue().endswith(f"  {SE}  failed  7/10  61.23 %  why\n")


def test_a_run_that_is_begun_again_has_no_pace_yet(clock):
    board = Board("mine", states(*["waiting"] * 4), show=False)
    board.event(SE, {"event": "start", "pid": 1})
    board.event(SE, progress(0.1))
    clock.time += 60
    board.event(SE, progress(0.5))
    assert board.lines[SE].remaining(clock.time) == 75
    board.event(SE, {"event": "again", "message": "it died"})
    board.event(SE, {"event": "start", "pid": 2})
    assert board.lines[SE].remaining(clock.time) is None


def test_nothing_is_drawn_twice_in_a_moment(monkeypatch, clock):
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    board = Board("mine", states(*["waiting"] * 4))
    before = out.getvalue()
    for _ in range(5):
        board.event(SE, progress(0.1))
    assert out.getvalue() == before
    clock.time += 1
    board.event("", {"event": "tick"})
    assert out.getvalue() != before


def test_a_small_terminal_is_not_overrun(monkeypatch, clock):
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "5")
    board = Board("mine", states(*["begun"] * 4))
    board.draw(force=True)
    lines = out.getvalue().splitlines()
    assert lines[-1] == "  and 2 more" and all(len(line.split("J")[-1]) < 30 for line in lines)


def test_a_log_gets_a_line_when_something_begins_or_ends(capsys):
    board = Board("mine", states(*["waiting"] * 4))
    board.event(SE, {"event": "start", "pid": 1})
    board.event(SE, progress(0.5))
    board.event(SE, {"event": "again", "message": "its process was killed by SIGKILL"})
    board.event(SE, {"event": "start", "pid": 2})
    board.event(SE, {"event": "end", "outcome": {"state": "done"}})
    assert capsys.readouterr().out.splitlines() == [
        "study mine: 0 of 4 runs done",
        f"{SE}: started (0 of 4 runs done, 1 running)",
        f"{SE}: its process was killed by SIGKILL; it goes on from its last checkpoint "
        "(0 of 4 runs done)",
        f"{SE}: started (0 of 4 runs done, 1 running)",
        f"{SE}: done (1 of 4 runs done)",
    ]


def test_a_notebook_has_one_table_that_changes(monkeypatch, clock):
    shown = []

    class Handle:
        def update(self, html):
            shown.append(html)

    display = types.ModuleType("IPython.display")
    display.HTML = str
    display.display = lambda html, display_id: shown.append(html) or Handle()
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(boards, "in_notebook", lambda: True)
    board = Board("a <b>", states("failed", "waiting", "waiting", "waiting"))
    board.event(SE, {"event": "start", "pid": 1})
    clock.time += 2
    board.event(SE, progress(0.3, 3, top1=50.0))
    assert len(shown) == 2, "drawn, then changed"
    assert "study a &lt;b&gt;: 0 of 4 runs done, 1 running, 1 failed" in shown[1]
    assert "<td" in shown[1] and "50.00 %" in shown[1] and "3/10" in shown[1]


def test_silence(capsys):
    board = Board("mine", states(*["waiting"] * 4), show=False)
    board.event(SE, {"event": "start", "pid": 1})
    assert capsys.readouterr() == ("", "")


def test_a_stopped_run_has_begun():
    board = Board("mine", states(*["waiting"] * 4), show=False)
    board.event(BASE, {"event": "start", "pid": 1})
    board.event(BASE, {"event": "end", "outcome": {"state": "stopped"}})
    assert board.lines[BASE].kind == "begun" and board.count("running") == 0
