"""What a benchmark found: records, tables of them, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """One figure.

    Attributes:
        section: the part of the benchmark, for example "training".
        case: what was measured, for example "resnet18 NEW_12, batch 128".
        engine: who did it.
        precision: "float32" or "bfloat16".
        value: the figure; None where there is none, and `note` says why.
        unit: its unit.
        higher: whether a higher value is the better one.
        spread: half the distance of the quartiles over the median, of repeated measurements.
        note: what else is to be known.
    """

    section: str
    case: str
    engine: str
    value: float | None
    unit: str
    higher: bool = True
    precision: str = "float32"
    spread: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def ratio(ours: Record, theirs: Record) -> float | None:
    """How many times better we are: above 1 a win, below 1 a loss."""
    if not ours.value or not theirs.value:
        return None
    return ours.value / theirs.value if ours.higher else theirs.value / ours.value


def best(records: Iterable[Record]) -> Record | None:
    """The record with the best value, or None."""
    found = [record for record in records if record.value]
    if not found:
        return None
    return max(found, key=lambda r: r.value if r.higher else -r.value)  # type: ignore[operator]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its columns aligned so that it reads well as it is."""
    table = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(3, *(len(row[i]) for row in table)) for i in range(len(head))]
    lines = [_line(table[0], widths), _line(["-" * width for width in widths], widths)]
    return "\n".join(lines + [_line(row, widths) for row in table[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"


def number(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 99.95:
        return f"{value:,.0f}"
    digits = 2 if abs(value) < 9.995 else 1
    return f"{value:.{digits}f}" if abs(value) >= 0.1 else f"{value:.2g}"


def comparison(records: Sequence[Record]) -> str:
    """One table a section: a row a case, a column an engine, and how many times attnnet is better
    than the best other engine of float32 and of bfloat16."""
    parts = []
    for section in dict.fromkeys(record.section for record in records):
        here = [record for record in records if record.section == section]
        engines = list(dict.fromkeys(record.engine for record in here))
        head = [section, "unit", *engines]
        precisions = [
            precision
            for precision in ("float32", "bfloat16")
            if "attnnet" in engines
            and any(r.precision == precision and r.engine != "attnnet" for r in here)
        ]
        head += [f"x best {precision}" for precision in precisions]
        rows = []
        for case, unit in dict.fromkeys((record.case, record.unit) for record in here):
            row = {r.engine: r for r in here if (r.case, r.unit) == (case, unit)}
            cells = [number(row[e].value) if e in row else "" for e in engines]
            for precision in precisions:
                others = [r for e, r in row.items() if e != "attnnet" and r.precision == precision]
                top, ours = best(others), row.get("attnnet")
                times = ratio(ours, top) if top and ours else None
                cells.append("" if times is None else f"{times:.2f}")
            rows.append([case, unit, *cells])
        notes = [f"{r.case}, {r.engine}: {r.note}" for r in here if r.note]
        parts.append("\n\n".join([markdown(head, rows), *notes]))
    return "\n\n".join(parts)
