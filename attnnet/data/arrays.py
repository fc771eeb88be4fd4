"""Data sets from plain NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..errors import DataError
from .dataset import Dataset, check_labels

_CHANNELS = (1, 3, 4)


def from_arrays(images: np.ndarray | Sequence[np.ndarray], labels: Sequence[int] | np.ndarray,
                classes: Sequence[str] | None = None, *, layout: str = "auto",
                channels: int | None = None, name: str = "arrays",
                mean: Sequence[float] = (), std: Sequence[float] = (),
                masks: np.ndarray | None = None) -> Dataset:
    """A data set from images and labels in memory.

    Args:
        images: uint8 with values 0..255, or floating point with values 0..1 (kept as 8 bits a
            pixel: rounded to multiples of 1/255). Shape (N, H, W, C), (N, C, H, W), or (N, H, W)
            for gray images; a sequence of N images of equal shape will do.
        labels: whole numbers (N,), 0 and up.
        classes: the names of the classes; by default "0", "1", ... up to the largest label.
        layout: "NHWC", "NCHW", or "auto": C is the axis of length 1, 3 or 4 at the one place or
            the other; where both would do you must say which.
        channels: 3 repeats gray images in three channels; by default they stay as they come.
        name: what the set is called in logs and checkpoints.
        mean, std: what to normalise with, a number a channel, in units of the full range; by
            default those of these images. Give the training set's to the test set.
        masks: bool array (N, H, W), true where the object is, where known.

    Raises:
        DataError: a wrong type, shape, range or number of anything; says which.
    """
    array = _as_array(images, name)
    array = _channels_first(array, layout, name)
    array = _as_bytes(array, name)
    if channels is not None and channels != array.shape[1]:
        if array.shape[1] != 1 or channels < 1:
            raise DataError(f"{name}: images have {array.shape[1]} channels and cannot become "
                            f"{channels}: only gray images can be repeated")
        array = np.repeat(array, channels, axis=1)
    if classes is None:
        checked = check_labels(labels, len(array), np.iinfo(np.int32).max, name)
        classes = [str(c) for c in range(int(checked.max()) + 1)] if len(checked) else ["0"]
        labels = checked
    masks = None if masks is None else np.ascontiguousarray(masks)
    return Dataset(np.ascontiguousarray(array), cast(np.ndarray, labels), list(classes), name,
                   tuple(mean), tuple(std), masks)


def _as_array(images: Any, name: str) -> np.ndarray:
    if isinstance(images, np.ndarray) and images.dtype != object:
        return images
    try:
        pieces = [np.asarray(image) for image in images]
    except TypeError as bad:
        raise DataError(f"{name}: images must be an array or a sequence of arrays, got "
                        f"{type(images).__name__}") from bad
    for i, piece in enumerate(pieces):
        if piece.shape != pieces[0].shape or piece.dtype != pieces[0].dtype:
            raise DataError(f"{name}: images of mixed shapes: image 0 is {pieces[0].dtype} "
                            f"{pieces[0].shape}, image {i:,} is {piece.dtype} {piece.shape}; "
                            "bring them to one size first")
    return np.stack(pieces) if pieces else np.empty((0, 0, 0), np.uint8)


def _channels_first(array: np.ndarray, layout: str, name: str) -> np.ndarray:
    if layout not in ("auto", "NHWC", "NCHW"):
        raise DataError(f"layout must be 'auto', 'NHWC' or 'NCHW', got {layout!r}")
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        raise DataError(f"{name}: images must have the shape (N, H, W, C), (N, C, H, W) or "
                        f"(N, H, W), got {array.shape}")
    if layout == "auto":
        first, last = array.shape[1] in _CHANNELS, array.shape[3] in _CHANNELS
        if first == last:
            why = "both ends could be" if first else "neither end looks like"
            raise DataError(f"{name}: images of shape {array.shape}: {why} the channels; say "
                            "layout='NHWC' or layout='NCHW'")
        layout = "NCHW" if first else "NHWC"
    return array if layout == "NCHW" else array.transpose(0, 3, 1, 2)


def _as_bytes(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DataError(f"{name}: images must be uint8 (0..255) or floating point (0..1), got "
                        f"{array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise DataError(f"{name}: images of type {array.dtype} must lie in 0..1, got "
                        f"{array.min()} to {array.max()}; for 0..255 convert to uint8")
    return np.rint(array * 255).astype(np.uint8)
