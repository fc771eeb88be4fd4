"""What a data set is: images, labels, names; and the ways to cut one in two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import DataError


@dataclass(repr=False, eq=False)
class Dataset:
    """Images with their classes, as they are stored: 8 bits a pixel.

    Attributes:
        images: uint8 array (N, C, H, W), C-contiguous, values 0..255.
        labels: int64 array (N,), values 0..len(classes)-1.
        classes: the names of the classes.
        name: what the set is called in logs and checkpoints.
        mean: a number a channel, in units of the full range (pixel / 255).
        std: likewise; what ``Loader`` normalises with is ``(pixel / 255 - mean) / std``.
        masks: bool array (N, H, W), true where the object is, or None where nobody knows.

    Raises:
        DataError: the parts do not fit each other.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: list[str]
    name: str = "arrays"
    mean: tuple[float, ...] = field(default=())
    std: tuple[float, ...] = field(default=())
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.classes = [str(c) for c in self.classes]
        if not isinstance(self.images, np.ndarray) or self.images.dtype != np.uint8 \
                or self.images.ndim != 4:
            raise DataError(f"{self.name}: images must be a uint8 array (N, C, H, W), got "
                            f"{_describe(self.images)}; from_arrays() converts other kinds")
        self.images = np.ascontiguousarray(self.images)
        count, channels, height, width = self.images.shape
        if not (channels and height and width):
            raise DataError(f"{self.name}: images of shape {self.images.shape} hold no pixels")
        self.labels = check_labels(self.labels, count, len(self.classes), self.name)
        if len(self.mean) == 0 or len(self.std) == 0:
            mean, std = channel_statistics(self.images)
            self.mean = self.mean if len(self.mean) else mean
            self.std = self.std if len(self.std) else std
        self.mean = check_statistics("mean", self.mean, channels, self.name)
        self.std = check_statistics("std", self.std, channels, self.name)
        if self.masks is not None:
            expected = (count, height, width)
            if not isinstance(self.masks, np.ndarray) or self.masks.dtype != np.bool_ \
                    or self.masks.shape != expected:
                raise DataError(f"{self.name}: masks must be a bool array {expected}, got "
                                f"{_describe(self.masks)}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        masks = ", with masks" if self.masks is not None else ""
        return (f"Dataset({self.name!r}: {len(self):,} images of {self.channels} x {self.height} "
                f"x {self.width}, {len(self.classes)} classes{masks})")

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.images.shape[1]

    @property
    def height(self) -> int:
        """Rows of an image, in pixels."""
        return self.images.shape[2]

    @property
    def width(self) -> int:
        """Columns of an image, in pixels."""
        return self.images.shape[3]

    @property
    def class_counts(self) -> np.ndarray:
        """How many images each class has: int64 array (classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def spread(self, count: int) -> np.ndarray:
        """Indices of at most ``count`` images of many classes, in rising order; always the same.

        Their stride shares no factor with a usual number of classes, by which images may be sorted.
        """
        return np.unique(np.arange(count) * 7919 % len(self))

    def subset(self, indices: Sequence[int] | np.ndarray | slice) -> Dataset:
        """The images that ``indices`` (integers, a bool array or a slice) names, as a data set.

        Raises:
            DataError: an index is out of range.
        """
        try:
            if not isinstance(indices, slice):
                indices = np.asarray(indices)
                indices = indices.astype(np.int64) if indices.size == 0 else indices
            masks = None if self.masks is None else self.masks[indices]
            return replace(self, images=self.images[indices], labels=self.labels[indices],
                           masks=masks)
        except IndexError as bad:
            raise DataError(f"{self.name}: no such subset of {len(self):,} images: {bad}") from bad

    def split(self, count_or_fraction: int | float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Cuts off a validation set; every class gives its share (stratified).

        Args:
            count_or_fraction: how many images to cut off: a whole number of images, or a
                fraction between 0 and 1 (exclusive).
            seed: which ones. The same seed gives the same split on every machine and version.

        Returns:
            (rest, cut off), each in the order of this data set.

        Raises:
            DataError: the count or fraction leaves nothing on one side.
        """
        chosen = stratified_choice(self.labels, len(self.classes), count_or_fraction, seed)
        picked = np.zeros(len(self), bool)
        picked[chosen] = True
        return self.subset(~picked), self.subset(picked)


def stratified_choice(labels: np.ndarray, classes: int, count_or_fraction: int | float,
                      seed: int) -> np.ndarray:
    """Sorted indices of a seeded choice in which every class has its share (int64 array).

    Shares are rounded by the largest remainder, the lower class first where they are equal.

    Raises:
        DataError: the count or fraction leaves nothing on one side.
    """
    total = len(labels)
    if isinstance(count_or_fraction, (bool, np.bool_)) or \
            not isinstance(count_or_fraction, (int, float, np.integer, np.floating)):
        raise DataError("count_or_fraction must be a number of images or a fraction, got "
                        f"{type(count_or_fraction).__name__}")
    if isinstance(count_or_fraction, (int, np.integer)):
        count = int(count_or_fraction)
        if not 0 < count < total:
            raise DataError(f"cannot cut {count:,} images off {total:,}: expected 1 to "
                            f"{total - 1:,}")
    else:
        if not 0.0 < count_or_fraction < 1.0:
            raise DataError(f"a fraction must lie between 0 and 1, got {count_or_fraction}; give "
                            "a whole number for a number of images")
        count = round(total * float(count_or_fraction))
        if not 0 < count < total:
            raise DataError(f"a fraction of {count_or_fraction} of {total:,} images is {count:,}: "
                            "nothing would be left on one side")
    order = random_order(total, seed)
    exact = np.bincount(labels, minlength=classes) * count / total
    share = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - share), kind="stable")
    share[by_remainder[:count - share.sum()]] += 1
    shuffled = labels[order]
    chosen = [order[np.flatnonzero(shuffled == c)[:share[c]]] for c in range(classes)]
    return np.sort(np.concatenate(chosen))


def random_order(count: int, seed: int) -> np.ndarray:
    """A permutation of 0..count-1 (int64) from raw random words: no NumPy version changes it."""
    words: Any = np.random.Philox(key=check_seed(seed)).random_raw(count) if count else []
    return np.argsort(np.asarray(words, np.uint64), kind="stable")


def check_seed(seed: int) -> int:
    """The seed as an int in 0..2**64-1, or a ValueError."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)) \
            or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be a whole number from 0 to 2**64 - 1, got {seed!r}")
    return int(seed)


def check_labels(labels: object, count: int, classes: int, name: str) -> np.ndarray:
    """Labels as an int64 array (count,) with values 0..classes-1.

    Raises:
        DataError: another shape, no whole numbers, or out of range.
    """
    try:
        array = np.asarray(labels)
    except ValueError as ragged:
        raise DataError(f"{name}: labels must be an array of whole numbers: {ragged}") from ragged
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(f"{name}: labels must be whole numbers of shape (N,), got "
                        f"{_describe(array)}")
    if len(array) != count:
        raise DataError(f"{name}: {count:,} images but {len(array):,} labels")
    bad = np.flatnonzero((array < 0) | (array >= classes))
    if len(bad):
        raise DataError(f"{name}: label {array[bad[0]]} of image {bad[0]:,} is out of range: "
                        f"expected 0 to {classes - 1} ({len(bad):,} such labels)")
    return np.ascontiguousarray(array, np.int64)


def check_statistics(what: str, values: object, channels: int, name: str) -> tuple[float, ...]:
    """A mean or std as a tuple of ``channels`` finite numbers; std must be positive.

    Raises:
        DataError: a wrong number of values, or values that cannot normalise anything.
    """
    try:
        numbers = tuple(float(v) for v in np.atleast_1d(np.asarray(values, np.float64)))
    except (TypeError, ValueError) as bad:
        raise DataError(f"{name}: {what} must be {channels} numbers, got {values!r}") from bad
    if len(numbers) != channels:
        raise DataError(f"{name}: {what} has {len(numbers)} values, expected {channels}, one a "
                        "channel")
    if not all(np.isfinite(numbers)) or (what == "std" and not all(v > 0 for v in numbers)):
        wanted = "positive" if what == "std" else "finite"
        raise DataError(f"{name}: {what} must be {wanted}, got {numbers}")
    return numbers


def check_classes(dataset: Dataset) -> Dataset:
    """The data set, if every class has an image.

    Raises:
        DataError: names the classes that have none.
    """
    empty = [dataset.classes[c] for c in np.flatnonzero(dataset.class_counts == 0)]
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise DataError(f"{dataset.name}: {len(empty)} of {len(dataset.classes)} classes have no "
                        f"image: {shown}")
    return dataset


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels / 255, a number a channel.

    Whole numbers are summed, so the result does not depend on the order of the images. A channel
    without any variation gets the standard deviation 1, so that it can be normalised.

    Args:
        images: uint8 array (N, C, H, W).

    Returns:
        (mean, std), tuples of C floats; zeros and ones where there are no images.
    """
    means, stds = [], []
    for c in range(images.shape[1]):
        counts = sum((np.bincount(part.ravel(), minlength=256)
                      for part in np.array_split(images[:, c], max(1, len(images) // 4096))),
                     np.zeros(256, np.int64))
        total = int(counts.sum())
        values = np.arange(256)
        mean = float(counts @ values) / total if total else 0.0
        square = float(counts @ values**2) / total if total else 0.0
        std = max(square - mean * mean, 0.0) ** 0.5
        means.append(mean / 255)
        stds.append(std / 255 if std > 0 else 1.0)
    return tuple(means), tuple(stds)


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__
