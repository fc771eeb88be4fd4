"""Data sets by name."""

from __future__ import annotations

import os
from typing import Any

from ..errors import unknown_name
from .dataset import Dataset

# What `attnnet list` shows.
DATASETS: dict[str, str] = {
    "shapes": "ten kinds of objects over textures, made on the spot, with masks; no download",
    "cifar10": "CIFAR-10: 50,000 + 10,000 photographs of 32 x 32 in 10 classes",
    "cifar100": "CIFAR-100: 50,000 + 10,000 photographs of 32 x 32 in 100 classes",
    "folder:PATH": "a folder of images with one sub-folder a class",
}


def list_datasets() -> list[str]:
    """The names that ``load`` knows."""
    return list(DATASETS)


def plain_name(name: str) -> str:
    """A data set's name as it is compared: "CIFAR-10" is "cifar10"; a folder's stays as it is."""
    if name.lower().startswith("folder:"):
        return "folder:" + name[len("folder:"):]
    return name.lower().replace("-", "").replace("_", "")


def load(name: str, root: str | os.PathLike | None = None, download: bool = True,
         **options: Any) -> tuple[Dataset, Dataset]:
    """A data set by name.

    Args:
        name: "shapes", "cifar10", "cifar100", or "folder:PATH" with the path of a folder of
            images.
        root: where to look for CIFAR first: the folder that holds the official folder or
            archive, the official folder, or the archive. Then come the environment's
            ATTNNET_DATA and the cache folder. The others do not need it.
        download: fetch CIFAR where it is not found.
        **options: ``shapes``: train_count=10000, test_count=2000, seed=0. ``folder``:
            image_size=32, channels=3, test_fraction=0.2, seed=0. CIFAR: url (the folder to
            download from, else ATTNNET_DATA_URL, else the official one), progress=True.

    Returns:
        (train, test).

    Raises:
        ValueError: an unknown name.
        TypeError: an option that this data set does not have.
        DataError: missing (says where it looked and how to get it), truncated, corrupt, or not
            what it should be.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise unknown_name("data set", name, DATASETS)
    plain = plain_name(os.fspath(name))
    if plain.startswith("folder:"):
        from .image_folder import load_folder

        return load_folder(plain[len("folder:"):], **options)
    if plain == "shapes":
        from .shapes import load_shapes

        return load_shapes(**options)
    if plain in ("cifar10", "cifar100"):
        from .cifar import LAYOUTS, load_cifar

        return load_cifar(LAYOUTS[plain], root, download, **options)
    raise unknown_name("data set", name, DATASETS)
