"""The heat map of a study: which block, at which stages; a table whose cells are coloured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..markup import Html

if TYPE_CHECKING:
    from .plan import Family
    from .results import Results, Row


def heat_map(results: Results, family: Family) -> tuple[list[str], list[list[Html | str]]] | None:
    """Differences to the base, block x stages, as a table whose cells are coloured.

    Returns:
        The head and the rows; None where there are not two blocks and two sets of stages.
    """
    found: dict[str, dict[str, Row]] = {}
    for row in results.of(family):
        name, sign, stages = row.name.rpartition("_")
        if row.difference is not None and sign and "+" not in row.name and stages.isdigit():
            found.setdefault(name, {})[stages] = row
    stages = sorted({s for rows in found.values() for s in rows}, key=lambda s: (len(s), s))
    if len(found) < 2 or len(stages) < 2:
        return None
    most = max(abs(r.difference.mean) for rows in found.values() for r in rows.values())  # type: ignore[union-attr]
    return ["block", *(f"stages {s}" if len(s) > 1 else f"stage {s}" for s in stages)], [
        [name, *(_cell(rows.get(s), most) for s in stages)] for name, rows in found.items()
    ]


def _cell(row: Row | None, most: float) -> Html | str:
    if row is None:
        return ""
    gap = row.difference.mean  # type: ignore[union-attr]
    share = round(55 * abs(gap) / most) if most else 0
    colour = "var(--good)" if gap > 0 else "var(--bad)"
    mark = {"better": " ▲", "worse": " ▼"}.get(row.verdict, "")
    return Html(
        f'<span style="display:block;padding:.2rem .5rem;background:color-mix(in srgb, {colour} '
        f'{share}%, transparent)">{gap:+.2f}{mark}</span>'
    )
