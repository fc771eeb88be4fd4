"""Looking at a module without disturbing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..autograd import no_grad

if TYPE_CHECKING:
    from .module import Module


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the ``with``; each module's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with no_grad():
            yield
    finally:
        for part, mode in modes:
            part.__dict__["training"] = mode
