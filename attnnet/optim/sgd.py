"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import _core
from ..tensor import Tensor
from .optimizer import Optimizer


class SGD(Optimizer):
    """d = grad + weight_decay * w; v = momentum * v + d (v = d at first); w -= lr * v.

    With Nesterov momentum w -= lr * (d + momentum * v). One C call a step and group, one pass
    over memory.

    Args:
        params: parameters, or dicts ``{"params": ..., "lr": ...}`` for groups of them.
        lr: learning rate. momentum: default 0. weight_decay: default 0, on every parameter.
        nesterov: default False; needs momentum.

    Paper: Sutskever et al. 2013, "On the importance of initialization and momentum in deep
    learning"; the form is PyTorch's.

    Raises:
        ValueError: for a negative setting, or Nesterov without momentum.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    state_names = ("momentum_buffer",)

    def check_group(self, group: Mapping[str, Any]) -> None:
        super().check_group(group)
        if not group["momentum"] >= 0.0:
            raise ValueError(f"invalid momentum: {group['momentum']} (0 or more expected)")
        if group["nesterov"] and not group["momentum"] > 0.0:
            raise ValueError("Nesterov momentum requires a momentum above 0")

    def step_group(self, group: dict[str, Any], members: list[tuple[int, Tensor]]) -> None:
        params = [param for _, param in members]
        velocities = first = None
        started: dict[int, dict[str, Any]] = {}  # kept once the step has worked
        if group["momentum"]:
            first = [number not in self.state for number, _ in members]
            for (number, param), fresh in zip(members, first, strict=True):
                if fresh:
                    start = Tensor(np.zeros(param.shape, np.float32))
                    started[number] = {"momentum_buffer": start}
            state = self.state | started
            velocities = [state[number]["momentum_buffer"] for number, _ in members]
        _core.sgd_step(
            params,
            [param.grad for param in params],
            velocities,
            group["lr"],
            group["momentum"],
            group["weight_decay"],
            group["nesterov"],
            first,
        )
        self.state.update(started)
