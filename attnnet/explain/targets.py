"""What is explained: a class an image, or any function of the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import unknown_name
from ..tensor import Tensor


class Target:
    """The number an image whose origin is sought.

    Args:
        choice: None for the predicted class; a class index, or its name where the model knows
            names; a sequence of these, one an image; or a function of the logits Tensor (N, K)
            that returns a Tensor (N,), one score an image.
        count: how many images.
        names: the model's class names, or None.

    Raises:
        TypeError: for a choice of another kind.
        ValueError: for an unknown name, or a sequence of another length than ``count``.
    """

    def __init__(self, choice: Any, count: int, names: list[str] | None = None) -> None:
        self.function: Callable[[Tensor], Tensor] | None = None
        self.classes: np.ndarray | None = None
        if callable(choice):
            self.function = choice
        elif choice is not None:
            self.classes = _indices(choice, count, names)

    def of(self, rows: slice | np.ndarray) -> Target:
        """The target of some of the images."""
        part = Target(self.function, 0)
        if self.classes is not None:
            part.classes = self.classes[rows]
        return part

    def fixed(self, logits: np.ndarray) -> Target:
        """The same with the predicted classes written down, where nothing else was chosen.

        Raises:
            ValueError: for a class that the logits do not have.
        """
        if self.function is None and self.classes is None:
            part = Target(None, 0)
            part.classes = logits.argmax(1)
            return part
        if self.classes is not None:
            outside = (self.classes < 0) | (self.classes >= logits.shape[1])
            if outside.any():
                raise ValueError(
                    f"target must be 0 to {logits.shape[1] - 1} (the classes), got "
                    f"{int(self.classes[outside.argmax()])}"
                )
        return self

    def scores(self, logits: Tensor) -> Tensor:
        """One number an image, differentiable: (N, K) -> (N,). Needs a fixed target.

        Raises:
            ValueError: where a target function returns anything but a Tensor (N,).
        """
        if self.function is None:
            chosen = np.zeros(logits.shape, np.float32)
            chosen[np.arange(len(chosen)), self.classes] = 1
            return (logits * Tensor(chosen)).sum(1)
        scores = self.function(logits)
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (logits.shape[0],):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                "a target function must return a Tensor with one score an image, shape "
                f"({logits.shape[0]},): got {got}"
            )
        return scores


def _indices(choice: Any, count: int, names: list[str] | None) -> np.ndarray:
    """(count,) int64, from one index or name, or one an image."""
    one = isinstance(choice, (str, int, np.integer))
    if not one and not hasattr(choice, "__len__"):
        raise TypeError(_EXPECTED.format(type(choice).__name__))
    choices = [choice] * count if one else list(choice)
    if len(choices) != count:
        raise ValueError(f"target has {len(choices)} entries for {count} images")
    return np.array([_index(entry, names) for entry in choices], np.int64)


def _index(entry: Any, names: list[str] | None) -> int:
    if isinstance(entry, str):
        if not names:
            raise ValueError(f"target {entry!r}: the model knows no class_names, give an index")
        if entry not in names:
            raise unknown_name("class", entry, names)
        return names.index(entry)
    if isinstance(entry, (int, np.integer)) and not isinstance(entry, bool):
        return int(entry)
    raise TypeError(_EXPECTED.format(type(entry).__name__))


_EXPECTED = (
    "target must be None (the predicted class), a class index or name, a sequence of one an image, "
    "or a function of the logits: got {}"
)
