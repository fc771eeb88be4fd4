"""What can be said of a row in a plain sentence, and no more than that."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import Row


def sentence(row: Row) -> str:
    """The row's sentence: better, worse or not told apart, and what would tell half a point."""
    lead = f"{row.name}: "
    if row.accuracy is None:
        return lead + "no run is done." + _missing(row)
    count = row.accuracy.count
    if row.block is None:
        spread = "" if count < 2 else f", standard deviation {row.accuracy.sd:.2f}"
        return lead + f"{row.accuracy.mean:.2f} % over {_seeds(count)}{spread}." + _missing(row)
    if row.difference is None:
        return lead + "cannot be compared: no seed is done both here and in the base." + \
            _missing(row)  # fmt: skip
    if row.difference.count == 1:
        return lead + _of_one_seed(row) + _missing(row)
    gap, p = row.difference, row.p
    figures = f"{gap.mean:+.2f} points (95 % interval {gap.low:+.2f} to {gap.high:+.2f}"
    if math.isnan(p):
        return lead + (
            f"not told apart from the base: all {gap.count} seeds differ by the same "
            f"{gap.mean:+.2f} points, so that nothing says how far seeds spread."
        ) + _missing(row)  # fmt: skip
    figures += f"; p {_p(p)}{_corrected(row)})"
    if row.verdict != "not told apart":
        return lead + f"{row.verdict} than the base, {figures}, over {_seeds(gap.count)}." + \
            _missing(row)  # fmt: skip
    return lead + f"not told apart from the base, {figures}. {_needed(row)}" + _missing(row)


def _of_one_seed(row: Row) -> str:
    (gap,), tests = row.differences.values(), list(row.tests.values())
    text = f"not told apart from the base: one seed ({gap:+.2f} points) says nothing of others."
    if tests:
        differ = "do" if tests[0].mid < 0.05 else "do not even"
        text += (
            f" On the test images these two trained networks {differ} differ beyond chance "
            f"(McNemar, mid-p {_p(tests[0].mid)})."
        )
    return text


def _needed(row: Row) -> str:
    count, needed = row.difference.count, row.seeds_for_half  # type: ignore[union-attr]
    if needed is None:
        return "How many seeds would tell half a point is beyond estimation."
    if needed <= count:
        return f"Half a point would most likely have shown: {_seeds(needed)} would do for that."
    return f"About {needed} seeds would tell half a point."


def _corrected(row: Row) -> str:
    many = row.comparisons
    return f", corrected for {many} comparisons" if many > 1 else ""


def _missing(row: Row) -> str:
    failed = [seed for seed, state in row.missing.items() if state.kind == "failed"]
    left = [seed for seed, state in row.missing.items() if state.kind != "failed"]
    text = ""
    if failed:
        text += f" Failed: seed {', '.join(map(str, failed))}."
    if left:
        text += f" Not done yet: seed {', '.join(map(str, left))}."
    return text


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"


def _p(p: float) -> str:
    """A p-value with as many digits as it is worth."""
    if p < 0.0001:
        return "below 0.0001"
    return f"{p:.4f}" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
