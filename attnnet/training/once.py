"""``train``: what a folder still lacks of a training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from . import behind
from .callbacks import Callback
from .folder import BEST, LAST
from .history import History
from .ranks import find_ranks
from .recipe import Recipe
from .trainer import Trainer

if TYPE_CHECKING:
    from ..data import Dataset


def train(
    recipe: Recipe,
    output: str | os.PathLike[str],
    callbacks: Iterable[Callback] = (),
    progress: bool | str = True,
    *,
    data: str | os.PathLike[str] | tuple[Dataset, Dataset] | None = None,
    distributed: Any = None,
) -> History:
    """Trains a recipe into a folder, once: begins it, goes on with it where it was stopped, or
    reads its history where it is done. A cell or script that calls it can be run again.

    Args:
        recipe: what to train. More epochs than the folder has are trained in addition.
        output: the training's folder.
        callbacks, progress, data, distributed: as for ``Trainer``.

    Returns:
        The history, as ``Trainer.fit`` returns it.

    Raises:
        CheckpointError: the folder holds a training of another recipe (the message says what
            differs), or what it holds is corrupt.
        ValueError: a name in the recipe does not exist.
    """
    folder = os.fspath(output)
    if isinstance(data, (tuple, list)):  # as the trainer does, whose recipe the folder keeps
        recipe = recipe.replace(dataset=data[0].name)
    options: dict[str, Any] = {"callbacks": callbacks, "progress": progress, "data": data}
    options["distributed"] = distributed
    begun, done = find_ranks(distributed).from_first(lambda: _look(recipe, folder))
    if not begun:
        return Trainer(recipe, folder, **options).fit()
    if done is not None:
        return done
    return Trainer.resume(folder, epochs=recipe.epochs, **options).fit()


def _look(recipe: Recipe, folder: str) -> tuple[bool, History | None]:
    """Whether the folder holds a training, and its history where nothing is left to do."""
    behind.wait(folder)
    if not os.path.exists(os.path.join(folder, LAST)):
        return False, None
    _check_same(recipe, folder)
    done = _finished(folder)
    return True, done if done is not None and len(done) >= recipe.epochs else None


def _check_same(recipe: Recipe, folder: str) -> None:
    """Refuses a folder whose recipe differs in more than the number of epochs."""
    path = os.path.join(folder, "recipe.json")
    try:
        there = Recipe.from_file(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: the recipe of this training cannot be read: {error}")\
            from None  # fmt: skip
    other = [text for name, text in recipe.differences(there).items() if name != "epochs"]
    if other:
        raise CheckpointError(
            f"the folder {folder} holds a training of another recipe: {'; '.join(other)}. Choose "
            "another folder."
        )


def _finished(folder: str) -> History | None:
    """The history of a training that ran to its end; None where it did not."""
    try:
        history = History.from_json(os.path.join(folder, "history.json"))
    except (OSError, ValueError):
        return None
    if history.interrupted or not history.summary:
        return None
    history.folder = folder
    history.checkpoint = os.path.join(folder, BEST)
    picture = os.path.join(folder, "result.png")
    history.picture = picture if os.path.exists(picture) else None
    return history
