"""One training step: forward, backward, update, and what to do when a number is not finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import NaNLossError
from .callbacks import BatchResult
from .nan_check import (
    LOSS_ITSELF,
    BufferSnapshot,
    find_source,
    first_bad_gradient,
    first_bad_parameter,
)

if TYPE_CHECKING:
    from ..data import Batch
    from .trainer import Trainer


def train_step(trainer: Trainer, batch: Batch) -> BatchResult:
    """Trains on one batch, or this process's part of it, and adds it to the sums of the epoch.

    Raises:
        NaNLossError: the loss or a gradient is not finite and the recipe says to stop then, or
            the weights themselves are broken.
    """
    from .. import functional, optim, tensor

    recipe, model, optimizer = trainer.recipe, trainer.model, trainer.optimizer
    ranks, sums = trainer.ranks, trainer.position.sums
    first, part = trainer.data.loader.part(trainer.batch)
    batches = len(trainer.data.loader)
    lr = trainer.rates.set(trainer.epoch, trainer.batch)
    before = BufferSnapshot(model)
    with ranks.one_batch(part, first):
        logits = model(tensor(batch.images))
        loss = functional.cross_entropy(logits, batch.labels, recipe.label_smoothing)
        hits = int((logits.numpy().argmax(axis=1) == batch.labels).sum())
        value, right, count = ranks.add_up(loss.item(), hits, part)
        optimizer.zero_grad()
        if math.isfinite(value):
            loss.backward(None if part == count else tensor(part / count))
    where = None
    if not math.isfinite(value):
        if not math.isfinite(loss.item()):
            where = find_source(model, batch.images, before.restore)
        where = ranks.first_text(where, last=LOSS_ITSELF)
    else:
        ranks.add_gradients(model)
        bad = first_bad_gradient(model)
        where = bad and f"the gradient of {bad}"
    if where:
        before.restore()
        optimizer.zero_grad()
        _skip_or_raise(trainer, value, where)
        sums.skipped += 1
    else:
        if recipe.clip_norm is not None:
            optim.clip_grad_norm_(list(model.parameters()), recipe.clip_norm)
        optimizer.step()
        if trainer.average is not None:
            trainer.average.update_parameters(model)
        sums.loss += value * count
        sums.right += right
        sums.images += count
    return BatchResult(
        epoch=trainer.epoch,
        batch=trainer.batch,
        batches=batches,
        images=count,
        loss=value,
        skipped=bool(where),
        lr=lr,
        epoch_loss=sums.mean_loss,
        epoch_top1=sums.top1,
    )


def _skip_or_raise(trainer: Trainer, value: float, where: str) -> None:
    """Reports a step whose loss or gradient is not finite; raises where that must end it all."""
    what = "a gradient is not finite"
    if not math.isfinite(value):
        what = "the loss is " + ("NaN" if math.isnan(value) else "infinite")
    text = (
        f"{what} at epoch {trainer.epoch + 1}, step {trainer.batch + 1} of "
        f"{len(trainer.data.loader)}; it first appeared in {where}."
    )
    broken = trainer.ranks.first_text(first_bad_parameter(trainer.model))
    if broken is not None:
        raise NaNLossError(
            f"{text} The weights are broken (the first is {broken}), so that no step can help: "
            "go back to a checkpoint, with a lower learning rate."
        )
    if trainer.recipe.nan == "stop":
        raise NaNLossError(f"{text} Try a lower learning rate, or nan=continue to skip such steps.")
    trainer.say(f"{text} The step is skipped.")
