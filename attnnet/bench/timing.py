"""Times of several pieces of work, taken in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Seconds between two systems: the threads of some go on turning for a while after their last call,
# and would take a core from the next.
BETWEEN_SYSTEMS = 0.2


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


def interleaved(
    work: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    least: float = 0.1,
    rest: float = 0.0,
) -> dict[str, Timing]:
    """Times of each piece of work, one after the other in each round.

    Args:
        work: name -> what to call.
        rounds: how often all are timed in turn (default 5).
        least: seconds that a round of one piece lasts at least, by repeated calls (default 0.1).
        rest: seconds of sleep before each piece (default 0).

    Returns:
        name -> its timing. One call of each before the first round is not counted, nor, after a
        rest, the first of quick work, which finds its memory no longer in the caches.
    """
    calls = {}
    for name, call in work.items():
        call()
        begin = time.perf_counter()
        call()
        seconds = time.perf_counter() - begin
        calls[name] = max(1, round(least / max(seconds, 1e-9)))
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            if rest:
                time.sleep(rest)
                if calls[name] > 1:
                    call()
            begin = time.perf_counter()
            for _ in range(calls[name]):
                call()
            taken[name].append((time.perf_counter() - begin) / calls[name])
    return {name: Timing(tuple(values)) for name, values in taken.items()}
