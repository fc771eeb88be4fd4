"""What is looked at before a plan's first run starts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ..data.registry import plain_name
from ..models import create_model, find_model, list_models, read_placement
from ..nn.registry import find_block
from ..own import import_modules
from ..random import get_rng_state, set_rng_state
from ..training.fields import check_field
from ..training.names import check_dataset
from ..training.presets import preset_fields
from ..training.recipe import Recipe
from ..training.setup import check_sizes

if TYPE_CHECKING:
    from .plan import Plan, Run

# What the plan itself says of each run, and under which key.
_OWN = {"arch": "networks", "block": "blocks", "dataset": "datasets", "seed": "seeds"}
_PLACED = re.compile(r"_[0-9]+(\+|$)")  # a placement, not a block alone
_BASE = ("none", "base", "resnet")
_LISTS = ("networks", "datasets", "blocks", "stages", "imports")


def imports(names: Any) -> None:
    """Imports what registers blocks and networks of one's own.

    Raises:
        ValueError: a module is not there.
    """
    import_modules(_strings("imports", names), "plan: imports")


def tidy(plan: Plan) -> dict[str, Any]:
    """The plan's fields, checked each by itself, with canonical names of networks and data sets.

    Raises:
        ValueError: a field has a wrong value; says which and what was expected.
    """
    name = plan.name
    if not isinstance(name, str) or not name.strip() or name.startswith(".") or "/" in name:
        raise ValueError(
            f"plan: name is {name!r}; expected text that can name a folder: no '/', no '.' first."
        )
    found: dict[str, Any] = {name: _strings(name, getattr(plan, name)) for name in _LISTS}
    for name in ("networks", "datasets"):
        if not found[name]:
            raise ValueError(f"plan: {name} is empty; expected at least one.")
    found["networks"] = tuple(find_model(name) for name in found["networks"])
    found["datasets"] = tuple(_dataset(name) for name in found["datasets"])
    for name in _LISTS:
        _no_twins(name, found[name])
    found["seeds"] = _seeds(plan.seeds)
    validation = plan.validation
    if validation is None:
        raise ValueError(
            "plan: validation is None; a study chooses the best epoch on images held out of the "
            "training images (a fraction or a count), never on the test images."
        )
    found["validation"] = check_field("validation", validation)
    found["recipes"] = _recipes(plan.recipes)
    found["changes"] = _fields("recipe", plan.changes or {}, preset=False)
    for name, fields in (found["recipes"] or {}).items():
        for field in found["changes"]:
            if field in fields:
                raise ValueError(
                    f"plan: recipe sets {field} for all recipes, and recipes.{name} sets it, too; "
                    "expected it in one of them."
                )
    return found


def count_rows(blocks: Sequence[str], stages: Sequence[str]) -> int:
    """How many rows ``placements`` makes at most, without making them."""
    whole = sum(map(_is_whole, blocks))
    return 1 + whole + (len(blocks) - whole) * len(stages)


def _is_whole(block: str) -> bool:
    """Whether it says itself where it stands, or is the base, so that no stages go with it."""
    return bool(_PLACED.search(block)) or block.lower() in _BASE


def placements(arch: str, blocks: Iterable[str], stages: Iterable[str]) -> list[str | None]:
    """The rows of a network: None for the base, every block at every stage, whole placements.

    Raises:
        ValueError: an unknown block (with the nearest match), stages that are none, a placement
            that comes twice, blocks without stages or stages without blocks.
    """
    whole = [b for b in blocks if _is_whole(b)]
    alone = [find_block(b).name for b in blocks if not _is_whole(b)]
    stages = list(stages)
    if alone and not stages:
        raise ValueError(
            f"plan: stages is empty; expected where {alone[0]} is to stand, for example ['12']."
        )
    if stages and not alone and not whole:
        raise ValueError("plan: stages are there, but no blocks; expected some, such as ['CBAM'].")
    for stage in stages:
        if not stage.isdigit():
            raise ValueError(
                f"plan: stages holds {stage!r}; expected digits such as '1' or '12', one a stage."
            )
    found: dict[str | None, str] = {None: "the base"}
    for text in [f"{b}_{s}" for b in alone for s in stages] + whole:
        placement = read_placement(text, stages=9, base="RESNET", also_base=list_models())
        if not placement.blocks:
            continue  # the base is there already
        if placement.name in found:
            raise ValueError(
                f"plan: {text} is the same placement as {found[placement.name]}; expected each "
                "once."
            )
        found[placement.name] = text
    return list(found)


def networks(runs: Iterable[Run]) -> None:
    """Makes each network of a plan once, at the size of its images.

    Raises:
        ValueError: a network has no such stage, or a block cannot work there.
    """
    for run in runs:
        recipe, arch = run.recipe, run.family.arch
        recipe.check_names()
        names = read_placement(run.block, stages=9, base="RESNET").blocks.values()
        blocks = tuple(find_block(name) for name in dict.fromkeys(names))
        try:
            _make(arch, run.block, recipe.image_size or 32, recipe.train_sizes, blocks)
        except ValueError as error:
            raise ValueError(f"plan: {arch} with {run.block}: {error}") from None


@cache
def _make(
    arch: str, block: str | None, size: int, train_sizes: tuple[int, ...], blocks: tuple[Any, ...]
) -> None:
    """Makes a network, which says whether that can be; the random numbers stay where they are.

    Args:
        blocks: what is registered under the names in ``block``, which may change.
    """
    random = get_rng_state()
    try:
        model = create_model(arch, block, num_classes=10, in_channels=3, image_size=(size, size))
        check_sizes(Recipe(arch=arch, block=block, train_sizes=train_sizes), model, 3, size, size)
    finally:
        set_rng_state(random)


def _strings(name: str, values: Any) -> tuple[str, ...]:
    good = isinstance(values, (list, tuple)) and all(isinstance(v, str) and v for v in values)
    if not good:
        raise ValueError(f"plan: {name} is {values!r}; expected a list of names (text).")
    return tuple(values)


def _no_twins(name: str, values: tuple[Any, ...]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"plan: {name} holds {value!r} twice; expected each once.")
        seen.add(value)


def _dataset(name: str) -> str:
    check_dataset(name)
    plain = plain_name(name)
    if plain.startswith("folder:"):  # workers may start elsewhere
        return "folder:" + os.path.abspath(plain[len("folder:") :])
    return plain


def _seeds(seeds: Any) -> tuple[int, ...]:
    good = isinstance(seeds, (list, tuple)) and len(seeds) and all(
        isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds
    )  # fmt: skip
    if not good:
        raise ValueError(
            f"plan: seeds is {seeds!r}; expected a list of whole numbers of at least 0 (a file, "
            "from_dict and preset also take how many)."
        )
    _no_twins("seeds", tuple(seeds))
    return tuple(seeds)


def _recipes(recipes: Any) -> dict[str, dict[str, Any]] | None:
    if recipes is None:
        return None
    if not isinstance(recipes, Mapping) or not recipes:
        raise ValueError(
            f"plan: recipes is {recipes!r}; expected names of presets, or a table with a table of "
            "fields for each recipe."
        )
    return {str(name): _fields(f"recipes.{name}", fields) for name, fields in recipes.items()}


def _fields(where: str, fields: Any, preset: bool = True) -> dict[str, Any]:
    """Fields of a recipe, none of which the plan itself says."""
    if not isinstance(fields, Mapping):
        raise ValueError(f"plan: {where} is {fields!r}; expected a table of a recipe's fields.")
    for name in fields:
        if name in _OWN:
            raise ValueError(f"plan: {where} sets {name}; expected that in {_OWN[name]}.")
        if name == "preset" and preset:
            preset_fields(fields[name])
            continue
        try:
            check_field(name, fields[name])
        except ValueError as error:
            raise ValueError(f"plan: {where}: {error}") from None
    if "validation" in fields and fields["validation"] is None:
        raise ValueError(f"plan: {where} sets validation to None; expected a fraction or a count.")
    return dict(fields)

