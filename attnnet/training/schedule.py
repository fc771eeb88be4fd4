"""From a recipe to an optimiser and the learning rate of every step.

The rate is a pure function of the place in the training, so a resumed training needs no state of
the schedule beyond that place, and a changed number of epochs changes nothing that is done.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..nn import Module
    from ..optim import Optimizer
    from .recipe import Recipe


def make_optimizer(recipe: Recipe, model: Module) -> Optimizer:
    """The optimiser that a recipe names, over all parameters of a model."""
    from .. import optim

    parameters = list(model.parameters())
    if recipe.optimizer == "adamw":
        return optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )


def learning_rate(recipe: Recipe, epoch: int, batch: int, batches: int) -> float:
    """The learning rate of one step.

    ``step``, ``multistep``, ``cosine`` and ``constant`` change at the start of an epoch, as in the
    study; ``onecycle`` and the warm-up change every step. With a warm-up of w epochs the rate of
    step s is at most lr * (s + 1) / (w * batches).

    Args:
        recipe: the schedule and its options.
        epoch: from 0.
        batch: place in the epoch, from 0.
        batches: steps in an epoch.
    """
    done = epoch + batch / batches
    if recipe.schedule == "onecycle":
        return _one_cycle(recipe, done, batches)
    rate = _by_epoch(recipe, epoch)
    if done < recipe.warmup_epochs:
        rate = min(rate, recipe.lr * (done * batches + 1) / (recipe.warmup_epochs * batches))
    return rate


def _by_epoch(recipe: Recipe, epoch: int) -> float:
    """The rate of an epoch without its warm-up."""
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** (epoch // recipe.step_size)
    if recipe.schedule == "multistep":
        return recipe.lr * recipe.gamma ** sum(epoch >= drop for drop in recipe.milestones)
    if recipe.schedule == "cosine":
        part = epoch / recipe.total_epochs
        return _cosine(recipe.lr, recipe.final_lr, part)
    return recipe.lr


def _one_cycle(recipe: Recipe, done: float, batches: int) -> float:
    """Up from lr / 25 to lr over the warm-up, down to final_lr at the last step, along cosines.

    Smith and Topin 2019, "Super-Convergence"; the cosine form is fastai's and PyTorch's.
    """
    rise, total = recipe.warmup_epochs, recipe.total_epochs
    if done < rise:
        return _cosine(recipe.lr / 25, recipe.lr, done / rise)
    last = total - 1 / batches  # the last step, which has the lowest rate
    return _cosine(recipe.lr, recipe.final_lr, (done - rise) / max(last - rise, 1e-9))


def _cosine(start: float, end: float, part: float) -> float:
    """From ``start`` (part 0) to ``end`` (part 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, part))) / 2
