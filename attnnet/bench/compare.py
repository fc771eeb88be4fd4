"""The same work by several systems: their results compared with ours, then timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import numpy as np

from .apart import Apart, Failed
from .engine import Attnnet, Engine
from .runner import Runner
from .timing import Timing, interleaved

SETTLE = 0.05  # seconds between two systems


def compare(
    engines: Sequence[Engine],
    make: Callable[[Engine], Callable[[], Runner]],
    wrong: Callable[[np.ndarray, np.ndarray, str], str],
    rounds: int,
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Times of the engines' steps, each in a process of its own.

    Args:
        engines: this package first.
        make: of an engine, what makes its runner in that process, as pickle can send it.
        wrong: of an engine's result, ours and its precision, what is wrong with it; "" for nothing.
        rounds: as in :func:`interleaved`.

    Returns:
        By the engine's name, the times of those whose results are right, and of the others why
        they have none.
    """
    runners: dict[str, Apart] = {}
    notes: dict[str, str] = {}
    with ExitStack() as stack:
        for engine in engines:
            try:
                runner = stack.enter_context(closing(Apart(make(engine))))
                found = runner.logits()
            except Failed as error:  # another system's failure must not end the benchmark
                if isinstance(engine, Attnnet):
                    raise
                notes[engine.name] = f"failed: {error}"
                continue
            if isinstance(engine, Attnnet):
                ours = found
            elif note := wrong(found, ours, engine.precision):
                notes[engine.name] = f"not timed: {note}"
                continue
            runners[engine.name] = runner
        return interleaved(runners, rounds, rest=SETTLE if len(runners) > 1 else 0), notes
