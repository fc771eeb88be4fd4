"""What the runs of a study say together: a row a network, each compared with its base."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping
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
from .sentences import sentence
from .tables import cells, head, text


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
        runs: all of them. done: those that are, by seed. missing: seeds without a figure, and why.
        accuracy: test accuracy in per cent; None where no run is done.
        difference: to the base on the same seeds and test images, in points; None for the base,
            and without such pairs.
        differences: that of each seed, in points.
        strange: seeds whose test images were not those of the base, so that nothing compares them.
        interval: 95 % interval of the difference over images and seeds at once, in points; None
            for fewer than two seeds.
        tests: McNemar's, a seed each, not corrected.
        p: of the paired t-test over seeds, after Holm's correction over all comparisons of the
            study; NaN where there is no test.
        mid: where one seed is compared, mid-p of its McNemar's test, corrected likewise; else NaN.
        seeds_for_half: how many seeds would tell half a point, by how far the differences of
            ``spread_of`` rows of the family spread; None: not known.
        comparisons: how many the corrections count: those that the plan makes, done or not.
    """

    family: Family
    block: str | None
    runs: list[Run] = field(default_factory=list)
    done: dict[int, Done] = field(default_factory=dict)
    missing: dict[int, State] = field(default_factory=dict)
    accuracy: Mean | None = None
    difference: Mean | None = None
    differences: dict[int, float] = field(default_factory=dict)
    strange: list[int] = field(default_factory=list)
    interval: tuple[float, float] | None = None
    tests: dict[int, McNemar] = field(default_factory=dict)
    p: float = math.nan
    mid: float = math.nan
    seeds_for_half: int | None = None
    spread_of: int = 0
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
        folder: of the study; all but the curves is read once, now.
        plan: default: the folder's.
        states: where runs stand that are not done, as ``run`` found it; default: as the folder
            shows, which does not know of a failure that the disk had no room for.

    Attributes:
        plan: the ``Plan``.
        rows: one ``Row`` a network, family by family, each family's base first.
        states: by a run's name where it stands: ``kind`` is "waiting", "begun", "done" or "failed",
            ``message`` why it failed.
        home: the folder with its files.
        commands: that worked in it. data: where the data sets' files were; None: where
            ``attnnet.data.load`` looks anyway.

    Raises:
        CheckpointError: the folder holds no study, or a corrupt one.
        ValueError: its plan names a block or network of one's own that is not registered.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        plan: Plan | None = None,
        states: Mapping[str, State] | None = None,
    ) -> None:
        self.home = StudyFolder(folder)
        record = self.home.read()
        self.plan = plan or Plan.from_dict(record["plan"])
        self.commands: list[str] = record.get("commands", [])
        self.data: str | None = record.get("data")
        self.states: dict[str, State] = {}
        self._families: dict[Family, dict[str | None, Row]] = {}
        for run in self.plan.runs:
            self._read(run, states or {})
        self.rows = [row for family in self._families for row in self.of(family)]
        for row in self.rows:
            if row.done:
                row.accuracy = mean_over_seeds([one.top1 for one in row.done.values()])
            if row.block is not None:
                _compare(row, self._families[row.family][None])
        self._correct()

    def _read(self, run: Run, states: Mapping[str, State]) -> None:
        rows = self._families.setdefault(run.family, {})
        row = rows.setdefault(run.block, Row(run.family, run.block))
        row.runs.append(run)
        done = self.home.done(run)
        if done is not None:
            row.done[run.seed] = Done(run, *done)
            self.states[run.name] = State("done")
            return
        state = states.get(run.name)
        if state is None or state.kind == "done":
            state = self.home.undone(run)
        self.states[run.name] = row.missing[run.seed] = state

    def of(self, family: Family) -> list[Row]:
        """The rows of a family, the base first."""
        return list(self._families[family].values())

    @property
    def is_done(self) -> bool:
        """Whether no run is left to do; some may have failed."""
        return all(state.kind in ("done", "failed") for state in self.states.values())

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Names of the runs that failed, and why."""
        return [(n, state.message) for n, state in self.states.items() if state.kind == "failed"]

    @cached_property
    def histories(self) -> dict[str, History | None]:
        """The curves of the runs that are done, by name; None where they are missing or corrupt.
        They are read when they are first asked for."""
        found: dict[str, History | None] = {}
        for one in (one for row in self.rows for one in row.done.values()):
            try:
                found[one.run.name] = History.from_json(self.home.of(one.run, "history.json"))
            except (OSError, ValueError):
                found[one.run.name] = None
        return found

    def _correct(self) -> None:
        """Holm's correction over all comparisons, and how many seeds half a point needs."""
        many = sum(row.block is not None for row in self.rows)
        compared = [row for row in self.rows if row.difference is not None]
        tested = [row for row in compared if len(row.differences) > 1]
        adjusted = holm([row.difference.p for row in tested], many)  # type: ignore[union-attr]
        for row, p in zip(tested, adjusted, strict=True):
            row.p = p
        single = [row for row in compared if len(row.differences) == 1]
        mids = holm([test.mid for row in single for test in row.tests.values()], many)
        for row, mid in zip(single, mids, strict=True):
            row.mid = mid
        # One deviation for the whole family: that of two or three seeds alone is mere luck.
        squares: dict[Family, list[float]] = {}
        for row in tested:
            squares.setdefault(row.family, []).append(row.difference.sd**2)  # type: ignore[union-attr]
        for row in compared:
            row.comparisons = many
            found = squares.get(row.family)
            if found:
                row.spread_of = len(found)
                sd = math.sqrt(statistics.fmean(found))
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
        return text(self)

    def _repr_html_(self) -> str:
        parts = []
        for family in self.plan.families:
            parts.append(f"<p><b>{as_html(family)}</b></p>")
            parts.append(table(head(self), [cells(self, row) for row in self.of(family)]))
            items = "".join(f"<li>{as_html(row.sentence)}</li>" for row in self.of(family))
            parts.append(f"<ul>{items}</ul>")
        return "".join(parts)


def _compare(row: Row, base: Row) -> None:
    """Fills in what says how a row differs from its base, on the seeds and the test images that
    both have."""
    gains, images = [], set()
    for seed, two in row.done.items():
        one = base.done.get(seed)
        if one is None:
            continue
        if one.said.which != two.said.which:
            row.strange.append(seed)
            continue
        row.differences[seed] = two.top1 - one.top1
        row.tests[seed] = mcnemar(one.said.right, two.said.right)
        gains.append(100.0 * (two.said.right.astype(float) - one.said.right))
        images.add(two.said.which)
    if gains:
        row.difference = mean_over_seeds(list(row.differences.values()))
    if len(gains) > 1:
        row.interval = bootstrap(gains, len(images) == 1)
