"""From a recipe to images, a loader and a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..nn.modes import evaluating
from .evaluate import with_normalization
from .progress import duration

if TYPE_CHECKING:
    from ..data import Dataset, Loader
    from ..nn import Module
    from .recipe import Recipe
    from .state import Position


@dataclass
class TrainingData:
    """The images of a training.

    Attributes:
        train: what is trained on.
        validation: what was held out of it; None: nothing.
        test: the test images.
        loader: gives the training batches.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    loader: Loader

    @property
    def chooser(self) -> Dataset:
        """What the best epoch is chosen on: the held out images, or the test images."""
        return self.test if self.validation is None else self.validation

    @property
    def split(self) -> str:
        """``"val"`` or ``"test"``: what ``chooser`` is, as the history's columns say it."""
        return "test" if self.validation is None else "val"


def load_data(
    recipe: Recipe,
    source: str | os.PathLike[str] | tuple[Dataset, Dataset] | None,
    share: tuple[int, int] = (0, 1),
    download: bool = True,
) -> TrainingData:
    """Loads the images of a recipe, cuts off what it limits or holds out, makes the loader, for
    a ``share`` of each batch.

    Args:
        download: whether to fetch a data set that is not there.

    Raises:
        DataError: the data are missing, damaged, or do not fit the recipe.
    """
    from .. import data

    if isinstance(source, (tuple, list)):
        train, test = source
    else:
        train, test = load_named(
            recipe.dataset, source, recipe.limit_train, recipe.limit_test, recipe.image_size,
            download,
        )  # fmt: skip
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"training images are {train.images.shape[1:]} (channels, height, width), test "
            f"images {test.images.shape[1:]}; expected the same."
        )
    if list(train.classes) != list(test.classes):
        raise DataError(
            f"the training images' classes are {few(train.classes, 6)}, the test images' "
            f"{few(test.classes, 6)}; expected the same, in the same order (from_arrays takes "
            "classes=)."
        )
    train = at_most(train, recipe.limit_train, recipe.seed)
    test = at_most(test, recipe.limit_test, recipe.seed)
    normalization = (train.mean, train.std)
    if recipe.mean is not None:
        normalization = (recipe.mean, recipe.std)
    train, test = (with_normalization(part, normalization) for part in (train, test))
    held_out = None
    if recipe.validation is not None:
        train, held_out = train.split(recipe.validation, seed=recipe.seed)
    loader = data.Loader(
        train,
        batch_size=recipe.batch_size,
        augmentation=data.Augmentation(
            crop_padding=recipe.crop_padding,
            padding_mode=recipe.padding_mode,
            flip=recipe.flip,
            cutout=recipe.cutout,
            flip_mode=recipe.flip_mode,
            sizes=recipe.train_sizes,
        ),
        shuffle=True,
        seed=recipe.seed,
        share=share,
    )
    return TrainingData(train, held_out, test, loader)


def few(names: Sequence[str], most: int) -> str:
    """The first of some names, and how many there are where that is not all."""
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")


def load_named(
    name: str,
    root: str | os.PathLike[str] | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    image_size: int | None = None,
    download: bool = True,
) -> tuple[Dataset, Dataset]:
    """Loads a data set by name; of ``shapes`` only as many images are made as the limits want.

    Raises:
        DataError: the data are missing or damaged.
        ValueError: an unknown name, or an image size for data that have their own.
    """
    from .. import data

    options: dict[str, int] = {}
    if name.lower() == "shapes":
        limits = {"train_count": limit_train, "test_count": limit_test}
        options = {key: limit for key, limit in limits.items() if limit is not None}
    elif name.lower().startswith("folder:") and image_size is not None:
        options["image_size"] = image_size
    elif image_size is not None:
        raise ValueError(
            f"recipe: image_size is for folder:PATH; the images of {name} have their own size."
        )
    return data.load(name, root=root, download=download, **options)


def at_most(dataset: Dataset, most: int | None, seed: int) -> Dataset:
    """At most so many images of a dataset, of every class its share; None: all of them."""
    if most is None or most >= len(dataset.labels):
        return dataset
    return dataset.split(most, seed=seed)[1]


def make_model(recipe: Recipe, dataset: Dataset) -> Module:
    """The recipe's network for these images, initialised.

    Raises:
        ValueError: an unknown name, or a block that these images are too small for, or dropout of
            a network that has none.
    """
    from .. import create_model

    _, channels, height, width = dataset.images.shape
    return create_model(
        recipe.arch,
        recipe.block,
        num_classes=len(dataset.classes),
        in_channels=channels,
        image_size=(height, width),
        **({} if recipe.dropout is None else {"dropout": recipe.dropout}),
    )


def check_sizes(recipe: Recipe, model: Module, channels: int, height: int, width: int) -> None:
    """Sees that a network takes images of all sizes that the recipe trains on.

    Args:
        channels, height, width: of the images at full size.

    Raises:
        ValueError: it does not; the message is the network's own, or says which size it was.
    """
    from .. import data, tensor

    for side in dict.fromkeys(recipe.train_sizes):
        if side > min(height, width):
            raise ValueError(
                f"recipe: train_sizes holds {side}, but the images are {height} x {width} pixels; "
                "expected at most that."
            )
        size = data.Augmentation(sizes=(side,)).size(0, height, width)
        try:
            with evaluating(model):
                model(tensor(np.zeros((1, channels, *size), np.float32)))
        except ValueError as error:
            raise ValueError(
                f"recipe: train_sizes holds {side}, but {recipe.arch} {recipe.block or 'base'} "
                f"takes no images of that size: {error}"
            ) from error


def model_config(model: Module) -> dict[str, Any]:
    """What ``create_model`` needs to make a model anew, as a checkpoint keeps it."""
    config = getattr(model, "config", None)
    if isinstance(config, dict) and "arch" in config:  # a network may call something else so
        return config
    return {"custom": type(model).__name__}


def optimizer_text(recipe: Recipe) -> str:
    """How a recipe changes the weights, in a few words."""
    momentum = f" momentum {recipe.momentum:g}" if recipe.optimizer == "sgd" else ""
    nesterov = " (Nesterov)" if recipe.nesterov and recipe.optimizer == "sgd" else ""
    span = "" if recipe.schedule_epochs is None else f" over {recipe.total_epochs} epochs"
    spared = "" if recipe.decay_norms else " (none of norms and biases)"
    averaged = "" if recipe.average is None else f", weights averaged ({recipe.average:g})"
    return (
        f"{recipe.optimizer} lr {recipe.lr:g} {recipe.schedule}{span}{momentum}{nesterov}, "
        f"weight decay {recipe.weight_decay:g}{spared}{averaged}"
    )


def describe(
    recipe: Recipe, data: TrainingData, model: Module, folder: str | None, position: Position
) -> list[str]:
    """What is trained on what, with what, where to: the lines that open a training's log."""
    from .. import get_num_threads

    parameters = sum(p.numel() for p in model.parameters())
    counts = [f"{len(data.train):,} training"]
    if data.validation is not None:
        counts.append(f"{len(data.validation):,} validation")
    counts.append(f"{len(data.test):,} test images")
    threads = get_num_threads()
    steps = len(data.loader)
    lines = [
        f"{recipe.arch} {recipe.block or 'base'} on {recipe.dataset}: {parameters:,} parameters; "
        + ", ".join(counts),
        f"{recipe.epochs} epochs of {steps} steps of {recipe.batch_size} images; "
        f"{optimizer_text(recipe)}; seed {recipe.seed}; "
        f"{threads} thread{'s' if threads != 1 else ''}",
    ]
    if recipe.train_sizes:
        sides = ", ".join(map(str, recipe.train_sizes))
        lines.append(f"the first epochs' training images are {sides} pixels, then all")
    if folder is not None:
        lines.append(f"output: {folder}")
    if data.validation is None:
        lines.append(
            "no validation split: the test images choose the best epoch, so its figure flatters"
        )
    if position.epoch or position.batch:
        spent = f", {duration(position.seconds)} so far" if position.seconds else ""
        lines.append(
            f"goes on at epoch {position.epoch + 1}, step {position.batch + 1}{spent}"
        )
    return lines
