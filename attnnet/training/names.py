"""Checks the names in a recipe against what is registered, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import unknown_name

if TYPE_CHECKING:
    from .recipe import Recipe


def check_names(recipe: Recipe, own_data: bool = False, own_model: bool = False) -> None:
    """See ``Recipe.check_names``; what the user brings along needs no name."""
    if not own_model:
        from ..models import find_model, has_option, list_models, read_placement

        arch = find_model(recipe.arch)
        if recipe.dropout is not None and not has_option(arch, "dropout"):
            raise ValueError(
                f"recipe: dropout is {recipe.dropout:g}, but {arch} has none; leave it out."
            )
        # Which stages a network has shows when it is made; here any one-digit stage passes.
        read_placement(recipe.block, stages=9, base="RESNET", also_base=list_models())
    if not own_data:
        check_dataset(recipe.dataset)


def check_dataset(name: str) -> None:
    """Checks that a data set of this name can be loaded.

    Raises:
        ValueError: it does not exist; the message gives the nearest match.
    """
    from ..data.registry import DATASETS, plain_name

    plain = plain_name(name)
    if plain not in DATASETS and not plain.startswith("folder:"):
        raise unknown_name("data set", name, DATASETS)
