"""Hooks of modules: handles, and the count that keeps the hookless path free of checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

# Hooks registered and not removed, in the whole process. While it is zero, fused layers need not
# look inside themselves for hooked children.
_alive = 0


def any_alive() -> bool:
    """Whether any module of the process may have a hook (never falsely no)."""
    return _alive > 0


class HookHandle:
    """What registering a hook returns; ``remove()`` ends the hook, as does leaving a ``with``."""

    __slots__ = ("_key", "_module", "_table")
    _next_key = 0

    def __init__(self, module: Module, table: dict[int, Callable[..., Any]], hook: Any) -> None:
        global _alive
        if not callable(hook):
            raise TypeError(f"a hook must be callable, got {type(hook).__name__}")
        self._key = HookHandle._next_key
        HookHandle._next_key += 1
        self._module, self._table = module, table
        table[self._key] = hook
        module.__dict__["_hooked"] = True
        _alive += 1

    def remove(self) -> None:
        """End the hook; a second call does nothing."""
        global _alive
        if self._table.pop(self._key, None) is not None:
            _alive -= 1
            state = self._module.__dict__
            state["_hooked"] = bool(state["_forward_hooks"] or state["_output_grad_hooks"])

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def run(module: Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """Run a module's hooks on an output just computed; return what replaces the output."""
    for hook in tuple(module._forward_hooks.values()):
        replaced = hook(module, inputs, output)
        if replaced is not None:
            output = replaced
    if module._output_grad_hooks and isinstance(output, Tensor) and output.requires_grad:
        for hook in tuple(module._output_grad_hooks.values()):
            output.register_hook(_bound_to(module, hook))
    return output


def _bound_to(module: Module, hook: Callable[..., Any]) -> Callable[[Tensor], Any]:
    return lambda grad: hook(module, grad)
