"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import _core
from ..tensor import Tensor
from .optimizer import Optimizer


class AdamW(Optimizer):
    """w -= lr * weight_decay * w, then w -= lr * m' / (sqrt(v') + eps).

    m and v are running means of the gradient and its square, m' and v' the same with their bias
    towards the zero start taken out.

    Args:
        params: parameters, or dicts ``{"params": ..., "lr": ...}`` for groups of them.
        lr: learning rate, default 1e-3. betas: default (0.9, 0.999). eps: default 1e-8.
        weight_decay: default 0.01.

    Paper: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".

    Raises:
        ValueError: for a setting out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    state_names = ("step", "exp_avg", "exp_avg_sq")

    def check_group(self, group: Mapping[str, Any]) -> None:
        super().check_group(group)
        betas = tuple(group["betas"])
        if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"invalid betas: {group['betas']} (two numbers from 0, below 1)")

    def step_group(self, group: dict[str, Any], members: list[tuple[int, Tensor]]) -> None:
        # Parameters that joined later have counted fewer steps: one call for each count. State is
        # kept, and steps are counted, once they are done: one that fails can be tried again.
        by_step: dict[int, list[tuple[int, Tensor, dict[str, Any]]]] = {}
        for number, param in members:
            kept = self.state.get(number) or {
                "step": 0,
                "exp_avg": Tensor(np.zeros(param.shape, np.float32)),
                "exp_avg_sq": Tensor(np.zeros(param.shape, np.float32)),
            }
            by_step.setdefault(kept["step"] + 1, []).append((number, param, kept))
        beta1, beta2 = group["betas"]
        for step, entries in by_step.items():
            _core.adamw_step(
                [param for _, param, _ in entries],
                [param.grad for _, param, _ in entries],
                [kept["exp_avg"] for _, _, kept in entries],
                [kept["exp_avg_sq"] for _, _, kept in entries],
                group["lr"],
                beta1,
                beta2,
                group["eps"],
                group["weight_decay"],
                step,
            )
            for number, _, kept in entries:
                kept["step"] = step
                self.state[number] = kept
