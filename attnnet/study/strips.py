"""The same test images through the networks of a study: where each looks, and what its block says.

One picture a network: the images in a row, each with its map over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import explain
from ..markup import Html
from ..report import picture
from ..training.checkpoint import load_model
from ..training.setup import load_data

if TYPE_CHECKING:
    from ..nn import Module
    from .plan import Family
    from .results import Done, Results

IMAGES = 8
_SCALE = 2


def strips(results: Results, family: Family) -> tuple[list[str], list[list[Html | str]]] | None:
    """A table of pictures: a row a network, of the seed that most of them have.

    Returns:
        The head and the rows; None where no two networks share a seed, or where the images have
        neither one channel nor three.

    Raises:
        CheckpointError, DataError, OSError: checkpoints or images are not there any more.
        ValueError, TypeError: nobody knows which layer of a network to look at.
    """
    shown = _of_one_seed(results, family)
    if len(shown) < 2:
        return None
    recipe = next(iter(shown.values())).run.recipe
    models = {name: load_model(results.home.of(one.run)) for name, one in shown.items()}
    test = load_data(recipe, results.data, download=False).test
    some = test.subset(test.spread(IMAGES))
    if some.channels not in (1, 3):
        return None
    plain = np.broadcast_to(some.images, (len(some), 3, some.height, some.width))
    names = ", ".join(some.classes[label] for label in some.labels)
    rows: list[list[Html | str]] = [
        ["the images", _row(plain.transpose(0, 2, 3, 1), f"test images: {names}"), ""]
    ]
    for name, model in models.items():
        seen = explain.cam(model, some.images, target=some.labels).overlay(colormap="viridis")
        rows.append([name, _row(seen, f"Grad-CAM of {name}"), _masks(model, some.images, name)])
    return ["", "Grad-CAM for the true class", "the block's last spatial mask"], rows


def _of_one_seed(results: Results, family: Family) -> dict[str, Done]:
    """The networks of a family by name, of the seed that most of them have."""
    rows = results.of(family)
    count = {seed: sum(seed in row.done for row in rows) for seed in results.plan.seeds}
    seed = max(count, key=lambda s: count[s])
    return {row.name: row.done[seed] for row in rows if seed in row.done}


def _masks(model: Module, images: np.ndarray, name: str) -> Html | str:
    """The spatial masks of the network's last block that has some; "" where none has."""
    try:
        maps = explain.attention_maps(model, images)
    except (ValueError, TypeError):  # the base, and networks of one's own
        return ""
    if not maps.spatial:
        return ""
    masks = maps.masks(list(maps.spatial)[-1])
    low = masks.min((1, 2), keepdims=True)
    spread = (masks - low) / np.maximum(masks.max((1, 2), keepdims=True) - low, 1e-7)
    shown = explain.apply_colormap(np.clip(spread, 0, 1), "viridis")
    return _row(shown, f"spatial masks of {name}")


def _row(pictures: np.ndarray, alt: str) -> Html:
    small = max(pictures.shape[1:3]) < 64
    return picture(explain.strip(list(pictures), scale=_SCALE if small else 1), alt)
