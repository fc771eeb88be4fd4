"""Parameter: the tensor that a module registers as its own and an optimiser updates."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor


class Parameter(Tensor):
    """A tensor that becomes a module's parameter when it is assigned as an attribute.

    Args:
        data: array-like of any shape; copied to float32.
        requires_grad: whether ``backward()`` leaves a gradient in ``.grad`` (default: yes).
    """

    def __new__(cls, data: Any, requires_grad: bool = True) -> Parameter:
        return super().__new__(cls, data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
