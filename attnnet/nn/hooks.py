"""Hooks of modules: handles, and the count that keeps the hookless path free of checks."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

# Hooks of living modules, in the whole process. While it is zero, fused layers need not look inside
# themselves for hooked children.
_alive = 0


def any_alive() -> bool:
    """Whether any module of the process has a hook."""
    return _alive > 0


def _release(token: list[bool]) -> None:
    """Count a hook out, once: when it is removed, or when its module is gone."""
    global _alive
    if token:
        token.clear()
        _alive -= 1


class HookHandle:
    """What registering a hook returns; ``remove()`` ends the hook, as does leaving a ``with``.

    A handle does not keep its module alive.
    """

    __slots__ = ("_key", "_module", "_table", "_token")
    _next_key = 0

    def __init__(self, module: Module, table: dict[int, Callable[..., Any]], hook: Any) -> None:
        global _alive
        if not callable(hook):
            raise TypeError(f"a hook must be callable, got {type(hook).__name__}")
        self._key = HookHandle._next_key
        HookHandle._next_key += 1
        self._module, self._table = weakref.ref(module), weakref.ref(table)
        self._token = [True]
        table[self._key] = hook
        module.__dict__["_hooked"] = True
        _alive += 1
        # The finaliser holds the token alone: a hook may well refer to its module.
        weakref.finalize(module, _release, self._token).atexit = False

    def remove(self) -> None:
        """End the hook; a second call does nothing."""
        _release(self._token)
        module, table = self._module(), self._table()
        if module is not None and table is not None:
            table.pop(self._key, None)
            state = module.__dict__
            state["_hooked"] = bool(state["_forward_hooks"] or state["_output_grad_hooks"])

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class HookTable(dict):
    """Hooks of one kind, by their handle's number."""

    __slots__ = ("__weakref__",)


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
