"""Times of several pieces of work, taken in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

# Seconds between two systems in one process: the threads of some go on turning for a while after
# their last call, and would take a core from the next.
BETWEEN_SYSTEMS = 0.2


class Repeated(Protocol):
    """Work that times itself."""

    def seconds(self, calls: int) -> float:
        """The time that so many calls take."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: each round's mean."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, as a share of the median: 0.01 is 1 %."""
        if len(self.rounds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def timed(call: Callable[[], object], calls: int) -> float:
    """Seconds of so many calls."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - begin


def interleaved(
    work: Mapping[str, Callable[[], object] | Repeated],
    rounds: int = 5,
    least: float = 0.1,
    rest: float = 0.0,
) -> dict[str, Timing]:
    """Times of each piece of work, one after the other in each round.

    Args:
        work: name -> what to call, or what times itself.
        rounds: how often all are timed in turn (default 5).
        least: seconds that a round of one piece lasts at least, by repeated calls (default 0.1).
        rest: seconds of sleep before each piece (default 0).

    Returns:
        name -> its timing. One call of each before the first round is not counted, nor, after a
        rest, the first of quick work, which finds its memory no longer in the caches.
    """
    clocks: dict[str, Callable[[int], float]] = {
        name: partial(timed, one) if callable(one) else one.seconds for name, one in work.items()
    }
    calls = {}
    for name, clock in clocks.items():
        clock(1)
        calls[name] = max(1, round(least / max(clock(1), 1e-9)))
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, clock in clocks.items():
            if rest:
                time.sleep(rest)
                if calls[name] > 1:
                    clock(1)
            taken[name].append(clock(calls[name]) / calls[name])
    return {name: Timing(tuple(values)) for name, values in taken.items()}
