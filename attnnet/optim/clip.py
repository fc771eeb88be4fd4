"""Gradient clipping, between ``backward()`` and ``step()``."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .. import _core
from ..tensor import Tensor


def clip_grad_norm_(
    params: Iterable[Tensor] | Tensor, max_norm: float, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients so that their common Euclidean norm is at most ``max_norm``.

    Args:
        params: parameters; those without a gradient are passed over.
        max_norm: the largest norm, 0 or more.
        error_if_nonfinite: whether a norm that is NaN or infinite is an error (default no).

    Returns:
        The norm before clipping.

    Raises:
        ValueError: for a negative ``max_norm``. RuntimeError: for a norm that is not finite,
            where asked for.

    Paper: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks".
    """
    if not max_norm >= 0.0:
        raise ValueError(f"max_norm must be 0 or more, got {max_norm}")
    grads = _grads(params)
    norm = _core.global_norm(grads)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(f"the norm of the gradients is {norm}, so it cannot be clipped")
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1.0:  # NaN passes on into the gradients, as in PyTorch
        _core.scale_(grads, factor)
    return norm


def clip_grad_value_(params: Iterable[Tensor] | Tensor, clip_value: float) -> None:
    """Clip every element of all gradients to -clip_value..clip_value.

    Args:
        params: parameters; those without a gradient are passed over.
        clip_value: 0 or more.

    Raises:
        ValueError: for a negative ``clip_value``.
    """
    if not clip_value >= 0.0:
        raise ValueError(f"clip_value must be 0 or more, got {clip_value}")
    _core.clip_value_(_grads(params), clip_value)


def _grads(params: Iterable[Tensor] | Tensor) -> list[Tensor]:
    listed = [params] if isinstance(params, Tensor) else params
    return [param.grad for param in listed if param.grad is not None]
