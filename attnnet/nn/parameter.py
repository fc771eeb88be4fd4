"""Parameter: the tensor that a module registers as its own and an optimiser updates."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..tensor import HookHandle, Tensor

# The numbers that parameters made in this context may still hold, in a list of one; None: any.
_left: ContextVar[list[int] | None] = ContextVar("_left", default=None)


class Parameter(Tensor):
    """A tensor that becomes a module's parameter when it is assigned as an attribute.

    Args:
        data: array-like of any shape; copied to float32.
        requires_grad: whether ``backward()`` leaves a gradient in ``.grad`` (default: yes).
    """

    def __new__(cls, data: Any, requires_grad: bool = True) -> Parameter:
        left = _left.get()
        if left is not None:
            left[0] -= math.prod(np.shape(data))
            if left[0] < 0:
                raise CheckpointError("the model has more parameters than its file has room for.")
        return super().__new__(cls, data, requires_grad)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """As for every tensor. The hook may hold the module that the parameter belongs to: it is
        kept by this object, where Python sees such a circle and can free it, not by the core.

        Raises:
            RuntimeError: where the parameter requires no gradient.
            TypeError: where ``hook`` cannot be called.
        """
        if not callable(hook):
            return super().register_hook(hook)  # which says so
        hooks = self.__dict__.setdefault("_gradient_hooks", {})
        key, me = object(), weakref.ref(self)

        def call(gradient: Tensor) -> Tensor | None:
            owner = me()
            kept = None if owner is None else owner.__dict__["_gradient_hooks"].get(key)
            return None if kept is None else kept(gradient)

        handle = super().register_hook(call)
        hooks[key] = hook

        def remove() -> None:
            hooks.pop(key, None)
            handle.remove()

        return HookHandle(remove)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


@contextmanager
def at_most(numbers: int) -> Iterator[None]:
    """Limits what parameters made inside the ``with`` may hold in all.

    For models that a file describes: one that is larger than its file is refused before it takes
    memory.

    Raises:
        CheckpointError: inside, where a parameter would exceed it.
    """
    token = _left.set([numbers])
    try:
        yield
    finally:
        _left.reset(token)
