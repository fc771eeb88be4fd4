"""A study's results as rows of cells: for the terminal, notebooks, pages, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .sentences import p_text

if TYPE_CHECKING:
    from .inference import Mean
    from .results import Results, Row

_REACHED = [
    "block", "seeds", "test %", "sd", "95 % over seeds", "to base", "95 % over seeds",
    "95 % over images and seeds", "p", "",
]  # fmt: skip
_COSTS = ["parameters", "multiply-adds", "ms a step", "ECE %"]


def in_two(columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns of :func:`head` or :func:`cells` for two tables, as one is too wide to read:
    what the rows reach, and what they cost."""
    many = len(_REACHED)
    return [*columns[:many]], [columns[0], *columns[many:]]


def head(results: Results) -> list[str]:
    """The columns of :func:`cells`."""
    return [*_REACHED, *_COSTS, *(f"{name} %" for name in results.measures)]


def cells(results: Results, row: Row) -> list[str]:
    """A row for people."""
    found = [row.name, _count(row)]
    found += [_number(row.accuracy, "mean"), _number(row.accuracy, "sd"), _range(row.accuracy)]
    found += [_number(row.difference, "mean", "+"), _range(row.difference, "+")]
    found.append("" if row.interval is None else _from_to(*row.interval, "+"))
    found.append("" if math.isnan(row.p) else p_text(row.p))
    found.append(row.verdict)
    for name in ("parameters", "multiply_adds"):
        value = row.figure(name)
        found.append("" if value is None else f"{value:,.0f}")
    found += [_digits(row.figure("step_ms"), 0), _digits(row.figure("ece"), 2)]
    found += [_digits(row.figure("localisation", name), 1) for name in results.measures]
    return found


def text(results: Results) -> str:
    """The results for a terminal: a short table and a sentence a row."""
    lines = []
    for family in results.plan.families:
        rows = [[row.name, _count(row), _number(row.accuracy, "mean"),
                 _number(row.accuracy, "sd"), _number(row.difference, "mean", "+"),
                 _range(row.difference, "+"), "" if math.isnan(row.p) else p_text(row.p)]
                for row in results.of(family)]  # fmt: skip
        lines += [f"{family}:", *aligned(["block", "seeds", "test %", "sd", "to base",
                                          "95 % over seeds", "p"], rows)]  # fmt: skip
        lines += ["", *(row.sentence for row in results.of(family)), ""]
    lines += [f"failed: {name}: {message}" for name, message in results.failures]
    return "\n".join(lines).rstrip()


def aligned(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as it needs."""
    everything = [names, *rows]
    widths = [max(len(row[i]) for row in everything) for i in range(len(names))]
    return [
        "  " + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in everything
    ]  # fmt: skip


def rows_csv(results: Results) -> str:
    """A line a network, all figures in full."""
    lines = []
    for row in results.rows:
        line: dict[str, Any] = {
            "network": row.family.arch, "dataset": row.family.dataset,
            "recipe": row.family.recipe, "block": row.name, "seeds": len(row.done),
        }  # fmt: skip
        for what, mean in (("test_top1", row.accuracy), ("difference", row.difference)):
            line |= {f"{what}_{name}": mean and getattr(mean, name)
                     for name in ("mean", "sd", "low", "high")}  # fmt: skip
        line["difference_low_images_and_seeds"] = row.interval and row.interval[0]
        line["difference_high_images_and_seeds"] = row.interval and row.interval[1]
        line |= {"p": row.difference and row.difference.p, "p_holm": row.p, "verdict": row.verdict,
                 "seeds_for_half_a_point": row.seeds_for_half}  # fmt: skip
        line |= {name: row.figure(name) for name in
                 ("parameters", "multiply_adds", "step_ms", "ece")}  # fmt: skip
        line |= {name: row.figure("localisation", name) for name in results.measures}
        lines.append(line)
    return _csv(lines)


def runs_csv(results: Results) -> str:
    """A line a run: its state, its figures, and McNemar's test against the base of its seed."""
    lines = []
    for row in results.rows:
        for run in row.runs:
            state, done = results.states[run.name], row.done.get(run.seed)
            line: dict[str, Any] = {
                "run": run.name, "network": row.family.arch, "dataset": row.family.dataset,
                "recipe": row.family.recipe, "block": row.name, "seed": run.seed,
                "state": state.kind, "message": state.message,
            }  # fmt: skip
            summary = done.result["summary"] if done else {}
            line |= {name: summary.get(name) for name in
                     ("test_top1", "test_top5", "test_loss", "best_epoch", "best_top1",
                      "last_top1", "epochs", "seconds")}  # fmt: skip
            line |= {name: done and done.result.get(name) for name in
                     ("ece", "step_ms", "parameters", "multiply_adds", "skipped")}  # fmt: skip
            line["difference"] = row.differences.get(run.seed)
            test = row.tests.get(run.seed)
            line |= {name: test and getattr(test, name) for name in ("gained", "lost")}
            line |= {f"mcnemar_{name}": test and getattr(test, name) for name in ("exact", "mid")}
            lines.append(line)
    return _csv(lines)


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: _plain(value) for key, value in line.items()})
    return out.getvalue()


def _plain(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _count(row: Row) -> str:
    failed = sum(state.kind == "failed" for state in row.missing.values())
    whole = len(row.done) + len(row.missing)
    text = str(len(row.done)) if not row.missing else f"{len(row.done)} of {whole}"
    return text + (f", {failed} failed" if failed else "")


def _number(mean: Mean | None, name: str, sign: str = "") -> str:
    return "" if mean is None else _digits(getattr(mean, name), 2, sign)


def _digits(value: float | None, digits: int, sign: str = "") -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:{sign}.{digits}f}"


def _range(mean: Mean | None, sign: str = "") -> str:
    return "" if mean is None or math.isnan(mean.low) else _from_to(mean.low, mean.high, sign)


def _from_to(low: float, high: float, sign: str) -> str:
    return f"{low:{sign}.2f} to {high:{sign}.2f}"
