"""``attnnet evaluate``: how good a checkpoint is."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import Module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "checkpoint", help="a checkpoint, the study's too, or a training's folder (its best one)"
    )
    parser.add_argument("--dataset", metavar="NAME", help="default: what it was trained on")
    parser.add_argument("--data", metavar="PATH", help="folder of the data set's files")
    parser.add_argument(
        "--image-size", type=int, metavar="N", help="pixels that images of folder:PATH get"
    )
    parser.add_argument(
        "--split", choices=("test", "train"), default="test", metavar="NAME",
        help="test (default) or train",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="use only so many images")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="default 256")
    parser.add_argument(
        "--test-flip", action="store_true", help="average over each image and its mirror image"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads; default: all cores")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints; returns the exit code."""
    from .. import set_num_threads
    from ..interop import load
    from ..training.evaluate import evaluate

    if args.threads is not None:
        set_num_threads(args.threads)
    model = load(args.checkpoint)
    dataset = _dataset(args, model)
    recipe = getattr(model, "recipe", None)
    flip = args.test_flip or bool(recipe is not None and recipe.test_flip)
    with _Bar(len(dataset.labels)) as bar:
        result = evaluate(model, dataset, args.batch_size, test_flip=flip, on_batch=bar.update)
    if args.json:
        print(json.dumps({"dataset": dataset.name, "split": args.split, **result.to_dict()}))
    else:
        print(f"{args.checkpoint} on the {args.split} images of {dataset.name}\n")
        print(result.table())
    return 0


def _dataset(args: argparse.Namespace, model: Module) -> Dataset:
    """The images to evaluate on: by default those that the training tested on.

    Raises:
        ValueError: an unknown data set, or none is known.
        DataError: the images are missing, or have other classes than the model.
    """
    from ..errors import DataError
    from ..training.names import check_dataset
    from ..training.setup import at_most, load_named

    recipe = getattr(model, "recipe", None)
    name, limit, seed = args.dataset, args.limit, 0
    if name is None:
        if recipe is None:
            raise ValueError("the checkpoint does not say what it was trained on: use --dataset.")
        name, seed = recipe.dataset, recipe.seed
        if limit is None:
            limit = recipe.limit_test if args.split == "test" else recipe.limit_train
    check_dataset(name)
    size = getattr(recipe, "image_size", None) if args.dataset is None else args.image_size
    train, test = load_named(name, args.data, limit, limit, size)
    dataset = at_most(test if args.split == "test" else train, limit, seed)
    known = getattr(model, "class_names", None)
    if known is not None and list(known) != list(dataset.classes):
        raise DataError(
            f"the model knows the classes {_few(known)}, but {dataset.name} has "
            f"{_few(dataset.classes)}."
        )
    return dataset


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int) -> None:
        from ..training.progress import bar_class

        make = bar_class()
        self._bar: Any = make and make(total=total, unit="img", leave=False, dynamic_ncols=True)

    def update(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
