"""What can be said of a row in a plain sentence, and no more than that."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..training.setup import optimizer_text
from .inference import ALPHA, HALF_A_POINT

if TYPE_CHECKING:
    from ..training.recipe import Recipe
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
        why = "no seed is done both here and in the base."
        if row.strange:
            why = "the test images were not those of the base."
        return lead + "cannot be compared: " + why + _missing(row)
    if row.difference.count == 1:
        return lead + _of_one_seed(row) + _missing(row)
    gap, p = row.difference, row.p
    figures = f"{gap.mean:+.2f} points (95 % interval {gap.low:+.2f} to {gap.high:+.2f}"
    if math.isnan(p):
        seeds = "both seeds" if gap.count == 2 else f"all {gap.count} seeds"
        text = (
            f"not told apart from the base: {seeds} differ by the same {gap.mean:+.2f} points, "
            "so that nothing says how far seeds spread."
        )
        return lead + text + _needed(row) + _missing(row)
    figures += f"; p {p_text(p)}{_corrected(row)}), over {_seeds(gap.count)}."
    joined = " from the base, " if row.verdict == "not told apart" else " than the base, "
    return lead + row.verdict + joined + figures + _needed(row) + _missing(row)


def _of_one_seed(row: Row) -> str:
    (gap,) = row.differences.values()
    text = f"not told apart from the base: one seed ({gap:+.2f} points) says nothing of others."
    if not math.isnan(row.mid):
        differ = "do" if row.mid < ALPHA else "do not even"
        text += (
            f" On the test images these two trained networks {differ} differ beyond chance "
            f"(McNemar, mid-p {p_text(row.mid)}{_corrected(row)})."
        )
    return text + _needed(row)


def _needed(row: Row) -> str:
    """How many seeds half a point needs; by the spread of all rows together, as the row's own may
    be wider than that."""
    gap, needed = row.difference, row.seeds_for_half
    if needed is None:
        return " How many seeds would tell half a point cannot be estimated from these."
    told = row.verdict != "not told apart"
    if told or needed > gap.count or not gap.high - gap.mean < HALF_A_POINT:  # type: ignore[union-attr]
        pooled = f" (by the spread of {row.spread_of} rows)" if row.spread_of > 1 else ""
        return f" About {_seeds(needed)}{pooled} would tell half a point."
    return f" Half a point would most likely have shown: {_seeds(needed)} would do for that."


def _corrected(row: Row) -> str:
    many = row.comparisons
    return f", corrected for {many} comparisons" if many > 1 else ""


def _missing(row: Row) -> str:
    failed = [seed for seed, state in row.missing.items() if state.kind == "failed"]
    left = [seed for seed, state in row.missing.items() if state.kind != "failed"]
    text = ""
    if row.strange and row.differences:
        strange = ", ".join(map(str, row.strange))
        text += f" Not compared, since the test images were not those of the base: seed {strange}."
    if failed:
        text += f" Failed: seed {', '.join(map(str, failed))}."
    if left:
        text += f" Not done yet: seed {', '.join(map(str, left))}."
    return text


def training_text(recipe: Recipe) -> str:
    """How the runs of a family are trained, in a line."""
    held = recipe.validation
    part = f"{held:,}" if isinstance(held, int) else f"{100 * held:g} %"  # type: ignore[operator]
    return (
        f"{recipe.epochs} epochs of {recipe.batch_size} images a step, {optimizer_text(recipe)}; "
        f"{part} of the training images held out"
    )


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"


def p_text(p: float) -> str:
    """A p-value with as many digits as it is worth."""
    if p < 0.0001:
        return "below 0.0001"
    return f"{p:.4f}" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
