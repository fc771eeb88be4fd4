"""`shapes`: images made on the spot from a seed, with the mask of the object in each.

Ten kinds of objects of many places, sizes, directions and colours, over textured backgrounds with
clutter, uneven light and noise. A linear model on the pixels gets about 25 %, a convolutional
network learns them in a few epochs, and the masks say where it ought to look. Needs no download.

Image i is a function of (seed, split, i) alone. Every number comes from raw Philox words, and all
arithmetic is of the kind that IEEE 754 rounds exactly (no library's sine, no sums of varying
order), so the images are the same to the bit on every machine and with every NumPy.
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from . import shapes_draw as draw
from .dataset import Dataset, check_seed

CLASSES = ("disk", "ring", "square", "frame", "triangle", "cross", "star", "crescent", "corner",
           "hourglass")
# Of the 10,000 training images of seed 0.
MEAN = (0.3398, 0.3405, 0.3415)
STD = (0.1606, 0.1612, 0.1607)
SIZE = 32

_CHUNK = 500  # images made at once: their planes stay in the cache
_SPLITS = {"train": 0, "test": 1}


def load_shapes(train_count: int = 10_000, test_count: int = 2_000, seed: int = 0) \
        -> tuple[Dataset, Dataset]:
    """The data set `shapes`, with masks.

    Args:
        train_count, test_count: how many images; the first ones of a longer set are the same.
        seed: another seed, other images.

    Returns:
        (train, test): 3 x 32 x 32, ten classes, image i of class i % 10.

    Raises:
        DataError: a count that is no positive whole number.
        ValueError: a seed out of range.
    """
    datasets = []
    for split, count in (("train", train_count), ("test", test_count)):
        images, labels, masks = make_shapes(count, seed, split)
        datasets.append(Dataset(images, labels, list(CLASSES), "shapes", MEAN, STD, masks))
    return datasets[0], datasets[1]


def make_shapes(count: int, seed: int = 0, split: str = "train", start: int = 0) \
        -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images ``start`` to ``start + count - 1`` of a split.

    Returns:
        images uint8 (count, 3, 32, 32), labels int64 (count,), masks bool (count, 32, 32): true
        where the object covers at least half of the pixel.

    Raises:
        DataError: a count below 1, a start below 0, or an unknown split.
        ValueError: a seed out of range.
    """
    for what, value, least in (("count", count, 1), ("start", start, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise DataError(f"shapes: {what} must be a whole number from {least}, got {value!r}")
    if split not in _SPLITS:
        raise DataError(f"shapes: split must be 'train' or 'test', got {split!r}")
    images = np.empty((count, 3, SIZE, SIZE), np.uint8)
    masks = np.empty((count, SIZE, SIZE), bool)
    labels = (start + np.arange(count, dtype=np.int64)) % len(CLASSES)
    for begin in range(0, count, _CHUNK):
        part = slice(begin, min(begin + _CHUNK, count))
        numbers = draw.Numbers(check_seed(seed), _SPLITS[split], start + begin,
                               part.stop - part.start)
        images[part], masks[part] = _make_chunk(numbers, labels[part])
    return images, labels, masks


def _make_chunk(u: draw.Numbers, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(images, masks) of one chunk; the order of the draws below is part of the format."""
    texture = draw.background(u)
    distance = draw.objects(u, labels, CLASSES)
    surface = draw.stripes(u.take(4), period=(3.0, 8.0))
    first, second, object_colours, object_second = _colours(u)
    planes = []
    for c in range(3):
        planes.append(first[:, c] + (second[:, c] - first[:, c]) * texture)
    for _ in range(3):
        draw.clutter(u, planes)
    cover = np.clip(np.float32(0.5) - distance, 0, 1)
    for c in range(3):
        colour = object_colours[:, c] + (object_second[:, c] - object_colours[:, c]) * surface
        planes[c] += (colour - planes[c]) * cover
    light = draw.light(u)
    images = np.empty((len(labels), 3, SIZE, SIZE), np.uint8)
    for c in range(3):
        plane = planes[c] * light + u.noise(c)
        np.clip(plane, 0, 1, out=plane)
        images[:, c] = plane * np.float32(255) + np.float32(0.5)
    return images, cover >= 0.5


def _colours(u: draw.Numbers) -> tuple[np.ndarray, ...]:
    """Two colours of the background and two of the object, each (n, 3, 1, 1).

    The object is brighter than the background's mean, in one channel by at least a quarter of
    the range: every object can be seen. (With darker ones among them networks learn the same
    things, but idle for three times as long before they begin.)
    """
    base = u.between(3, 0.1, 0.5)
    half = u.between(3, -0.1, 0.1)
    direction = u.between(3, 0.0, 1.0)
    strength = u.between(1, 0.25, 0.5)
    own = u.between(3, -0.08, 0.08)
    longest = np.max(direction, axis=1, keepdims=True)
    colour = base + direction / np.maximum(longest, np.float32(1e-3)) * strength
    shape = (-1, 3, 1, 1)
    return tuple(np.asarray(c, np.float32).reshape(shape)
                 for c in (base - half, base + half, colour - own, colour + own))
