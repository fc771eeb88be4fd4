"""The report of a study: a page that needs no other file, the same as Markdown, and CSV."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from ..markup import Html, as_html
from ..report import Page
from ..training.files import write_atomically
from .inference import ALPHA, LEVEL, POWER
from .plan import Family
from .presets import PUBLISHED, PUBLISHED_NOTE
from .results import Results
from .sentences import p_text
from .tables import cells, head, in_two, rows_csv, runs_csv

_NOTES = (
    "Each run's epoch was chosen on images held out of the training images; the test images were "
    "looked at once, by that epoch.",
    f"Intervals are {100 * LEVEL:g} % ones. Over seeds: Student's t of the differences to the base "
    "on the same seeds; p is of that paired test, after Holm's correction over all comparisons of "
    f"the study, and below {ALPHA:g} a row is called better or worse. Over images and seeds: a "
    "bootstrap that draws both anew, which is too narrow for two or three seeds. The table of "
    "McNemar's tests of single pairs is not corrected.",
    "How many seeds would tell half a point is an estimate from how far the differences of this "
    "study spread: so many give the paired test, at its level over the number of comparisons, a "
    f"chance of {100 * POWER:g} %. Seeds that are added because of a result make it look surer "
    "than it is.",
    "ECE: expected calibration error, 15 bins. Localisation: Grad-CAM for the true class against "
    "the objects' masks, over up to 500 test images. Time a step is as it was in these runs, with "
    "whatever else the machine did, and with more cores where fewer runs were left.",
)


def write_report(folder: str | os.PathLike[str]) -> str:
    """Writes ``report.html``, ``report.md``, ``rows.csv`` and ``runs.csv`` into a study's folder,
    of the runs that are done so far.

    Args:
        folder: of a study. Needs no lock: a study may be at work in it.

    Returns:
        The path of the page.

    Raises:
        CheckpointError: the folder holds no study. OSError: a file cannot be written.
    """
    results = Results(os.fspath(folder))
    home = results.home
    write_atomically(home.file("rows.csv"), rows_csv(results).encode())
    write_atomically(home.file("runs.csv"), runs_csv(results).encode())
    write_atomically(home.file("report.md"), markdown(results).encode())
    page(results).write(home.file("report.html"))
    return home.file("report.html")


def page(results: Results) -> Page:
    """The page. Figures need matplotlib; without it the page says so and has the rest."""
    found = Page(f"Study {results.plan.name}")
    found.text(_state(results), note=True)
    for family in results.plan.families:
        found.heading(str(family))
        for row in results.of(family):
            found.text(_marked(row.sentence, row.verdict))
        for names, rows in _tables(results, family):
            found.table(names, rows)
        _figures(found, results, family)
        published = _published(results, family)
        if published:
            found.text("The study's published figures beside these")
            found.table(*published)
            found.text(PUBLISHED_NOTE, note=True)
        tests = _tests(results, family)
        if tests:
            found.text("Each pair of trained networks by itself: McNemar's test on the test images")
            found.table(*tests)
    failed = [(n, s.message) for n, s in results.states.items() if s.kind == "failed"]
    if failed:
        found.heading("Failed")
        found.table(["run", "why"], failed)
    found.heading("How this was done")
    for note in _NOTES:
        found.text(note, note=True)
    found.table(["", ""], _made_by(results))
    plan = json.dumps(results.plan.to_dict(), indent=1)
    found.add(Html(f"<details><summary>the plan</summary><pre>{as_html(plan)}</pre></details>"))
    return found


def _figures(found: Page, results: Results, family: Family) -> None:
    from .heat import heat_map
    from .strips import strips

    try:
        from .charts import curves, effects, svg

        for make, what in ((effects, _EFFECTS), (curves, _CURVES)):
            figure = make(results, family)
            if figure is not None:
                found.text(what)
                found.add(svg(figure, what))
    except ModuleNotFoundError as error:
        found.text(f"no figures: {error}", note=True)
    heat = heat_map(results, family)
    if heat is not None:
        found.text("Block x stages: difference to the base in points (▲ better, ▼ worse)")
        found.table(*heat)
    try:
        pictures = strips(results, family)
    except ModuleNotFoundError as error:  # Pillow
        found.text(f"no pictures of images: {error}", note=True)
        return
    if pictures is not None:
        found.text("The same test images in every network")
        found.table(*pictures)


_EFFECTS = (
    "Difference to the base on the same seeds: mean (dot), 95 % interval over seeds (line), each "
    "seed (ticks), what the study published (diamond)"
)
_CURVES = "Validation accuracy: mean over the seeds, from the lowest to the highest seed (band)"


def markdown(results: Results) -> str:
    """The report as Markdown, without its pictures."""
    lines = [f"# Study {results.plan.name}", "", _state(results), ""]
    for family in results.plan.families:
        lines += [f"## {family}", ""]
        lines += [f"- {row.sentence}" for row in results.of(family)]
        for names, rows in _tables(results, family):
            lines += ["", *_table(names, rows)]
        lines.append("")
        published = _published(results, family)
        if published:
            lines += ["The study's published figures beside these:", "", *_table(*published), "",
                      PUBLISHED_NOTE, ""]  # fmt: skip
        tests = _tests(results, family)
        if tests:
            lines += ["McNemar's test, each pair of trained networks by itself:", ""]
            lines += [*_table(*tests), ""]
    failed = [(n, s.message) for n, s in results.states.items() if s.kind == "failed"]
    if failed:
        lines += ["## Failed", "", *_table(["run", "why"], failed), ""]
    lines += ["## How this was done", "", *(f"- {note}" for note in _NOTES), ""]
    lines += _table(["", ""], _made_by(results))
    return "\n".join(lines).rstrip() + "\n"


def _tables(results: Results, family: Family) -> list[tuple[list[str], list[list[str]]]]:
    """What the rows reach, and what they cost: heads and rows of two tables."""
    rows = [in_two(cells(results, row)) for row in results.of(family)]
    return [(names, [row[i] for row in rows]) for i, names in enumerate(in_two(head(results)))]


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table in Markdown."""
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    return [line(names), line(["---"] * len(names)), *map(line, rows)]


def _state(results: Results) -> str:
    kinds = [state.kind for state in results.states.values()]
    text = f"{kinds.count('done')} of {len(kinds)} runs done"
    text += f", {kinds.count('failed')} failed" if "failed" in kinds else ""
    return text + ("." if results.is_done else "; the rest is still to do.")


def _published(results: Results, family: Family) -> tuple[list[str], list[list[str]]] | None:
    """What the study published for a family's rows; None where it did not."""
    there = PUBLISHED.get((family.arch, family.dataset))
    if there is None:
        return None
    rows = []
    for row in results.of(family):
        last, best = there.get(row.block, (None, None))
        rows.append([row.name, *(f"{v:.2f}" if v is not None else "-" for v in (last, best)),
                     "-" if row.accuracy is None else f"{row.accuracy.mean:.2f}"])  # fmt: skip
    return ["block", "published, last epoch %", "published, best epoch %", "here %"], rows


def _tests(results: Results, family: Family) -> tuple[list[str], list[list[str]]] | None:
    rows = [
        [row.name, str(seed), str(t.both), str(t.lost), str(t.gained), str(t.neither),
         p_text(t.exact), p_text(t.mid)]
        for row in results.of(family) for seed, t in sorted(row.tests.items())
    ]  # fmt: skip
    names = ["block", "seed", "both right", "only the base", "only the block", "both wrong",
             "p, exact", "mid-p"]  # fmt: skip
    return (names, rows) if rows else None


def _made_by(results: Results) -> list[list[str]]:
    """Machines, versions and commands."""
    rows = [["command", command] for command in results.home.record.get("commands", [])]
    machines: dict[str, None] = {}
    for row in results.rows:
        for one in row.done.values():
            facts = one.result.get("machine") or {}
            shown = {k: v for k, v in facts.items() if k not in ("threads", "memory")}
            machines[", ".join(f"{k} {v}" for k, v in shown.items())] = None
    return rows + [["machine", text] for text in machines]


def _marked(text: str, verdict: str) -> Html | str:
    kind = {"better": "right", "worse": "wrong"}.get(verdict)
    return Html(f"<span class={kind}>{as_html(text)}</span>") if kind else text

