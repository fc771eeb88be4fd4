"""What the optimisers share: parameter groups, and their state in and out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..tensor import Tensor


class Optimizer:
    """Base of the optimisers.

    Attributes:
        param_groups: list of dicts; each holds ``"params"`` and its own settings (``"lr"``, ...),
            which may be changed between steps.
        state: what is kept beside each parameter, by its number through all groups.
        state_names: what that is called; a state dict whose entries lack one is refused.
    """

    state_names: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or "
                "dicts, but got one Tensor"
            )
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[int, dict[str, Any]] = {}
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own.

        Args:
            group: ``{"params": tensors, "lr": ..., ...}``; what is left out has the default.

        Raises:
            TypeError: for anything but tensors. ValueError: for a tensor that is no leaf, that
                another group has, or for a setting out of range.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"a parameter group must be a dict with 'params', got {group!r}")
        unknown = set(group) - set(self.defaults) - {"params", "initial_lr"}
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no setting {sorted(unknown)[0]!r}; it has "
                f"{', '.join(self.defaults)}"
            )
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        taken = {id(p) for known in self.param_groups for p in known["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, got {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            if id(param) in taken:
                raise ValueError("some parameters appear more than once in the parameter groups")
            taken.add(id(param))
        merged = {**self.defaults, **group, "params": params}
        self.check_group(merged)
        self.param_groups.append(merged)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for a setting out of range."""
        for name in ("lr", "weight_decay", "eps"):
            if name in group and not group[name] >= 0.0:
                raise ValueError(f"invalid {name}: {group[name]} (0 or more expected)")

    def zero_grad(self) -> None:
        """Drop the gradients of all parameters."""
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        number = 0
        for group in self.param_groups:
            members = []
            for param in group["params"]:
                if param.grad is not None:
                    members.append((number, param))
                number += 1
            if members:
                self.step_group(group, members)

    def step_group(self, group: dict[str, Any], members: list[tuple[int, Tensor]]) -> None:
        """Update one group. Args: group: its settings. members: (number, parameter) pairs."""
        raise TypeError(f"{type(self).__name__} has no step_group() of its own")

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """All settings and state: ``{"state": {number: {...}}, "param_groups": [...]}``.

        Tensors come as NumPy arrays; parameters are their numbers through all groups.

        Args:
            copy: whether the arrays are copies (default); else they are the memory itself, and
                change with the next step.
        """
        groups, number = [], 0
        for group in self.param_groups:
            count = len(group["params"])
            settings = {key: value for key, value in group.items() if key != "params"}
            groups.append(settings | {"params": list(range(number, number + count))})
            number += count
        def plain(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return np.array(value.numpy(), copy=copy or None)

        state = {
            index: {key: plain(value) for key, value in kept.items()}
            for index, kept in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict()`` gave.

        Raises:
            ValueError: where groups, their sizes, or the shapes of the state do not fit. Nothing
                is changed then.
        """
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"loaded state dict has {len(groups)} parameter groups, the optimizer "
                f"{len(self.param_groups)}"
            )
        for position, (own, given) in enumerate(zip(self.param_groups, groups, strict=True)):
            if len(own["params"]) != len(given["params"]):
                raise ValueError(
                    f"loaded state dict has {len(given['params'])} parameters in group {position}, "
                    f"the optimizer {len(own['params'])}"
                )
            _check_settings(own, given, position)
            self.check_group({**own, **given})
        params = [p for group in self.param_groups for p in group["params"]]
        numbers = [index for group in groups for index in group["params"]]
        positions = {int(index): place for place, index in enumerate(numbers)}
        state = {
            positions[int(index)]: {
                key: _restored(value, params[positions[int(index)]], key, index)
                for key, value in kept.items()
            }
            for index, kept in state_dict["state"].items()
        }
        for index, kept in state.items():
            missing = [key for key in self.state_names if key not in kept]
            if missing:
                raise ValueError(f"loaded state of parameter {index} has no {', '.join(missing)}")
        for own, given in zip(self.param_groups, groups, strict=True):
            own.update({key: value for key, value in given.items() if key != "params"})
        self.state = state

    def __repr__(self) -> str:
        lines = [
            f"  group {position}: {len(group['params'])} parameters, "
            + ", ".join(f"{key}={value}" for key, value in group.items() if key != "params")
            for position, group in enumerate(self.param_groups)
        ]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


def _check_settings(own: Mapping[str, Any], given: Mapping[str, Any], position: int) -> None:
    """Refuses settings that are not of the kind that the group has them in."""
    for key, value in own.items():
        if key == "params" or key not in given:
            continue
        loaded = given[key]
        if isinstance(value, (tuple, list)):
            fits = isinstance(loaded, (tuple, list)) and len(loaded) == len(value) and all(
                map(_is_number, loaded)
            )
        elif _is_number(value):
            fits = _is_number(loaded)
        else:
            fits = isinstance(loaded, type(value)) or value is None
        if not fits:
            raise ValueError(f"loaded {key} of group {position} is {str(loaded)[:60]}")


def _is_number(value: Any) -> bool:
    """Whether this is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return False
    try:
        return not np.isnan(float(value))
    except OverflowError:
        return False


def _restored(value: Any, param: Tensor, key: str, index: Any) -> Any:
    """One entry of a parameter's state: a tensor of its shape, or the count of its steps."""
    if key == "step":
        if not 0 <= int(value) < 2**53:
            raise ValueError(f"loaded step of parameter {index} is {str(value)[:60]}")
        return int(value)
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    if array.shape != tuple(param.shape):
        raise ValueError(
            f"loaded {key} of parameter {index} has shape {array.shape}, the parameter "
            f"{tuple(param.shape)}"
        )
    return Tensor(array)
