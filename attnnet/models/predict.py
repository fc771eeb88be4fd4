"""Images in, classes and probabilities out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import pictures
from ..extras import need
from ..markup import table
from ..nn.modes import evaluating
from ..tensor import Tensor

if TYPE_CHECKING:
    from .classifier import Classifier


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first.

    Attributes:
        classes: names, or indices where the model knows no names. indices: class numbers.
        probabilities: 0 to 1. Iterating gives (class, probability) pairs.
    """

    classes: list[str] | list[int]
    indices: list[int]
    probabilities: list[float]

    @classmethod
    def of(cls, row: np.ndarray, top: int, names: list[str] | None) -> Prediction:
        """The ``top`` best of one row of probabilities; a tie goes to the smaller index."""
        best = np.argsort(-row, kind="stable")[:top].tolist()
        classes = [names[i] for i in best] if names else best
        return cls(classes, best, row[best].tolist())

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        return iter(zip(self.classes, self.probabilities, strict=True))

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __str__(self) -> str:
        return ", ".join(f"{name} {100 * p:.1f} %" for name, p in self)

    def __repr__(self) -> str:
        return f"Prediction({self})"


class Predictions(list):
    """A list of ``Prediction``, one an image; prints one a line, shows as a table in a notebook."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def _repr_html_(self) -> str:
        rows = [
            [str(number), *(cell for name, p in one for cell in (name, f"{100 * p:.1f} %"))]
            for number, one in enumerate(self)
        ]
        most = len(self[0]) if self else 0
        places = [cell for i in range(most) for cell in (f"{i + 1}.", "")]
        return table(["image", *places], rows)


def probabilities(model: Classifier, images: Any, batch_size: int, resize: bool) -> np.ndarray:
    """(N, num_classes) float64; see ``Classifier.predict``."""
    ready = network_input(model, images, resize)
    rows = [np.zeros((0, model.num_classes))]
    with evaluating(model):
        for start in range(0, len(ready), batch_size):
            logits = model(Tensor(ready[start : start + batch_size])).numpy().astype(np.float64)
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            rows.append(powers / powers.sum(axis=1, keepdims=True))
    return np.concatenate(rows)


def network_input(model: Classifier, images: Any, resize: bool = False) -> np.ndarray:
    """What ``Classifier.predict`` takes, as float32 (N, C, H, W), normalised."""
    if isinstance(images, Tensor):
        _check_shape(model, tuple(images.shape))
        return images.detach().numpy()
    return prepare(model, images, resize)


def prepare(model: Classifier, images: Any, resize: bool = False) -> np.ndarray:
    """Images of any accepted kind as the network's input: float32 (N, C, H, W), normalised."""
    if isinstance(images, (list, tuple)):
        parts = [prepare(model, image, resize) for image in images]
        empty = np.zeros((0, model.in_channels, *model.image_size), np.float32)
        return np.concatenate([empty, *parts])
    pixels = _scaled(_channels_first(model, _as_array(model, images, resize)))
    if pixels.shape[2:] != model.image_size and resize:
        pixels = _resized(pixels, model.image_size)
    _check_shape(model, pixels.shape)
    if model.normalization is not None:
        lengths = [len(values) for values in model.normalization]
        if lengths != [model.in_channels] * 2:
            raise ValueError(
                f"normalization must be (mean, std) with {model.in_channels} numbers each, one a "
                f"channel: got {model.normalization!r}"
            )
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in model.normalization)
        pixels = (pixels - mean) / std
    return pixels


def _as_array(model: Classifier, image: Any, resize: bool) -> np.ndarray:
    """An array as it is; a path or Pillow image as (H, W, C) uint8, of the network's size where it
    is to be resized."""
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, (str, os.PathLike)):
        _check_channels(model)
        with pictures.opened(image) as opened:
            return _pillow_array(model, opened, resize)
    if type(image).__module__.partition(".")[0] == "PIL":
        return _pillow_array(model, image, resize)
    if hasattr(image, "__array__"):
        return np.asarray(image)
    raise TypeError(
        "images must be arrays, Pillow images, paths, or a list of these: got "
        f"{type(image).__name__}"
    )


def _check_channels(model: Classifier) -> None:
    if model.in_channels not in pictures.MODES:
        raise ValueError(
            f"the network takes {model.in_channels} channels, which no image file has: pass arrays"
        )


def _pillow_array(model: Classifier, image: Any, resize: bool) -> np.ndarray:
    _check_channels(model)
    image = pictures.upright(image, model.in_channels)
    array = np.asarray(pictures.fitted(image, model.image_size) if resize else image)
    return array if array.ndim == 3 else array[:, :, None]


def _channels_first(model: Classifier, array: np.ndarray) -> np.ndarray:
    """(N, C, H, W) of one or many images, channels first, last, or (one channel) left out."""
    channels = model.in_channels
    if array.ndim == 2 and channels == 1:
        return array[None, None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == channels:
        last_fits = array.shape[3] == channels and array.shape[1:3] == model.image_size
        if not (last_fits and array.shape[2:] != model.image_size):
            return array
    if array.ndim == 4 and array.shape[3] == channels:
        return array.transpose(0, 3, 1, 2)
    raise ValueError(
        f"images must be (N, {channels}, H, W), (N, H, W, {channels}) or one such image: got "
        f"shape {array.shape}"
    )


def _scaled(array: np.ndarray) -> np.ndarray:
    """float32 in 0..1."""
    if array.dtype.kind in "iu":
        if array.size and not (array.min() >= 0 and array.max() <= 255):
            raise ValueError(f"integer images must be 0 to 255, got {array.min()} to {array.max()}")
        return array.astype(np.float32) / np.float32(255)
    if array.dtype.kind != "f":
        raise ValueError(f"images must be integers (0 to 255) or floats (0 to 1): {array.dtype}")
    if array.size and not (array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
        raise ValueError(
            f"float images must be 0 to 1, got {array.min():g} to {array.max():g}; pass "
            "uint8 for 0 to 255, or an attnnet Tensor for input that is already normalised"
        )
    return array.astype(np.float32)


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, C, H, W) float32 to the same of another size, as image files are brought to it."""
    Image = need("PIL.Image")
    out = np.empty((*pixels.shape[:2], *size), np.float32)
    for place in np.ndindex(pixels.shape[:2]):
        plane = Image.fromarray(np.ascontiguousarray(pixels[place]))
        out[place] = np.asarray(pictures.fitted(plane, size))
    return out


def _check_shape(model: Classifier, shape: tuple[int, ...]) -> None:
    expected = (model.in_channels, *model.image_size)
    if len(shape) != 4 or shape[1:] != expected:
        raise ValueError(
            f"{model.arch} was made for images (N, {', '.join(map(str, expected))}), got "
            f"{shape}. predict(..., resize=True) brings images to that size, and "
            f"attnnet.data.read_image(file, {model.image_size}) files, for maps too"
        )
