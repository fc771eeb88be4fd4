"""One run, in this process: trained to its end, measured, its figures written."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..config import get_num_threads, set_num_threads
from ..errors import CheckpointError, NaNLossError
from ..own import import_modules
from ..training.callbacks import BatchResult, Callback
from ..training.folder import LAST
from ..training.interrupt import StopRequest
from ..training.lock import FolderInUseError
from ..training.once import train
from ..training.recipe import Recipe
from ..training.state import fingerprint
from ..training.trainer import Trainer
from .folder import FAILED, read_done, write_failure
from .measure import write_result
from .predictions import Predictions

if TYPE_CHECKING:
    from ..training import Evaluation, History

Tell = Callable[[dict[str, Any]], None]
# Seconds that a lock of the run's folder is waited for: who holds it may have lost its study, which
# on a cluster it notices after a minute, and is about to end after its step.
_PATIENCE = 150.0
_OFTEN = 0.5  # seconds between two reports of steps


@dataclass(frozen=True)
class Task:
    """What a worker needs to know of a run; plain values, so that it can be sent anywhere.

    Attributes:
        name: of the run. folder: its folder. recipe: as ``Recipe.to_dict`` gives it.
        data: the folder of the data sets' files, or None.
        imports: modules to import first. threads: to compute with; 0: leave them as they are.
    """

    name: str
    folder: str
    recipe: dict[str, Any]
    data: str | None = None
    imports: tuple[str, ...] = ()
    threads: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, which JSON can hold; ``from_dict`` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Task:
        """The task that ``to_dict`` wrote."""
        return cls(**{**fields, "imports": tuple(fields["imports"])})


@dataclass
class Control:
    """What may be asked of a run while it goes.

    Attributes:
        threads: to compute with from the next step on; 0: as before.
        stop: end in order after the step.
        request: of this process, which counts as well.
    """

    threads: int = 0
    stop: bool = False
    request: StopRequest | None = None

    @property
    def stopped(self) -> bool:
        """Whether the run is to end."""
        return self.stop or (self.request is not None and self.request.requested)


def execute(
    task: Task, tell: Tell, control: Control | None = None, progress: bool | str = False
) -> dict[str, Any]:
    """Does a run: begins it, goes on with it, or finds it done.

    Args:
        task: the run. tell: is called with each event, a dict with the key ``event``.
        control: may be changed from another thread meanwhile.
        progress: what the training itself shows, as for ``Trainer``.

    Returns:
        The outcome: ``{"state": "done"}``, ``{"state": "stopped"}`` after an interruption, or
        ``{"state": "failed", "kind": ..., "message": ...}``; the failure is in the run's folder.
    """
    control = control or Control()
    if task.threads:
        set_num_threads(task.threads)
    try:
        import_modules(task.imports, "plan: imports")
        recipe = Recipe.from_dict(task.recipe)
        if read_done(task.folder, recipe) is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(task.folder, FAILED))
            if not _train(task, recipe, tell, control, progress):
                return {"state": "stopped"}
            write_result(task.folder, recipe, task.data)
    except KeyboardInterrupt:
        return {"state": "stopped"}
    except Exception as error:  # a block of one's own may raise anything
        return failed(task, type(error).__name__, _in_words(error))
    return {"state": "done"}


def failed(task: Task, kind: str, message: str) -> dict[str, Any]:
    """Books why a run failed; its outcome."""
    write_failure(task.folder, kind, message)
    return {"state": "failed", "kind": kind, "message": message}


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    known = isinstance(error, (CheckpointError, NaNLossError, ValueError)) and text
    return text if known else f"{type(error).__name__}: {text}".rstrip(": ")


def _train(
    task: Task, recipe: Recipe, tell: Tell, control: Control, progress: bool | str
) -> bool:
    """Trains; whether to the end."""
    options: dict[str, Any] = {"progress": progress, "data": task.data}
    options["callbacks"] = [Watch(tell, control)]
    options["distributed"] = False  # a cluster's workers may have been started by MPI, too
    history = _patiently(lambda: train(recipe, task.folder, **options), control)
    if not history.interrupted and not _has_predictions(task.folder):
        # The training is done, but what it said of the test images was lost: only that is made.
        history = Trainer.resume(os.path.join(task.folder, LAST), **options).fit()
    return not history.interrupted


def _has_predictions(folder: str) -> bool:
    try:
        Predictions.read(folder)
    except CheckpointError:
        return False
    return True


def _patiently(work: Callable[[], History], control: Control) -> History:
    """Does the work; where its folder is in use, waits for who may be about to end there.

    Raises:
        KeyboardInterrupt: it is told to stop meanwhile.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return work()
        except FolderInUseError:
            if time.monotonic() > end:
                raise
            if control.stopped:
                raise KeyboardInterrupt from None
            time.sleep(0.2)


class Watch(Callback):
    """Tells of epochs and steps, keeps what is said of the test images, does as it is asked.

    Args:
        tell: is called with each event. control: what is asked.
    """

    def __init__(self, tell: Tell, control: Control) -> None:
        self._tell, self._control = tell, control
        self._told = -math.inf

    def _obey(self, trainer: Trainer) -> None:
        wanted = self._control.threads
        if wanted and wanted != get_num_threads():
            set_num_threads(wanted)
        if self._control.stopped:
            trainer.stop()

    def _report(self, trainer: Trainer, share: float, **more: Any) -> None:
        self._told = time.monotonic()
        self._tell({
            "event": "progress", "epochs": trainer.epoch, "of": trainer.recipe.epochs,
            "share": share, **more,
        })  # fmt: skip

    def on_train_begin(self, trainer: Trainer) -> None:
        self._report(trainer, trainer.epoch / trainer.recipe.epochs)
        self._obey(trainer)

    def on_batch_end(self, trainer: Trainer, result: BatchResult) -> None:
        self._obey(trainer)
        if time.monotonic() - self._told >= _OFTEN:
            done = result.epoch + (result.batch + 1) / result.batches
            self._report(trainer, done / trainer.recipe.epochs)

    def on_evaluate(self, trainer: Trainer, done: int, total: int) -> None:
        self._obey(trainer)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        share = trainer.epoch / trainer.recipe.epochs
        self._report(trainer, share, top1=row.get(f"{trainer.data.split}_top1"))

    def on_test(self, trainer: Trainer, evaluation: Evaluation) -> None:
        test = trainer.data.test
        images = json.dumps(fingerprint(test), sort_keys=True)
        said = Predictions(test.labels, evaluation.predictions, evaluation.confidence, images)
        said.write(str(trainer.folder))
