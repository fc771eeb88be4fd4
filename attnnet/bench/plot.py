"""A picture of a comparison: how many times faster, case by case. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .record import Record, best, ratio

_COLOURS = {"float32": "#0072b2", "bfloat16": "#e69f00"}  # told apart by the colour-blind, too


def plot(records: Sequence[Record], path: Path) -> None:
    """Bars of attnnet over the best other system of each precision; a line marks 1, where both are
    equal. Writes nothing where there is nothing to compare."""
    from matplotlib.figure import Figure

    bars = _ratios(records)
    if not bars:
        return
    figure = Figure(figsize=(8, 0.3 * len(bars) + 1.2), layout="constrained")
    axes = figure.subplots()
    for row, (_, precision, times, other) in enumerate(bars):
        axes.barh(row, times, color=_COLOURS[precision])
        axes.text(times, row, f" {times:.2f} x {other}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(bars)), [case for case, *_ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_xlabel("attnnet over the best other system (above 1: attnnet is better)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _ratios(records: Sequence[Record]) -> list[tuple[str, str, float, str]]:
    """(case, precision, ratio, the other system)."""
    found = []
    for section, case in dict.fromkeys((r.section, r.case) for r in records):
        here = [r for r in records if (r.section, r.case) == (section, case)]
        ours = best(r for r in here if r.engine == "attnnet")
        for precision in _COLOURS:
            other = best(r for r in here if r.engine != "attnnet" and r.precision == precision)
            times = ratio(ours, other) if ours and other else None
            if times and other:
                found.append((f"{section}: {case}", precision, times, other.engine))
    return found
