"""From a recipe to an optimiser and the learning rate of every step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..nn import Module
    from ..optim import AveragedModel, Optimizer, Schedule
    from .recipe import Recipe


def make_optimizer(recipe: Recipe, model: Module) -> Optimizer:
    """The optimiser that a recipe names, over all parameters of a model.

    Without ``decay_norms`` they are two groups, so that the second knows no weight decay: what has
    at most one dimension, that is the norms' gains and shifts and the biases of all layers.
    """
    from .. import optim

    parameters: list[Any] = list(model.parameters())
    if not recipe.decay_norms:
        flat = [parameter for parameter in parameters if parameter.ndim <= 1]
        full = [parameter for parameter in parameters if parameter.ndim > 1]
        groups = ({"params": full}, {"params": flat, "weight_decay": 0.0})
        parameters = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )


def make_average(recipe: Recipe, model: Module) -> AveragedModel | None:
    """The averaged twin of a model, as it is now; None where the recipe asks for none."""
    from .. import optim

    return None if recipe.average is None else optim.AveragedModel(model, recipe.average)


class LearningRates:
    """The learning rate of every step of a training.

    The rate depends on the place in the training alone, so that a resumed training needs no state
    of the schedule, and one that goes on for more epochs follows the longer schedule.

    ``step``, ``multistep``, ``cosine`` and ``constant`` change when an epoch begins, as in the
    study; ``linear`` and ``onecycle`` change with every step. Before all but the last of these a
    warm-up of n steps rises from lr / n to lr in a straight line; ``linear`` falls from there, so
    that the step after the last one would have ``final_lr``.

    Args:
        recipe: the schedule and its options.
        optimizer: whose rates are set.
        batches: steps in an epoch.
    """

    def __init__(self, recipe: Recipe, optimizer: Optimizer, batches: int) -> None:
        from .. import optim

        self._optimizer, self._batches = optimizer, batches
        self._by_step = recipe.schedule in ("linear", "onecycle")
        self._main: Schedule | None = None  # None: constant
        self._warmup: Schedule | None = None
        rising = round(recipe.warmup_epochs * batches)
        self._begin = 0  # the step that is step 0 of a schedule that counts steps
        if recipe.schedule == "step":
            self._main = optim.StepLR(optimizer, recipe.step_size, recipe.gamma)
        elif recipe.schedule == "multistep":
            self._main = optim.MultiStepLR(optimizer, recipe.milestones, recipe.gamma)
        elif recipe.schedule == "cosine":
            self._main = optim.CosineAnnealingLR(optimizer, recipe.total_epochs, recipe.final_lr)
        elif recipe.schedule == "linear":
            falling = max(1, recipe.total_epochs * batches - rising)
            self._main = optim.LinearLR(optimizer, 1.0, recipe.final_lr / recipe.lr, falling)
            self._begin = rising
        elif recipe.schedule == "onecycle":
            first = recipe.lr / 25
            self._main = optim.OneCycleLR(
                optimizer,
                recipe.lr,
                total_steps=recipe.total_epochs * batches,
                pct_start=recipe.warmup_epochs / recipe.total_epochs,
                cycle_momentum=False,
                div_factor=25.0,
                final_div_factor=first / recipe.final_lr if recipe.final_lr else math.inf,
            )
        if rising and recipe.schedule != "onecycle":
            self._warmup = optim.LinearWarmup(optimizer, rising, start_factor=1 / rising)
        self._rising = rising
        self._lr = recipe.lr

    def set(self, epoch: int, batch: int) -> float:
        """Sets the optimiser's rate for one step, and returns it.

        Args:
            epoch: from 0.
            batch: place in the epoch, from 0.
        """
        step = epoch * self._batches + batch
        if self._warmup is not None and step < self._rising:
            schedule, place = self._warmup, step
        else:
            schedule, place = self._main, step - self._begin if self._by_step else epoch
        if schedule is not None:
            schedule.last_epoch = place
            schedule.apply()
        else:
            for group in self._optimizer.param_groups:
                group["lr"] = self._lr
        return self._optimizer.param_groups[0]["lr"]
