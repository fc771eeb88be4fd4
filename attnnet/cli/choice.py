"""What several commands share: which data set, which images, how many threads, a bar."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import Module


def count(text: str) -> int:
    """A whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return number


def add_imports_argument(parser: Any) -> None:
    """Adds the option for modules of one's own."""
    parser.add_argument(
        "--imports", type=lambda text: text.split(","), default=[], metavar="MODULE[,MODULE]",
        help="modules to import first, which register blocks and networks of your own; looked for "
        "in the current folder, too",
    )  # fmt: skip


def add_threads_argument(parser: Any) -> None:
    """Adds the option that says how many threads compute; see :func:`use_threads`."""
    parser.add_argument(
        "--threads", type=count, metavar="N",
        help="threads to compute with; default: what ATTNNET_NUM_THREADS or OMP_NUM_THREADS says, "
        "else as many as cores that affinity and control group (a container's limit) leave",
    )  # fmt: skip


def use_threads(args: argparse.Namespace) -> None:
    """Computes with as many threads as the command line says, where it does."""
    from .. import set_num_threads

    if args.threads is not None:
        set_num_threads(args.threads)


def add_data_arguments(parser: Any) -> None:
    """Adds the options that say which data set is meant; see :func:`dataset_of`."""
    parser.add_argument("--dataset", metavar="NAME", help="default: what it was trained on")
    parser.add_argument("--data", metavar="PATH", help="folder of the data set's files")
    parser.add_argument(
        "--image-size", type=count, metavar="N", help="height and width of folder:PATH's images, "
        "in pixels; default: the network's"
    )
    parser.add_argument(
        "--split", choices=("test", "train"), default="test", metavar="NAME",
        help="test (default) or train",
    )  # fmt: skip


def flips(model: Module) -> bool:
    """Whether the model's recipe averages over each image and its mirror image."""
    recipe = getattr(model, "recipe", None)
    return recipe is not None and recipe.test_flip


def dataset_of(args: argparse.Namespace, model: Module, limit: int | None = None) -> Dataset:
    """The images of a data set: by default those that the model's training tested on.

    Args:
        args: with what :func:`add_data_arguments` adds.
        model: as ``attnnet.load`` gives it.
        limit: so many images at most; default: as many as the training used.

    Raises:
        ValueError: an unknown data set, or none is known.
        DataError: the images are missing, or have other classes than the model.
    """
    from ..errors import DataError
    from ..training.names import check_dataset
    from ..training.setup import at_most, few, load_named

    recipe = getattr(model, "recipe", None)
    name, seed = args.dataset, 0
    if name is None:
        if recipe is None:
            raise ValueError("the checkpoint does not say what it was trained on: use --dataset.")
        name, seed = recipe.dataset, recipe.seed
        if limit is None:
            limit = recipe.limit_test if args.split == "test" else recipe.limit_train
    check_dataset(name)
    size = args.image_size
    if size is None and name.lower().startswith("folder:"):
        size = getattr(model, "image_size", (None,))[0]
    train, test = load_named(name, args.data, limit, limit, size)
    dataset = at_most(test if args.split == "test" else train, limit, seed)
    known = getattr(model, "class_names", None)
    if known is not None and list(known) != list(dataset.classes):
        raise DataError(
            f"the model knows the classes {few(known, 3)}, but {dataset.name} has "
            f"{few(dataset.classes, 3)}."
        )
    return dataset


@dataclass(frozen=True)
class Chosen:
    """Images that a command works on.

    Attributes:
        pixels: (N, C, H, W) uint8, of the size that the model takes.
        names: one an image, good as part of a file's name.
        labels: (N,) true classes; None for files.
    """

    pixels: np.ndarray
    names: list[str]
    labels: np.ndarray | None

    @property
    def pictures(self) -> np.ndarray:
        """(N, H, W, 3) uint8; a single channel three times, further ones are not shown."""
        shown = self.pixels[:, :3] if self.pixels.shape[1] >= 3 else self.pixels[:, :1]
        return np.ascontiguousarray(np.broadcast_to(
            shown, (len(shown), 3, *shown.shape[2:])
        ).transpose(0, 2, 3, 1))  # fmt: skip


def add_image_arguments(parser: Any, positional: bool = True) -> None:
    """Adds the options that say which images are meant; see :func:`images_of`."""
    parser.add_argument(
        "images" if positional else "--images",
        nargs="*" if positional else "+",
        default=[],
        metavar="IMAGE",
        help="image files"
        + (", right behind the checkpoint" if positional else "")
        + ": upright, scaled until they cover the network's size and cut about their "
        "middle, as for training; default: test images",
    )
    parser.add_argument(
        "--indices", nargs="+", type=int, metavar="N", help="which images of the data set; "
        "default: the first four"
    )  # fmt: skip
    add_data_arguments(parser)


def images_of(args: argparse.Namespace, model: Module) -> Chosen:
    """The images that the command line names.

    Raises:
        ValueError: files and indices at once, or an index that does not exist.
        DataError: a file is no image, or the data set is missing.
        OSError: a file is missing.
    """
    if args.images:
        if args.indices:
            raise ValueError("give image files or --indices, not both.")
        return Chosen(_read(args.images, model), _names(args.images), None)
    dataset = dataset_of(args, model)
    indices = args.indices or range(min(4, len(dataset.labels)))
    for index in indices:
        if not 0 <= index < len(dataset.labels):
            raise ValueError(
                f"--indices: got {index}, expected 0 to {len(dataset.labels) - 1}, of the "
                f"{len(dataset.labels):,} {args.split} images of {dataset.name}."
            )
    rows = list(indices)
    return Chosen(dataset.images[rows], [str(row) for row in rows], dataset.labels[rows])


def _names(files: list[str]) -> list[str]:
    """A name for each file, without its folder and ending; a number tells equal ones apart."""
    names: list[str] = []
    for stem in (Path(file).stem for file in files):
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def _read(files: list[str], model: Module) -> np.ndarray:
    from ..data import pictures

    if model.in_channels not in pictures.MODES:
        raise ValueError(f"image files have no {model.in_channels} channels, as the network has.")
    size, channels = model.image_size, model.in_channels
    return np.stack([pictures.read_image(file, size, channels) for file in files])


class Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int, unit: str = "img") -> None:
        from ..training.progress import bar_class

        make = bar_class()
        self._bar: Any = make and make(total=total, unit=unit, leave=False, dynamic_ncols=True)

    def update(self, done: int, total: int) -> None:
        """So many of all are done."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
