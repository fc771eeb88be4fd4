"""What a training keeps on disk, and how it comes back from there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError
from . import behind
from . import checkpoint as checkpoints
from .checkpoint import Checkpoint
from .folder import BEST, LAST
from .history import History
from .progress import in_notebook
from .setup import model_config
from .state import Best, Position, count_of, fingerprint, pack, unpack

if TYPE_CHECKING:
    from .trainer import Trainer


def begin(trainer: Trainer) -> Best:
    """Checks for room and writes the recipe, before the first step costs time; the best epoch so
    far whose weights are at hand.

    Raises:
        CheckpointError: no room, or the folder cannot be written to.
    """
    if trainer.run_folder is not None:
        count = sum(parameter.numel() for parameter in trainer.model.parameters())
        kept = 3 if trainer.recipe.optimizer == "adamw" else 2  # weights, momentum (two in AdamW)
        kept += trainer.average is not None
        trainer.run_folder.require_room(4 * kept * count)
        try:
            trainer.run_folder.clear()
            trainer.recipe.to_file(trainer.run_folder.file("recipe.json"))
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {trainer.folder}: {error.strerror or error}."
            ) from error
    if trainer.owed is not None:
        save(trainer, trainer.owed)
    _bring_best(trainer)
    return trainer.position.best


def _bring_best(trainer: Trainer) -> None:
    """Sees to it that the best weights so far are at hand, after a resume wherever it writes, and
    after files were removed."""
    best, source = trainer.position.best, trainer.best_from
    trainer.best_from = trainer.folder
    if best.epoch == 0 or trainer.best_weights is not None or source is None:
        return
    there = os.path.join(source, BEST)
    try:
        found = checkpoints.load(there)
        if found.meta["position"]["best"]["epoch"] != best.epoch:
            raise CheckpointError(f"{there}: the best of another training")
        if trainer.run_folder is None:
            trainer.best_weights = found.weights
            return
        here = trainer.run_folder.file(BEST)
        if not (os.path.exists(here) and os.path.samefile(here, there)):
            checkpoints.save(here, found)
    except (CheckpointError, KeyError, TypeError):
        best.epoch, best.top1 = 0, -1.0
        trainer.say("the best checkpoint so far is not there; the best epoch is sought anew.")


def save(trainer: Trainer, is_best: bool = False) -> None:
    """Writes the last checkpoint (and the best, where it is that) and the history files.

    The best is renamed into place before the last: whatever ends the process in between, what the
    last one says of the best is true.

    Raises:
        CheckpointError: writing failed; what was there before is unchanged.
    """
    from .. import get_rng_state

    trainer.position.random = get_rng_state()
    if trainer.run_folder is None:
        return
    trainer.owed = is_best
    trainer.run_folder.keep()
    also = [trainer.run_folder.file(BEST)] if is_best else []
    checkpoints.save(trainer.run_folder.file(LAST), capture(trainer), also)
    trainer.owed = None
    write_history(trainer)


def save_interrupted(trainer: Trainer) -> None:
    """Writes the last checkpoint of a training that somebody stopped.

    In a notebook a copy is written after ``fit`` has returned, which a large one would keep for
    seconds; what needs the folder waits for it (``behind.wait``).

    Raises:
        CheckpointError: writing failed; what was there before is unchanged. In a notebook it is
            said, and raised by what waits.
    """
    if trainer.run_folder is None or not in_notebook():
        save(trainer)
        return
    path, checkpoint = os.path.abspath(trainer.run_folder.file(LAST)), capture(trainer, copy=True)

    def write() -> None:
        try:
            checkpoints.save(path, checkpoint)
        except CheckpointError as error:
            trainer.say(str(error))
            raise
        trainer.say(f"checkpoint: {path}")

    trainer.say("the checkpoint is written while you go on; what reads it waits for that")
    behind.start(trainer.run_folder.path, write)


def write_history(trainer: Trainer) -> None:
    """Writes ``history.csv`` and ``history.json``.

    Raises:
        CheckpointError: writing failed.
    """
    if trainer.run_folder is None:
        return
    try:
        trainer.history.to_csv(trainer.run_folder.file("history.csv"))
        trainer.history.to_json(trainer.run_folder.file("history.json"))
    except OSError as error:
        raise CheckpointError(
            f"cannot write the history to {trainer.folder}: {error.strerror or error}; the "
            f"checkpoint {LAST} is written."
        ) from error


def capture(trainer: Trainer, copy: bool = False) -> Checkpoint:
    """All that is needed to go on from here, and to use the model without going on.

    Where the weights are averaged, the model is the averaged one, and those that the training goes
    on with are beside the optimiser's arrays.

    Args:
        copy: whether it stays as it is when the training goes on; else its arrays follow.
    """
    arrays: dict[str, np.ndarray] = {}
    train = trainer.data.train
    meta = {
        "recipe": trainer.recipe.to_dict(),
        "model": model_config(trainer.model),
        "classes": list(train.classes),
        "normalization": [list(train.mean), list(train.std)],
        "data": fingerprint(train),
        "position": trainer.position.to_dict(),
        "optimizer": pack(trainer.optimizer.state_dict(copy), arrays),
        "history": trainer.history.plain_rows(),
    }
    if trainer.average is not None:
        trained = trainer.model.state_dict(copy=copy)
        state = {"n_averaged": trainer.average.n_averaged, "trained": trained}
        meta["average"] = pack(state, arrays, "average")
    return Checkpoint(trainer.evaluated.state_dict(copy=copy), arrays, meta)


def restore(trainer: Trainer, checkpoint: Checkpoint, optimizer: Any) -> None:
    """Puts model, optimiser, history and position back as they were.

    Raises:
        CheckpointError: the checkpoint does not fit the images, the model or the optimiser.
    """
    path, meta = checkpoint.path, checkpoint.meta
    found = fingerprint(trainer.data.train)
    if meta.get("data") != found:
        raise CheckpointError(
            f"{path}: this training was on other images ({meta.get('data')}; here are {found}); "
            "going on with these would not be the same training."
        )
    checkpoints.fill_model(trainer.evaluated, checkpoint)
    _check_normalization(trainer, path)
    try:
        if trainer.average is not None:
            state = unpack(meta["average"], checkpoint.optimizer)
            trainer.model.load_state_dict(state["trained"])
            trainer.average.n_averaged = count_of(state["n_averaged"])
        optimizer.load_state_dict(unpack(meta["optimizer"], checkpoint.optimizer))
        trainer.history = History.from_plain_rows(meta["history"])
    except (
        KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
        CheckpointError,
    ) as bad:  # fmt: skip
        raise CheckpointError(
            f"{path}: the optimiser's state, the averaged weights or the history does not fit "
            f"({bad})."
        ) from bad
    trainer.position = Position.from_dict(meta.get("position"), path)
    _check_position(trainer, path)


def _check_normalization(trainer: Trainer, path: str) -> None:
    """Refuses images that are scaled otherwise than those before the stop were; another machine may
    have come to other last digits."""
    train = trainer.data.train
    before, here = trainer.evaluated.normalization, (train.mean, train.std)
    if len(before[0]) != len(here[0]) or not np.allclose(before, here, rtol=1e-5):
        raise CheckpointError(
            f"{path}: this training's images were normalised by (mean, std) {before}, these are by "
            f"{here}; going on with these would not be the same training."
        )


def _check_position(trainer: Trainer, path: str) -> None:
    """Refuses a position that the data and the history have no place for."""
    position, batches = trainer.position, len(trainer.data.loader)
    columns = (f"{trainer.data.split}_{what}" for what in ("loss", "top1"))
    rows = len(trainer.history)
    numbers = all(isinstance(v, (int, float)) for name in columns
                  for v in trainer.history.column(name))  # fmt: skip
    if position.batch > batches or position.epoch != rows or not numbers:
        raise CheckpointError(
            f"{path}: corrupt metadata: it stands after {position.epoch} epochs and "
            f"{position.batch} steps, with {batches} steps an epoch and {rows} rows of history."
        )
