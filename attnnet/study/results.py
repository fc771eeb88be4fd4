"""What the runs of a study say together: a row a network, each compared with its base."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..markup import as_html, table
from ..training.history import History
from .folder import State, StudyFolder
from .inference import (
    ALPHA,
    HALF_A_POINT,
    McNemar,
    Mean,
    bootstrap,
    holm,
    mcnemar,
    mean_over_seeds,
    seeds_needed,
)
from .plan import Family, Plan, Run
from .predictions import Predictions


@dataclass(frozen=True)
class Done:
    """A run that is done.

    Attributes:
        run: it. result: its figures, as ``result.json`` holds them. said: of the test images.
    """

    run: Run
    result: dict[str, Any]
    said: Predictions

    @property
    def top1(self) -> float:
        """Accuracy on the test images, of the epoch that the validation images chose."""
        return float(self.result["summary"]["test_top1"])


@dataclass
class Row:
    """A network of a study, over all seeds.

    Attributes:
        family: network, data set and recipe. block: the placement; None: the base.
        done: its runs by seed. missing: seeds without a figure, and why.
        accuracy: test accuracy in per cent; None where no run is done.
        difference: to the base on the same seeds, in points; None for the base, and without pairs.
        differences: that of each seed, in points.
        interval: 95 % interval of that difference over images and seeds at once, in points; None
            for fewer than two seeds, or where the test images were not the same.
        tests: McNemar's, a seed each, not corrected.
        p: of the paired t-test over seeds, after Holm's correction over all comparisons of the
            study; NaN where there is no test.
        mid: where one seed is compared, mid-p of its McNemar's test, corrected likewise; else NaN.
        seeds_for_half: how many seeds would tell half a point; None: not known.
        comparisons: how many the corrections count: those that the plan makes, done or not.
    """

    family: Family
    block: str | None
    done: dict[int, Done]
    missing: dict[int, State]
    accuracy: Mean | None = None
    difference: Mean | None = None
    differences: dict[int, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    tests: dict[int, McNemar] = field(default_factory=dict)
    p: float = math.nan
    mid: float = math.nan
    seeds_for_half: int | None = None
    comparisons: int = 0

    @property
    def name(self) -> str:
        """The placement, or "base"."""
        return self.block or "base"

    @property
    def verdict(self) -> str:
        """"better", "worse", "not told apart", or "" for the base and without a comparison."""
        if self.difference is None:
            return ""
        if self.p < ALPHA:
            return "better" if self.difference.mean > 0 else "worse"
        return "not told apart"

    @property
    def sentence(self) -> str:
        """What can be said of the row, plainly."""
        from .sentences import sentence

        return sentence(self)

    def figure(self, *path: str) -> float | None:
        """The mean over the seeds of a figure in ``result.json``; None where a run lacks it."""
        found = []
        for one in self.done.values():
            value: Any = one.result
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if not isinstance(value, (int, float)):
                return None
            found.append(float(value))
        return statistics.fmean(found) if found else None


class Results:
    """A study as far as it is done. ``print`` shows a table and a sentence a row, a notebook more.

    Args:
        folder: of the study; it is read once, now. plan: default: the folder's.

    Attributes:
        plan: the ``Plan``.
        rows: one ``Row`` a network, family by family, each family's base first.
        states: by a run's name where it stands: ``kind`` is "waiting", "begun", "done" or "failed",
            ``message`` why it failed.
        home: the folder with its files.

    Raises:
        CheckpointError: the folder holds no study, or a corrupt one.
        ValueError: its plan names a block or network of ones own that is not registered.
    """

    def __init__(self, folder: str, plan: Plan | None = None) -> None:
        self.home = StudyFolder(folder)
        self.plan = plan or self.home.plan
        self.states = {run.name: self.home.state(run) for run in self.plan.runs}
        self.rows = [
            self._row(family, block)
            for family in self.plan.families for block in self.plan.placements(family)
        ]  # fmt: skip
        for family in self.plan.families:
            base = next(row for row in self.rows if (row.family, row.block) == (family, None))
            for row in self.of(family):
                if row.block is not None:
                    _compare(row, base)
        self._correct()

    def of(self, family: Family) -> list[Row]:
        """The rows of a family, the base first."""
        return [row for row in self.rows if row.family == family]

    @property
    def is_done(self) -> bool:
        """Whether no run is left to do; some may have failed."""
        return all(state.kind in ("done", "failed") for state in self.states.values())

    @property
    def data(self) -> str | None:
        """Where the data sets' files were; None: where ``attnnet.data.load`` looks anyway."""
        return self.home.record.get("data")

    def history(self, run: Run) -> History:
        """The curves of a run. Raises: OSError, ValueError: there are none."""
        return History.from_json(self.home.of(run, "history.json"))

    def _row(self, family: Family, block: str | None) -> Row:
        row = Row(family, block, {}, {})
        for run in self.plan.runs:
            if (run.family, run.block) != (family, block):
                continue
            done = self.home.done(run)
            if done is None:
                row.missing[run.seed] = self.states[run.name]
            else:
                row.done[run.seed] = Done(run, *done)
        if row.done:
            row.accuracy = mean_over_seeds([one.top1 for one in row.done.values()])
        return row

    def _correct(self) -> None:
        """Holm's correction over all comparisons, and how many seeds half a point needs."""
        many = sum(row.block is not None for row in self.rows)
        compared = [row for row in self.rows if row.difference is not None]
        tested = [row for row in compared if row.difference.count > 1]  # type: ignore[union-attr]
        adjusted = holm([row.difference.p for row in tested], many)  # type: ignore[union-attr]
        for row, p in zip(tested, adjusted, strict=True):
            row.p = p
        single = [row for row in compared if row not in tested and row.tests]
        mids = holm([test.mid for row in single for test in row.tests.values()], many)
        for row, mid in zip(single, mids, strict=True):
            row.mid = mid
        for row in compared:
            row.comparisons = many
            # One deviation for the whole family: that of two or three seeds alone is mere luck.
            squares = [other.difference.sd**2 for other in tested if other.family == row.family]  # type: ignore[union-attr]
            if squares:
                sd = math.sqrt(statistics.fmean(squares))
                row.seeds_for_half = seeds_needed(HALF_A_POINT, sd, ALPHA / many)

    @cached_property
    def measures(self) -> list[str]:
        """The names of the localisation measures that the runs have."""
        names: dict[str, None] = {}
        for row in self.rows:
            for one in row.done.values():
                names |= dict.fromkeys(one.result.get("localisation") or {})
        return list(names)

    def __str__(self) -> str:
        from .tables import text

        return text(self)

    def _repr_html_(self) -> str:
        from .tables import cells, head

        parts = []
        for family in self.plan.families:
            parts.append(f"<p><b>{as_html(family)}</b></p>")
            parts.append(table(head(self), [cells(self, row) for row in self.of(family)]))
            items = "".join(f"<li>{as_html(row.sentence)}</li>" for row in self.of(family))
            parts.append(f"<ul>{items}</ul>")
        return "".join(parts)


def _compare(row: Row, base: Row) -> None:
    """Fills in what says how a row differs from its base, on the seeds that both have."""
    pairs = [(base.done[seed], row.done[seed]) for seed in row.done if seed in base.done]
    if not pairs:
        return
    row.differences = {two.run.seed: two.top1 - one.top1 for one, two in pairs}
    row.difference = mean_over_seeds(list(row.differences.values()))
    seeds = {two.run.seed: (one.said, two.said) for one, two in pairs}
    alike = {seed: said for seed, said in seeds.items() if said[0].which == said[1].which}
    row.tests = {seed: mcnemar(one.right, two.right) for seed, (one, two) in alike.items()}
    if len(alike) == len(pairs) > 1:
        gains = [100.0 * (two.right.astype(float) - one.right) for one, two in alike.values()]
        row.interval = bootstrap(gains, len({two.which for _, two in alike.values()}) == 1)
