"""Evaluation: loss, top-1, top-5, confusion matrix and per-class accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..markup import folded, table
from ..nn.modes import evaluating

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import Module


@dataclass
class Evaluation:
    """How a model does on a set of images. K classes, N images; accuracies are percentages.

    Attributes:
        loss: mean cross entropy over the images (no label smoothing), in nats.
        top1, top5: percentage of images whose label is the first, among the first five.
        confusion: (K, K) int64, images with label i (row) that were taken for j (column).
        per_class: (K,) float64, percentage right in each class; NaN for a class without images.
        predictions: (N,) int64, the class taken for each image.
        confidence: (N,) float64, its softmax probability.
        classes: the K class names.
    """

    loss: float
    top1: float
    top5: float
    confusion: np.ndarray
    per_class: np.ndarray
    predictions: np.ndarray
    confidence: np.ndarray
    classes: list[str]

    @property
    def images(self) -> int:
        """How many images were evaluated."""
        return int(self.confusion.sum())

    def to_dict(self) -> dict[str, Any]:
        """All but the single predictions, as plain values for JSON."""
        per_class = [None if np.isnan(v) else float(v) for v in self.per_class]
        return {
            "images": self.images,
            "loss": self.loss if np.isfinite(self.loss) else None,
            "top1": self.top1,
            "top5": self.top5,
            "per_class": dict(zip(self.classes, per_class, strict=True)),
            "confusion": self.confusion.tolist(),
            "classes": list(self.classes),
        }

    def confused(self, most: int = 5) -> list[tuple[str, str, int]]:
        """The most frequent confusions: (label, taken for, how many images)."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = (np.unravel_index(i, wrong.shape) for i in order)
        return [
            (self.classes[i], self.classes[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]
        ]

    def table(self) -> str:
        """The result as text: the totals, a line a class, the most frequent confusions."""
        counts = self.confusion.sum(axis=1)
        width = max(5, *(len(name) for name in self.classes))
        lines = [
            f"images {self.images:,}   loss {self.loss:.4f}   "
            f"top-1 {self.top1:.2f} %   top-5 {self.top5:.2f} %",
            "",
            f"{'class':<{width}}  images  right %",
        ]
        for name, count, right in zip(self.classes, counts, self.per_class, strict=True):
            shown = f"{right:7.2f}" if count else "      -"
            lines.append(f"{name:<{width}}  {count:6d}  {shown}")
        pairs = self.confused()
        if pairs:
            lines += ["", "taken for another most often:"]
            lines += [f"  {label} -> {other}: {n}" for label, other, n in pairs]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """For notebooks: the totals, the most frequent confusions, a line a class (folded where
        there are many)."""
        totals = table(
            ("images", "loss", "top-1 %", "top-5 %"),
            [(f"{self.images:,}", f"{self.loss:.4f}", f"{self.top1:.2f}", f"{self.top5:.2f}")],
        )
        pairs = self.confused()
        confused = table(("label", "taken for", "images"), pairs) if pairs else ""
        counts = self.confusion.sum(axis=1)
        rows = [
            (name, count, f"{right:.2f}" if count else "-")
            for name, count, right in zip(self.classes, counts, self.per_class, strict=True)
        ]
        classes = table(("class", "images", "right %"), rows)
        return totals + confused + folded("each class", classes, is_open=len(rows) <= 10)


def evaluate(
    model: Module,
    dataset: Dataset,
    batch_size: int = 256,
    *,
    test_flip: bool = False,
    on_batch: Callable[[int, int], bool | None] | None = None,
) -> Evaluation:
    """Evaluates a model on a dataset, in eval mode and without gradients.

    Args:
        model: gives logits (N, K) for images (N, C, H, W); its mode is put back afterwards. Its
            ``normalization`` is used where it has one, else the dataset's.
        dataset: the images and labels.
        batch_size: images a forward pass; more than that is never in memory at once.
        test_flip: average the logits over each image and its mirror image.
        on_batch: called after each batch with (images done, images in all); returning True stops
            the evaluation by raising ``EvaluationStopped``.

    Returns:
        The ``Evaluation``.

    Raises:
        DataError: the dataset is empty, or has labels the model has no class for.
        ValueError: ``batch_size`` is below 1, or the model gives something else than logits.
        TypeError: ``dataset`` is no ``Dataset``.
        EvaluationStopped: ``on_batch`` returned True (the class is in this module).
    """
    from ..data import Dataset

    if not isinstance(dataset, Dataset):
        raise TypeError(f"evaluate: expected a Dataset, got {type(dataset).__name__}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"evaluate: batch_size is {batch_size!r}; expected at least 1.")
    if len(dataset.labels) == 0:
        raise DataError(f"evaluate: the dataset {dataset.name!r} holds no images.")
    logits = logits_of(model, dataset, batch_size, test_flip=test_flip, on_batch=on_batch)
    return score(logits, dataset.labels, dataset.classes)


def logits_of(
    model: Module,
    dataset: Dataset,
    batch_size: int,
    *,
    test_flip: bool,
    on_batch: Callable[[int, int], bool | None] | None,
) -> np.ndarray:
    """Logits (N, K) of a dataset with at least one image, float64; arguments and errors as in
    ``evaluate``."""
    from ..data import Loader

    total = len(dataset.labels)
    dataset = with_normalization(dataset, getattr(model, "normalization", None))
    logits = np.empty((0, 0))
    done = 0
    with evaluating(model):
        for batch in Loader(dataset, batch_size=batch_size, shuffle=False).epoch(0):
            part = _logits(model, batch.images, test_flip)
            if part.ndim != 2:
                raise ValueError(
                    f"evaluate: the model gave {part.shape}; expected logits "
                    f"({len(batch.labels)}, classes)."
                )
            if done == 0:
                logits = np.empty((total, part.shape[1]))
            logits[done : done + len(part)] = part
            done += len(part)
            if on_batch is not None and on_batch(done, total):
                raise EvaluationStopped
    return logits


class EvaluationStopped(Exception):
    """The caller of ``evaluate`` asked it to stop: its ``on_batch`` returned True.

    There is no result then. The model is back in the mode that it was in. A trainer catches this
    where a training is stopped during an evaluation, and evaluates again when it goes on.
    """


def with_normalization(
    dataset: Dataset, normalization: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> Dataset:
    """The same images with another normalisation (mean, std); None keeps the dataset's own.

    Raises:
        DataError: not one number a channel.
    """
    if normalization is None:
        return dataset
    mean, std = normalization
    channels = dataset.images.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise DataError(
            f"normalisation has {len(mean)} means and {len(std)} deviations; the images of "
            f"{dataset.name!r} have {channels} channels, expected one of each a channel."
        )
    return dataclasses.replace(dataset, mean=tuple(mean), std=tuple(std))


def _logits(model: Module, images: np.ndarray, test_flip: bool) -> np.ndarray:
    """Logits (N, K) of one batch, float64."""
    from .. import tensor

    out = np.asarray(model(tensor(images)).numpy(), np.float64)
    if test_flip:
        mirrored = np.ascontiguousarray(images[..., ::-1])
        out = (out + np.asarray(model(tensor(mirrored)).numpy(), np.float64)) / 2
    return out


def score(logits: np.ndarray, labels: np.ndarray, classes: list[str]) -> Evaluation:
    """Scores logits against labels.

    Args:
        logits: (N, K) floats. A row with NaN or infinity counts as wrong.
        labels: (N,) integers in [0, K).
        classes: the K class names.

    Raises:
        DataError: a label is outside [0, K), or the names are not K.
    """
    count, known = logits.shape
    if len(classes) != known:
        raise DataError(f"the model has {known} classes, the data {len(classes)}.")
    if labels.min() < 0 or labels.max() >= known:
        raise DataError(
            f"labels go from {labels.min()} to {labels.max()}; the model has {known} classes."
        )
    logits = np.asarray(logits, np.float64)
    highest = logits.max(axis=1, keepdims=True)
    broken = ~np.isfinite(highest[:, 0])
    with np.errstate(invalid="ignore"):
        shifted = logits - highest
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    rows = np.arange(count)
    own = shifted[rows, labels]
    # Place of the label in the sorted logits; of equal ones the first comes first.
    ahead = (shifted > own[:, None]).sum(axis=1)
    ahead += ((shifted == own[:, None]) & (np.arange(known) < labels[:, None])).sum(axis=1)
    place = np.where(broken, known + 5, ahead)
    predictions = logits.argmax(axis=1)
    confusion = np.zeros((known, known), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    right = np.bincount(labels[place == 0], minlength=known)
    images = np.bincount(labels, minlength=known)
    return Evaluation(
        loss=float(np.mean(log_sum - own)),
        top1=100.0 * int((place < 1).sum()) / count,
        top5=100.0 * int((place < 5).sum()) / count,
        confusion=confusion,
        per_class=np.where(images > 0, 100.0 * right / np.maximum(images, 1), np.nan),
        predictions=predictions,
        confidence=np.exp(shifted[rows, predictions] - log_sum),
        classes=list(classes),
    )
