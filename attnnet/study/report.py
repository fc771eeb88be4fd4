"""The report of a study: a page that needs no other file, the same as Markdown, and CSV."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from ..markup import Html, as_html
from ..report import Markdown, Page
from ..training.files import write_atomically
from .charts import curves, effects, svg
from .heat import heat_map
from .inference import ALPHA, LEVEL, POWER
from .measure import BINS, LOOKED_AT
from .plan import Family
from .presets import PUBLISHED, PUBLISHED_NOTE
from .results import Results
from .sentences import p_text, training_text
from .strips import strips
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
    f"ECE: expected calibration error, {BINS} bins. Localisation: Grad-CAM for the true class "
    f"against the objects' masks, over up to {LOOKED_AT} test images. Time a step is as it was in "
    "these runs, with whatever else the machine did, and with more cores where fewer runs were "
    "left.",
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
    results = Results(folder)
    texts: dict[str, Callable[[], str]] = {
        "rows.csv": lambda: rows_csv(results), "runs.csv": lambda: runs_csv(results),
        "report.md": lambda: str(markdown(results)), "report.html": lambda: page(results).html(),
    }  # fmt: skip
    for name, make in texts.items():
        text = make()
        try:
            write_atomically(results.home.file(name), text.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, results.home.file(name)) from error
    return results.home.file("report.html")


def page(results: Results) -> Page:
    """The page. Figures need matplotlib; without it the page says so and has the rest."""
    found = Page(f"Study {results.plan.name}")
    _fill(found, results, lambda family: _figures(found, results, family))
    plan = json.dumps(results.plan.to_dict(), indent=1)
    found.add(Html(f"<details><summary>the plan</summary><pre>{as_html(plan)}</pre></details>"))
    return found


def markdown(results: Results) -> Markdown:
    """The same as Markdown, without its pictures."""
    found = Markdown(f"Study {results.plan.name}")
    _fill(found, results)
    return found


def _fill(
    out: Page | Markdown, results: Results, figures: Callable[[Family], None] | None = None
) -> None:
    """Writes the report."""
    out.text(_state(results), note=True)
    for family in results.plan.families:
        rows = results.of(family)
        out.heading(str(family))
        out.text(f"{training_text(rows[0].runs[0].recipe)}.", note=True)
        kinds = [{"better": "right", "worse": "wrong"}.get(row.verdict, "") for row in rows]
        out.items([row.sentence for row in rows], kinds)
        for table in _tables(results, family):
            out.table(*table)
        if figures is not None:
            figures(family)
        published = _published(results, family)
        if published:
            out.text("The study's published figures beside these:")
            out.table(*published)
            out.text(PUBLISHED_NOTE, note=True)
        tests = _tests(results, family)
        if tests:
            out.text("McNemar's test on the test images, each pair of trained networks by itself:")
            out.table(*tests)
    if results.failures:
        out.heading("Failed")
        out.table(["run", "why"], results.failures)
    out.heading("How this was done")
    out.items(_NOTES, ["note"] * len(_NOTES))
    out.table(["", ""], _made_by(results))


def _figures(out: Page, results: Results, family: Family) -> None:
    """What only a page can show."""
    try:
        for make, what in ((effects, _EFFECTS), (curves, _CURVES)):
            figure = make(results, family)
            if figure is not None:
                out.text(what)
                out.add(svg(figure, what))
    except ModuleNotFoundError as error:
        out.text(f"no figures: {error}", note=True)
    done = [one.run.name for row in results.of(family) for one in row.done.values()]
    lost = [name for name in done if results.histories[name] is None]
    if lost:
        names = ", ".join(lost)
        out.text(f"no curve of {names}: history.json is missing there or corrupt", note=True)
    heat = heat_map(results, family)
    if heat is not None:
        out.text("Block x stages: difference to the base in points (▲ better, ▼ worse)")
        out.table(*heat)
    try:
        pictures = strips(results, family)
    except (ModuleNotFoundError, OSError, TypeError, ValueError) as error:
        out.text(f"no pictures of images: {error}", note=True)
        return
    if pictures is not None:
        out.text("The same test images in every network")
        out.table(*pictures)


_EFFECTS = (
    "Difference to the base on the same seeds: mean (dot), 95 % interval over seeds (line), each "
    "seed (ticks), what the study published (diamond)"
)
_CURVES = "Validation accuracy: mean over the seeds, from the lowest to the highest seed (band)"


def _tables(results: Results, family: Family) -> list[tuple[list[str], list[list[str]]]]:
    """What the rows reach, and what they cost: heads and rows of two tables."""
    rows = [in_two(cells(results, row)) for row in results.of(family)]
    return [(names, [row[i] for row in rows]) for i, names in enumerate(in_two(head(results)))]


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
    rows = [["command", command] for command in results.commands]
    machines: dict[str, None] = {}
    for row in results.rows:
        for one in row.done.values():
            facts = one.result.get("machine") or {}
            shown = {k: v for k, v in facts.items() if k not in ("threads", "memory")}
            machines[", ".join(f"{k} {v}" for k, v in shown.items())] = None
    return rows + [["machine", text] for text in machines]
