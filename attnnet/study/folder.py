"""A study's folder: its plan, its lock, a folder for each run and what state that is in.

    study.json       the plan, the commands that worked on it, where the data were
    runs/NAME/       a training's folder, and beside its files:
        predictions.safetensors  what the chosen epoch says of each test image
        result.json              the figures of a run that is done; written last
        failed.json              why a run could not be done
        log.txt                  what the training said
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError
from ..training.files import is_leftover, write_atomically
from ..training.folder import LAST
from ..training.lock import FolderLock
from ..training.recipe import Recipe
from .plan import Plan, Run
from .predictions import Predictions

STUDY, LOCK = "study.json", "study.lock"
RESULT, FAILED, LOG = "result.json", "failed.json", "log.txt"
# Of a run, beside its summary, localisation and machine: numbers, or None where not measured.
FIGURES = ("ece", "step_ms", "parameters", "multiply_adds", "skipped")
# What makes failing again certain: the same recipe gives the same bits, NaN among them.
FINAL = ("NaNLossError",)


@dataclass
class State:
    """Where a run stands.

    Attributes:
        kind: "waiting", "begun", "done" or "failed".
        message: why it failed.
        final: it would fail again.
    """

    kind: str
    message: str = ""
    final: bool = False


class StudyFolder:
    """A folder that one study at a time may work in.

    Args:
        path: the folder; made by ``open``.

    ``open`` takes the lock, ``close`` gives it back; reading needs neither.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock: FolderLock | None = None

    def file(self, *names: str) -> str:
        """The path of a file in the folder."""
        return os.path.join(self.path, *names)

    def of(self, run: Run, *names: str) -> str:
        """The path of a run's folder, or of a file in it."""
        return self.file("runs", run.name, *names)

    def read(self) -> dict[str, Any]:
        """What ``study.json`` holds.

        Raises:
            CheckpointError: the folder holds no study, or a corrupt one.
        """
        path = self.file(STUDY)
        try:
            with open(path, encoding="utf-8") as file:
                record = json.load(file)
        except FileNotFoundError:
            raise CheckpointError(f"{self.path}: holds no study (there is no {STUDY}).") from None
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: corrupt: {error}.") from None
        if not isinstance(record, dict) or not isinstance(record.get("plan"), dict):
            raise CheckpointError(f"{path}: corrupt: there is no plan in it.")
        commands, data = record.get("commands", []), record.get("data")
        if not isinstance(commands, list) or not isinstance(data, (str, type(None))):
            raise CheckpointError(f"{path}: corrupt: its commands or its data are no text.")
        return record

    def plan(self) -> Plan:
        """The plan of the study that the folder holds.

        Raises:
            CheckpointError: it holds none. ValueError: a block of one's own is not registered.
        """
        return Plan.from_dict(self.read()["plan"])

    def open(self, plan: Plan) -> str | None:
        """Makes the folder and takes its lock, for a plan.

        Returns:
            Where the data sets' files were when the study began; None: nobody said.

        Raises:
            CheckpointError: another study is at work here, the folder holds another study, or it
                cannot be written to.
        """
        try:
            with self._writing():
                os.makedirs(self.path, exist_ok=True)
                self._lock = FolderLock(self.path, LOCK, "study")
                found = [name for name in os.listdir(self.path) if name != LOCK]
                data = None
                if STUDY in found:
                    record = self.read()
                    _check_grown(Plan.from_dict(record["plan"]), plan, self.path)
                    data = record.get("data")
                elif not all(is_leftover(name, STUDY) for name in found):
                    raise CheckpointError(
                        f"the folder {self.path} holds other things, but no study; choose another "
                        "folder."
                    )
                for name in filter(is_leftover, found):
                    os.unlink(self.file(name))
                return data
        except BaseException:
            self.close()
            raise

    def book(self, plan: Plan, command: str, data: str | None = None) -> None:
        """Writes down what is done in the folder.

        Args:
            plan: the study. command: that works on it. data: where the data sets' files are.

        Raises:
            CheckpointError: the folder cannot be written to.
        """
        commands = self.read().get("commands", []) if os.path.exists(self.file(STUDY)) else []
        if command not in commands:
            commands = [*commands, command]
        record = {"plan": plan.to_dict(), "commands": commands, "data": data}
        with self._writing():
            write_atomically(self.file(STUDY), (json.dumps(record, indent=1) + "\n").encode())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"cannot write to the folder {self.path}: {error.strerror or error}."
            ) from error

    def close(self) -> None:
        """Gives the lock back; does nothing without it."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def state(self, run: Run) -> State:
        """Where a run stands, as its folder shows."""
        return State("done") if self.done(run) is not None else self.undone(run)

    def undone(self, run: Run) -> State:
        """Where a run stands that is not done."""
        with contextlib.suppress(OSError, ValueError, RecursionError), \
                open(self.of(run, FAILED), encoding="utf-8") as file:  # fmt: skip
            failure = json.load(file)
            if isinstance(failure, dict):
                kind = str(failure.get("kind"))
                return State("failed", str(failure.get("message", "")), kind in FINAL)
        return State("begun" if os.path.exists(self.of(run, LAST)) else "waiting")

    def done(self, run: Run) -> tuple[dict[str, Any], Predictions] | None:
        """The figures of a run that is done, and what it says of the images; None: it is not."""
        return read_done(self.of(run), run.recipe)


def read_done(folder: str, recipe: Recipe) -> tuple[dict[str, Any], Predictions] | None:
    """The figures of a run that was done by this very recipe, as ``result.json`` holds them, and
    what it says of the images. None where it was not, or where either file is corrupt: both can
    be made again."""
    try:
        with open(os.path.join(folder, RESULT), encoding="utf-8") as file:
            result = json.load(file)
        if not _is_result(result) or result["recipe"] != recipe.to_dict():
            return None
        return result, Predictions.read(folder)
    except (OSError, ValueError, RecursionError, CheckpointError):
        return None


def _is_result(result: Any) -> bool:
    """Whether these are figures that a report can be made of."""
    if not isinstance(result, dict) or not isinstance(result.get("recipe"), dict):
        return False
    summary, looked = result.get("summary"), result.get("localisation")
    machine, figures = result.get("machine"), [result.get(name) for name in FIGURES]
    return (
        isinstance(summary, dict) and _is_number(summary.get("test_top1"))
        and (looked is None or isinstance(looked, dict))
        and (machine is None or isinstance(machine, dict))
        and all(x is None or _is_number(x) for x in (*figures, *(looked or {}).values()))
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    """An ordinary one: no truth value, not NaN, nor too large for a float."""
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e300


def write_failure(folder: str, kind: str, message: str) -> None:
    """Books why a run failed, where the disk has room for that."""
    text = json.dumps({"kind": kind, "message": message}) + "\n"
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        write_atomically(os.path.join(folder, FAILED), text.encode())


def _check_grown(there: Plan, here: Plan, path: str) -> None:
    """Refuses a plan that lacks or changes a run of the plan that the folder holds."""
    mine = {run.name: run.recipe for run in here.runs}
    for run in there.runs:
        if run.name not in mine:
            raise CheckpointError(
                f"the folder {path} holds another study: it has the run {run.name}, which is not "
                "in this plan. Choose another folder, or give a plan that only adds to that one."
            )
        other = mine[run.name].differences(run.recipe).values()
        if other:
            raise CheckpointError(
                f"the folder {path} holds another study: in {run.name} {'; '.join(other)}. Choose "
                "another folder."
            )
