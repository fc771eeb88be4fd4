"""Whether operations are recorded for gradients: per thread, as in PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from . import _core

P = ParamSpec("P")
R = TypeVar("R")


class _GradMode:
    """Context manager and decorator that sets the grad mode and puts it back."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_core.set_grad_enabled(self._enabled))

    def __exit__(self, *error: object) -> None:
        _core.set_grad_enabled(self._before.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        enabled = self._enabled

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            with _GradMode(enabled):
                return function(*args, **kwargs)

        return wrapper


def no_grad() -> _GradMode:
    """Inside, nothing is recorded: ``with attnnet.no_grad(): ...``, or as a decorator."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Inside, operations are recorded even where an outer :func:`no_grad` says otherwise."""
    return _GradMode(True)


def is_grad_enabled() -> bool:
    """Whether operations of this thread are recorded now."""
    return _core.grad_enabled()


_guided: ContextVar[bool] = ContextVar("guided_relu", default=False)


@contextmanager
def guided_relu() -> Iterator[None]:
    """Inside, a ReLU that is recorded passes a gradient only where its input *and* the gradient
    are positive (Springenberg et al. 2015, "Striving for Simplicity").

    It holds at every ReLU, module or function: batch norms with a ReLU and the attention blocks of
    ``attnnet.nn`` are taken apart. The one-operation blocks of ``attnnet.functional`` (``F.se``),
    which hide theirs, refuse to run.
    """
    before = _guided.set(True)
    try:
        yield
    finally:
        _guided.reset(before)


def is_relu_guided() -> bool:
    """Whether this is inside :func:`guided_relu`."""
    return _guided.get()
