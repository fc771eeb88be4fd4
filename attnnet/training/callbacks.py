"""What runs beside a training: a class to inherit from, TensorBoard, Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluate import Evaluation
    from .history import History
    from .trainer import Trainer


@dataclass(frozen=True)
class BatchResult:
    """One training step, as callbacks see it.

    Attributes:
        epoch: from 0.
        batch: place in the epoch, from 0.
        batches: steps in the epoch.
        images: images in this batch.
        loss: mean loss of this batch; NaN or infinite where the step was skipped for that.
        skipped: the step was skipped (recipe field ``nan``).
        lr: learning rate of the step.
        epoch_loss, epoch_top1: mean loss and accuracy (%) over the epoch so far.
    """

    epoch: int
    batch: int
    batches: int
    images: int
    loss: float
    skipped: bool
    lr: float
    epoch_loss: float
    epoch_top1: float


class Callback:
    """Inherit and override what you need; an exception in a method ends the training.

    ``trainer.stop()`` in any of them ends the training in order, with a checkpoint.
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Model, data and optimiser are ready; the first step comes next."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """An epoch (from 0) begins, or goes on after a resume in its middle."""

    def on_batch_end(self, trainer: Trainer, result: BatchResult) -> None:
        """A step is done."""

    def on_evaluate(self, trainer: Trainer, done: int, total: int) -> None:
        """``done`` of ``total`` images of an evaluation are done."""

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """An epoch is trained and evaluated; ``row`` is its line of the history."""

    def on_test(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """After the last epoch, what the best one says of the test images; it is booked next."""

    def on_message(self, trainer: Trainer, text: str) -> None:
        """The trainer has something to say, in one line."""

    def on_train_end(self, trainer: Trainer, history: History) -> None:
        """The training is over, to its end or interrupted, and its files are written."""


class CallbackList(Callback):
    """Calls several callbacks in order."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(
                    f"callbacks: got {type(callback).__name__}; expected objects of a class that "
                    "inherits from attnnet.training.Callback."
                )

    def on_train_begin(self, trainer: Trainer) -> None:
        for callback in self.callbacks:
            callback.on_train_begin(trainer)

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        for callback in self.callbacks:
            callback.on_epoch_begin(trainer, epoch)

    def on_batch_end(self, trainer: Trainer, result: BatchResult) -> None:
        for callback in self.callbacks:
            callback.on_batch_end(trainer, result)

    def on_evaluate(self, trainer: Trainer, done: int, total: int) -> None:
        for callback in self.callbacks:
            callback.on_evaluate(trainer, done, total)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        for callback in self.callbacks:
            callback.on_epoch_end(trainer, row)

    def on_test(self, trainer: Trainer, evaluation: Evaluation) -> None:
        for callback in self.callbacks:
            callback.on_test(trainer, evaluation)

    def on_message(self, trainer: Trainer, text: str) -> None:
        for callback in self.callbacks:
            callback.on_message(trainer, text)

    def on_train_end(self, trainer: Trainer, history: History) -> None:
        for callback in self.callbacks:
            callback.on_train_end(trainer, history)


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """The measured values of a history row, without its epoch."""
    return {k: v for k, v in row.items() if k != "epoch" and isinstance(v, (int, float))}


def _tag(name: str) -> str:
    """``train_loss`` as ``train/loss``: TensorBoard groups what stands before the slash."""
    split, _, rest = name.partition("_")
    return f"{split}/{rest}" if split in ("train", "val", "test") else name


class TensorBoard(Callback):
    """Writes a training's history as TensorBoard event files.

    Args:
        folder: where to write; None: ``tensorboard`` in the training's folder.

    Raises:
        ModuleNotFoundError: the package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer import event_file_writer
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "TensorBoard's event files need the package tensorboard: pip install tensorboard"
            ) from None
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer_of = event_file_writer.EventFileWriter
        self._folder = None if folder is None else os.fspath(folder)
        self._writer: Any = None

    def on_train_begin(self, trainer: Trainer) -> None:
        folder = self._folder or os.path.join(trainer.folder or "runs", "tensorboard")
        self._writer = self._writer_of(folder)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        import time

        values = [
            self._summary.Value(tag=_tag(name), simple_value=float(value))
            for name, value in _numbers(row).items()
        ]
        self._writer.add_event(
            self._event(
                wall_time=time.time(), step=row["epoch"], summary=self._summary(value=values)
            )
        )
        self._writer.flush()

    def on_train_end(self, trainer: Trainer, history: History) -> None:
        self._writer.close()


class WandB(Callback):
    """Sends a training's history to Weights & Biases, or writes it for later (offline mode).

    Args:
        project: the project's name there.
        mode: ``"online"``, ``"offline"`` (files under the training's folder, to be sent with
            ``wandb sync``) or ``"disabled"``; None: the variable ``WANDB_MODE``, else online.
        **options: passed on to ``wandb.init``.

    Raises:
        ModuleNotFoundError: the package ``wandb`` is not installed.
        ValueError: an unknown mode.
    """

    def __init__(self, project: str = "attnnet", mode: str | None = None, **options: Any) -> None:
        from ..errors import unknown_name

        if mode is not None and mode not in ("online", "offline", "disabled"):
            raise unknown_name("mode of wandb", mode, ("online", "offline", "disabled"))
        try:
            import wandb
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "Weights & Biases needs the package wandb: pip install wandb"
            ) from None
        self._wandb = wandb
        self._options = {"project": project, "mode": mode, **options}
        self._run: Any = None

    def on_train_begin(self, trainer: Trainer) -> None:
        options = dict(self._options)
        if trainer.folder is not None:
            options.setdefault("dir", trainer.folder)
        options.setdefault("name", trainer.recipe.name)
        self._run = self._wandb.init(config=trainer.recipe.to_dict(), **options)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self._run.log(_numbers(row), step=row["epoch"])

    def on_train_end(self, trainer: Trainer, history: History) -> None:
        self._run.summary.update(history.summary)
        self._run.finish()
