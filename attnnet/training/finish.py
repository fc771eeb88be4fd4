"""The end of a training: the figure that counts, the picture, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from . import checkpoint as checkpoints
from . import keeping
from .evaluate import Evaluation, EvaluationStopped
from .folder import BEST
from .progress import duration

if TYPE_CHECKING:
    from .trainer import Trainer


def finish(trainer: Trainer) -> None:
    """Evaluates the best epoch on the test images, writes summary and picture, says what is where.

    After an interruption it writes the history and says how to go on.

    Raises:
        CheckpointError: a file could not be written.
    """
    history = trainer.history
    history.folder = trainer.folder
    evaluation = None
    if trainer.stop_request.signal is not None:  # after the last epoch: the rest can wait
        history.interrupted = True
    if not history.interrupted and len(history):
        try:
            evaluation = _test_best(trainer)
        except EvaluationStopped:
            history.interrupted = True
    if evaluation is None:
        keeping.write_history(trainer)
        _say_interrupted(trainer)
        return
    trainer.callbacks.on_test(trainer, evaluation)
    best = trainer.position.best
    history.summary = {
        "best_epoch": best.epoch,
        "best_top1": best.top1,
        "chosen_on": "test" if trainer.data.validation is None else "validation",
        "test_loss": evaluation.loss,
        "test_top1": evaluation.top1,
        "test_top5": evaluation.top5,
        "last_top1": history[-1][f"{trainer.data.split}_top1"],
        "epochs": trainer.epoch,
        "seconds": trainer.position.seconds,
    }
    keeping.write_history(trainer)
    _say_result(trainer, evaluation)
    if trainer.run_folder is not None:
        history.checkpoint = trainer.run_folder.file(BEST)
        trainer.say(f"checkpoint: {history.checkpoint}")
        history.picture = _draw(trainer, evaluation)
    if trainer.epoch < trainer.recipe.epochs:
        trainer.say(
            f"stopped after {trainer.epoch} of {trainer.recipe.epochs} epochs, as asked; "
            f"to go on: {trainer.resume_hint()}"
        )


def _test_best(trainer: Trainer) -> Evaluation:
    """The best epoch's model on the test images; the model itself stays at the last epoch."""
    if trainer.data.validation is None and trainer.best_evaluation is not None:
        return trainer.best_evaluation
    model, best = trainer.evaluated, trainer.position.best
    if best.epoch == 0:  # its file was lost, and no epoch came after
        best.epoch, best.top1 = trainer.epoch, trainer.history[-1][f"{trainer.data.split}_top1"]
        keeping.save(trainer, is_best=True)
    if best.epoch == trainer.epoch:
        return trainer.evaluate(trainer.data.test, together=True)
    weights = trainer.ranks.from_first(lambda: _best_weights(trainer))
    last = model.state_dict()
    try:
        model.load_state_dict(weights)
        return trainer.evaluate(trainer.data.test, together=True)
    finally:
        model.load_state_dict(last)


def _best_weights(trainer: Trainer) -> dict[str, Any]:
    if trainer.best_weights is not None:
        return trainer.best_weights
    return checkpoints.load(trainer.run_folder.file(BEST)).weights


def _say_interrupted(trainer: Trainer) -> None:
    steps = len(trainer.data.loader)
    if trainer.epoch < trainer.recipe.epochs:
        place = f"in epoch {trainer.epoch + 1}, after {trainer.batch} of {steps} steps"
    else:
        place = "after the last epoch"
    trainer.say(f"interrupted {place}; to go on: {trainer.resume_hint()}")


def _say_result(trainer: Trainer, evaluation: Evaluation) -> None:
    summary = trainer.history.summary
    trainer.say(
        f"accuracy: {evaluation.top1:.2f} % of {evaluation.images:,} test images (top-5 "
        f"{evaluation.top5:.2f} %), after {duration(summary['seconds'])}"
    )
    chosen = "the test images themselves"
    if summary["chosen_on"] == "validation":
        chosen = f"{len(trainer.data.validation):,} held out images"
    trainer.say(
        f"best epoch: {summary['best_epoch']} of {summary['epochs']}, chosen on {chosen} "
        f"({summary['best_top1']:.2f} % there; last epoch {summary['last_top1']:.2f} %)"
    )


def _draw(trainer: Trainer, evaluation: Evaluation) -> str | None:
    """Draws and writes the picture of the training; None, and says so, without matplotlib."""
    from .files import write_atomically

    path = trainer.run_folder.file("result.png")
    try:
        from ..plots import draw_sheet, png

        sheet = draw_sheet(trainer.recipe, trainer.history, trainer.data.test, evaluation)
    except ModuleNotFoundError as error:
        trainer.say(f"no picture: {error}")
        return None
    try:
        write_atomically(path, png(sheet))
    except OSError as error:
        raise CheckpointError(
            f"cannot write the picture {path}: {error.strerror or error}; the checkpoints are "
            "written."
        ) from error
    trainer.say(f"picture: {path}")
    return path
