"""Reading and writing of a module's state dict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import CheckpointError
from ..tensor import Tensor

if TYPE_CHECKING:
    from .module import Module


class StateDictError(CheckpointError, RuntimeError):
    """A state dict that does not fit a module (a RuntimeError too, as PyTorch's users expect)."""


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` did not find, and what it had no use for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def entries(module: Module, prefix: str = "") -> Iterator[tuple[str, Tensor | np.ndarray]]:
    """Every parameter and saved buffer with its key; one shared by two names comes twice."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._unsaved:
            yield prefix + name, buffer
    for name, child in module._modules.items():
        if child is not None:
            yield from entries(child, f"{prefix}{name}.")


def collect(
    module: Module, prefix: str = "", copy: bool = True
) -> OrderedDict[str, np.ndarray]:
    """See ``Module.state_dict``."""
    state: OrderedDict[str, np.ndarray] = OrderedDict()
    for key, value in entries(module, prefix):
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        state[key] = np.array(array, order="C", copy=copy or None)
    return state


def load(module: Module, state_dict: Any, strict: bool) -> IncompatibleKeys:
    """See ``Module.load_state_dict``. Checks everything before it writes anything."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"expected state_dict to be a mapping, got {type(state_dict).__name__}")
    own = dict(entries(module))
    missing = [key for key in own if key not in state_dict]
    unexpected = [str(key) for key in state_dict if key not in own]
    problems: list[str] = []
    if strict and unexpected:
        problems.append(f"Unexpected key(s) in state_dict: {_listed(unexpected)}.")
        problems += _prefix_hint(own, state_dict)
    if strict and missing:
        problems.append(f"Missing key(s) in state_dict: {_listed(missing)}.")
    ready: dict[str, np.ndarray] = {}
    for key, target in own.items():
        if key in state_dict:
            try:
                ready[key] = _fitting(key, state_dict[key], target)
            except ValueError as error:
                problems.append(str(error))
    if problems:
        raise StateDictError(
            f"Error(s) in loading state_dict for {type(module).__name__}:\n\t"
            + "\n\t".join(problems)
        )
    for key, array in ready.items():
        target = own[key]
        if isinstance(target, Tensor):
            target.copy_(array)
        else:
            target[...] = array
    return IncompatibleKeys(missing, unexpected)


def _listed(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)


def _prefix_hint(own: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """A line of advice where the keys differ only by a leading name, as DataParallel leaves it."""
    head = next(iter(state_dict)).split(".", 1)[0] + "."
    stripped = [key[len(head) :] for key in state_dict if key.startswith(head)]
    if len(stripped) == len(state_dict) and set(stripped) == set(own):
        return [f"Every key begins with {head!r}; without it all of them would fit."]
    return []


def _fitting(key: str, value: Any, target: Tensor | np.ndarray) -> np.ndarray:
    """A value as an array that can be copied into its target, or ValueError."""
    if hasattr(value, "detach"):  # tensors, ours and PyTorch's, may hang on a tape
        value = value.detach()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"wrong type for {key}: {type(value).__name__} is not an array ({error})."
        ) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"wrong type for {key}: expected numbers, got dtype {array.dtype}.")
    if tuple(array.shape) != tuple(target.shape):
        raise ValueError(
            f"size mismatch for {key}: copying a param with shape {tuple(array.shape)} from the "
            f"state dict, the shape in the current model is {tuple(target.shape)}."
        )
    return array
