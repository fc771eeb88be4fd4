"""Data sets from a folder of images, one sub-folder a class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import Dataset, check_classes, stratified_choice
from .pictures import read_image

_HELD_OUT = ("val", "valid", "validation", "dev")  # what others call the second folder
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


def load_folder(path: str | os.PathLike, image_size: int = 32, channels: int = 3,
                test_fraction: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A data set from image files.

    The folder either has the sub-folders ``train`` and ``test``, each with one sub-folder a
    class, or the classes' sub-folders themselves; then a seeded test set, the same share of
    every class, is cut off. Classes are in the order of their names. Hidden files and folders,
    and files that are no images by their suffix, are passed over.

    Args:
        path: the folder.
        image_size: every image is brought to image_size x image_size pixels: scaled until it
            covers the square, then cut to it about its middle.
        channels: 3 (red, green, blue) or 1 (gray); transparency is dropped.
        test_fraction: the share of the test set where the folder has none of its own.
        seed: which images go into that test set.

    Returns:
        (train, test), normalised with the mean and standard deviation of the training images.

    Raises:
        DataError: no such folder, no classes, a class without images, an image that cannot be
            read (named), or a training and a test folder with different classes.
    """
    path = Path(path).expanduser()
    if channels not in (1, 3):
        raise DataError(f"channels must be 1 or 3, got {channels!r}")
    if isinstance(image_size, bool) or not isinstance(image_size, int) \
            or not 1 <= image_size <= 4096:
        raise DataError(f"image_size must be a whole number from 1 to 4096, got {image_size!r}")
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise DataError(f"folder:{path}: {kind}, expected a folder with one sub-folder of images "
                        "a class")
    name = f"folder:{path.name}"
    if (path / "train").is_dir() and (path / "test").is_dir():
        return _two_folders(path, name, image_size, channels)
    if (path / "train").is_dir() and any((path / held).is_dir() for held in _HELD_OUT):
        raise DataError(f"folder:{path}: holds train, and no test beside it: call the folder of "
                        "the test images so, or give one sub-folder of images a class")
    if (test_fraction, seed) != (0.2, 0):  # the name alone would load another cut
        name += f", cut by seed {seed}, {float(test_fraction):g}"
    whole = _read(path, name, image_size, channels)
    chosen = np.zeros(len(whole), bool)
    chosen[stratified_choice(whole.labels, len(whole.classes), float(test_fraction), seed)] = True
    return _same_statistics(check_classes(whole.subset(~chosen)), whole.subset(chosen))


def _two_folders(path: Path, name: str, image_size: int, channels: int) \
        -> tuple[Dataset, Dataset]:
    train_classes, test_classes = _classes(path / "train"), _classes(path / "test")
    if train_classes != test_classes:
        different = sorted(set(train_classes) ^ set(test_classes))
        raise DataError(f"{path}: train and test have different classes: {', '.join(different)}")
    return _same_statistics(_read(path / "train", name, image_size, channels),
                            _read(path / "test", name, image_size, channels))


def _same_statistics(train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    """Both normalised by the training images, which alone the model may know."""
    parts = [Dataset(part.images, part.labels, part.classes, part.name) for part in (train, test)]
    parts[1].mean, parts[1].std = parts[0].mean, parts[0].std
    return parts[0], parts[1]


def _classes(path: Path) -> list[str]:
    try:
        entries = sorted(entry.name for entry in path.iterdir()
                         if entry.is_dir() and not entry.name.startswith("."))
    except OSError as bad:
        raise DataError(f"{path}: cannot be read: {bad.strerror or bad}") from bad
    if not entries:
        raise DataError(f"{path}: no classes: expected one sub-folder of images for each")
    return entries


def _files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*")
                   if file.suffix.lower() in SUFFIXES and file.is_file()
                   and not any(part.startswith(".") for part in file.relative_to(folder).parts))
    if not files:
        raise DataError(f"{folder}: no images: expected files ending in {', '.join(SUFFIXES)}")
    return files


def _read(path: Path, name: str, image_size: int, channels: int) -> Dataset:
    classes = _classes(path)
    listing = [(file, label) for label, c in enumerate(classes) for file in _files(path / c)]
    images = np.empty((len(listing), channels, image_size, image_size), np.uint8)
    for i, (file, _) in enumerate(listing):
        try:
            images[i] = read_image(file, image_size, channels)
        except FileNotFoundError as gone:
            raise DataError(f"{file}: no such file, though it was there a moment ago") from gone
    labels = np.array([label for _, label in listing], np.int64)
    return Dataset(images, labels, classes, name)
