"""What operations take: tensors, numbers and arrays that become constant ones, and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from . import _core

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .tensor import Tensor

Pair = int | tuple[int, int] | list[int]  # both, or rows and columns
Integers = int | Sequence[int]
Operand: TypeAlias = "Tensor | ArrayLike"


def as_tensor(value: Operand | _core.Tensor) -> _core.Tensor:
    """A tensor as it is; numbers and arrays become constant tensors."""
    return value if isinstance(value, _core.Tensor) else _new_tensor(value)


def _new_tensor(value: ArrayLike) -> _core.Tensor:
    from .tensor import Tensor

    return Tensor(value)


def as_pair(value: Pair, name: str, least: int | None = None) -> tuple[int, int]:
    """Rows and columns: one integer for both, or two.

    Raises:
        ValueError: for anything else, or a number below ``least``; it begins with ``name``.
    """
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) == 2 and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool)
                              and (least is None or n >= least) for n in pair):
        return (int(pair[0]), int(pair[1]))
    bound = "" if least is None else f", each at least {least}"
    raise ValueError(f"{name} must be an integer or two of them{bound}: got {value!r}")


def as_integers(value: Integers, function: str, name: str) -> tuple[int, ...]:
    """One integer, or several."""
    try:
        return tuple(map(index, value)) if isinstance(value, Iterable) else (index(value),)
    except TypeError:
        raise TypeError(f"{function}: {name} is {value!r}; expected one or more integers") from None
