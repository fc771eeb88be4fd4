"""Learning-rate schedules, as PyTorch's, in closed form.

A schedule sets the optimiser's learning rates when it is made (step 0) and at every ``step()``,
called once an epoch or once an iteration. Each rate is a function of the step's number alone, so
a resumed run has the same bits as one that was not stopped.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any, cast

from .optimizer import Optimizer


class Schedule:
    """Base: counts steps and writes ``rate(base, step)`` into every parameter group.

    Args:
        optimizer: its groups' ``"lr"`` are the base rates.

    Attributes:
        last_epoch: number of steps made. base_lrs: the rate each group began with.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"expected an attnnet optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.last_epoch = 0
        self.base_lrs = [
            group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups
        ]
        self.apply()

    def rate(self, base: float, step: int) -> float:
        """The learning rate of a group that began with ``base``, after ``step`` steps."""
        raise TypeError(f"{type(self).__name__} has no rate() of its own")

    def apply(self) -> None:
        """Write the present rates into the optimiser."""
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base, self.last_epoch)

    def step(self) -> None:
        """Go on by one epoch, or one iteration."""
        self.last_epoch += 1
        self.apply()

    def get_last_lr(self) -> list[float]:
        """The present learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser, as plain numbers and lists."""
        return {
            key: list(value) if isinstance(value, list) else value
            for key, value in vars(self).items()
            if key != "optimizer"
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict()`` gave, and set the rates it stands at.

        Raises:
            ValueError: where it belongs to another kind of schedule or number of groups.
        """
        own = self.state_dict()
        if set(state_dict) != set(own) or len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"the state dict does not fit {type(self).__name__}: it holds "
                f"{sorted(state_dict)}, expected {sorted(own)} for {len(self.base_lrs)} groups"
            )
        self.__dict__.update(state_dict)
        self.apply()


class StepLR(Schedule):
    """rate = base * gamma ^ (step // step_size).

    Args:
        optimizer: whose rates. step_size: at least 1. gamma: default 0.1.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = _count(step_size, "step_size")
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        return base * self.gamma ** (step // self.step_size)


class MultiStepLR(Schedule):
    """rate = base * gamma ^ (number of milestones reached).

    Args:
        optimizer: whose rates. milestones: steps at which the rate falls. gamma: default 0.1.
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, step)


class CosineAnnealingLR(Schedule):
    """rate = eta_min + (base - eta_min) * (1 + cos(pi * step / T_max)) / 2.

    Args:
        optimizer: whose rates. T_max: steps from base to eta_min. eta_min: default 0.

    Paper: Loshchilov & Hutter 2017, "SGDR" (one period, no restarts).
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = _count(T_max, "T_max")
        self.eta_min = eta_min
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        share = (1.0 + math.cos(math.pi * step / self.T_max)) / 2.0
        return self.eta_min + (base - self.eta_min) * share


class LinearLR(Schedule):
    """rate = base * (start_factor + (end_factor - start_factor) * step / total_iters), then level.

    Args:
        optimizer: whose rates. start_factor: above 0 to 1, default 1/3.
        end_factor: from step total_iters on, 0 to 1, default 1.
        total_iters: steps from the one to the other, default 5.

    Raises:
        ValueError: a factor or a number of steps is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3.0,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        if not 0.0 < start_factor <= 1.0:
            raise ValueError(f"start_factor must be above 0 and at most 1, got {start_factor}")
        if not 0.0 <= end_factor <= 1.0:
            raise ValueError(f"end_factor must be between 0 and 1, got {end_factor}")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = _count(total_iters, "total_iters")
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        share = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * share)


class LinearWarmup(Schedule):
    """rate = base * (start_factor + (1 - start_factor) * step / total_iters), then base.

    Args:
        optimizer: whose rates. total_iters: steps of the warm-up.
        start_factor: of the first step, above 0 to 1, default 1/3 (as PyTorch's LinearLR).
        after: another schedule of the same optimiser that goes on when the warm-up ends; its own
            step 0 is then. Step only the warm-up.

    Paper: Goyal et al. 2017, "Accurate, Large Minibatch SGD" (gradual warm-up).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int,
        start_factor: float = 1.0 / 3.0,
        after: Schedule | None = None,
    ) -> None:
        if not 0.0 < start_factor <= 1.0:
            raise ValueError(f"start_factor must be above 0 and at most 1, got {start_factor}")
        if after is not None and after.optimizer is not optimizer:
            raise ValueError("the schedule after the warm-up must have the same optimizer")
        self.total_iters = _count(total_iters, "total_iters")
        self.start_factor = start_factor
        self.after = after
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        if step >= self.total_iters:
            return base
        return base * (self.start_factor + (1.0 - self.start_factor) * step / self.total_iters)

    def apply(self) -> None:
        if self.after is None or self.last_epoch < self.total_iters:
            super().apply()
        else:
            self.after.last_epoch = self.last_epoch - self.total_iters
            self.after.apply()

    def state_dict(self) -> dict[str, Any]:
        nested = None if self.after is None else self.after.state_dict()
        return super().state_dict() | {"after": nested}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        after, nested = self.after, state_dict.get("after")
        if (after is None) != (nested is None):
            raise ValueError("the state dict and this warm-up differ in what comes after it")
        if after is not None:
            after.load_state_dict(cast(Mapping[str, Any], nested))
        super().load_state_dict(dict(state_dict) | {"after": after})


class OneCycleLR(Schedule):
    """From max_lr / div_factor up to max_lr, then down to a tiny rate, by cosines or lines.

    The momentum (of SGD; the first beta of AdamW) goes the other way.

    Args:
        optimizer: whose rates; their base rates do not matter.
        max_lr: the peak; a number, or one a group.
        total_steps: of the whole cycle; or give epochs and steps_per_epoch.
        pct_start: share of the cycle that rises, default 0.3.
        anneal_strategy: "cos" (default) or "linear".
        cycle_momentum: default True. base_momentum: at the peak, default 0.85.
        max_momentum: at both ends, default 0.95.
        div_factor: max_lr over the first rate, default 25.
        final_div_factor: first rate over the last one, default 1e4.

    Paper: Smith & Topin 2018, "Super-Convergence".

    Raises:
        ValueError: for settings out of range, and from ``step()`` past the end of the cycle.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Iterable[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = _count(epochs, "epochs") * _count(steps_per_epoch, "steps_per_epoch")
        if not 0.0 <= pct_start <= 1.0:
            raise ValueError(f"pct_start must be between 0 and 1, got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        self.total_steps = _count(total_steps, "total_steps")
        groups = optimizer.param_groups
        self.max_lrs = (
            list(max_lr) if isinstance(max_lr, Iterable) else [float(max_lr)] * len(groups)
        )
        if len(self.max_lrs) != len(groups):
            raise ValueError(f"expected {len(groups)} values for max_lr, got {len(self.max_lrs)}")
        self.pct_start, self.anneal_strategy = pct_start, anneal_strategy
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum and not all("momentum" in g or "betas" in g for g in groups):
            raise ValueError("cycle_momentum needs an optimizer with momentum or betas")
        super().__init__(optimizer)

    def _between(self, low: float, high: float, last: float) -> float:
        """The present value on the way low -> high -> last."""
        peak = self.pct_start * self.total_steps - 1
        end = self.total_steps - 1
        if self.last_epoch <= peak:
            return self._anneal(low, high, self.last_epoch / peak if peak else 1.0)
        share = (self.last_epoch - peak) / (end - peak) if end > peak else 1.0
        return self._anneal(high, last, min(share, 1.0))

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1.0)

    def apply(self) -> None:
        for group, peak in zip(self.optimizer.param_groups, self.max_lrs, strict=True):
            first = peak / self.div_factor
            group["lr"] = self._between(first, peak, first / self.final_div_factor)
            if self.cycle_momentum:
                ends, middle = self.max_momentum, self.base_momentum
                momentum = self._between(ends, middle, ends)
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum

    def step(self) -> None:
        if self.last_epoch >= self.total_steps:
            raise ValueError(
                f"tried to step {self.last_epoch + 1} times; the cycle has {self.total_steps} steps"
            )
        super().step()


def _count(value: int, name: str) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    return int(value)
