"""A training's state as plain data: what a checkpoint needs to go on bit for bit."""

from __future__ import annotations

import math
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError

if TYPE_CHECKING:
    from ..data import Dataset


@dataclass
class EpochSums:
    """Sums over the steps of the running epoch; the loss is kept in float64."""

    loss: float = 0.0
    right: int = 0
    images: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def mean_loss(self) -> float:
        """Mean loss an image; NaN before the first."""
        return self.loss / self.images if self.images else math.nan

    @property
    def top1(self) -> float:
        """Percentage right; NaN before the first image."""
        return 100.0 * self.right / self.images if self.images else math.nan


@dataclass
class Best:
    """The best epoch so far (0: none) and its accuracy in per cent."""

    epoch: int = 0
    top1: float = -1.0


@dataclass
class Position:
    """Where a training stands.

    Attributes:
        epoch: whole epochs done.
        batch: steps done in the epoch that follows them.
        sums: over those steps.
        best: the best epoch so far.
        random: the library's random state after the last step.
        seconds: of training and evaluation so far, over all interruptions.
    """

    epoch: int = 0
    batch: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    best: Best = field(default_factory=Best)
    random: dict[str, int] | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Any, path: str) -> Position:
        """What ``to_dict`` gave.

        Raises:
            CheckpointError: it is something else; ``path`` is the file to name.
        """
        try:
            position = cls(
                epoch=count_of(plain["epoch"]),
                batch=count_of(plain["batch"]),
                sums=EpochSums(
                    loss=float(plain["sums"]["loss"]),
                    right=count_of(plain["sums"]["right"]),
                    images=count_of(plain["sums"]["images"]),
                    skipped=count_of(plain["sums"]["skipped"]),
                    seconds=float(plain["sums"]["seconds"]),
                ),
                best=Best(count_of(plain["best"]["epoch"]), float(plain["best"]["top1"])),
                random={key: count_of(plain["random"][key]) for key in ("seed", "counter")},
                seconds=float(plain["seconds"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(
                f"{path}: corrupt metadata: no position to go on from ({error!r})."
            ) from None
        return position


def count_of(value: Any) -> int:
    """The value, if it is a count.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise ValueError(f"{str(value)[:60]} is not a count")
    return value


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """What tells one training set from another: its size and a checksum of labels and pixels.

    Of the pixels a thousand images, evenly spread, are enough to tell whether these are the same.
    """
    count = len(dataset.labels)
    chosen = np.arange(min(count, 1000)) * count // max(1, min(count, 1000))
    crc = zlib.crc32(np.ascontiguousarray(dataset.labels).view(np.uint8).data)
    crc = zlib.crc32(np.ascontiguousarray(dataset.images[chosen]).reshape(-1).data, crc)
    return {"name": dataset.name, "images": count, "crc32": f"{crc:08x}"}


def pack(tree: Any, arrays: dict[str, np.ndarray], path: str = "") -> Any:
    """A nested state dict as JSON values; its arrays go into ``arrays`` under their path.

    Args:
        tree: dicts (text or integer keys), lists, tuples, numbers, text, None, arrays.
        arrays: filled with the arrays found.
        path: name of ``tree`` itself.

    Returns:
        The same tree for JSON: arrays as ``{"array": name}``, dicts as ``{"dict": [[k, v], ...]}``
        (JSON alone would turn integer keys into text).
    """
    if isinstance(tree, dict):
        items = [[k, pack(v, arrays, f"{path}.{k}" if path else str(k))] for k, v in tree.items()]
        return {"dict": items}
    if isinstance(tree, (list, tuple)):
        return [
            pack(v, arrays, f"{path}.{i}" if path else str(i)) for i, v in enumerate(tree)
        ]
    if isinstance(tree, np.ndarray):
        arrays[path] = tree
        return {"array": path}
    if isinstance(tree, np.generic):
        return tree.item()
    return tree


def unpack(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What ``pack`` was given (tuples come back as lists).

    Raises:
        ValueError: not what ``pack`` gives, or an array is missing.
    """
    if isinstance(tree, list):
        return [unpack(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"array"} and tree["array"] in arrays:
        return arrays[tree["array"]]
    if set(tree) == {"dict"} and isinstance(tree["dict"], list):
        return {key: unpack(value, arrays) for key, value in tree["dict"]}
    raise ValueError(f"the optimiser's state is corrupt near {str(tree)[:60]}")
