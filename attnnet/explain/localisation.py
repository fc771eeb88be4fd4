"""Whether a map is on the object: measures against masks, such as those of ``shapes``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..nn.module import Module
from .cams import cam
from .layers import Layers
from .measure import Measure, Measures


def pointing_game(maps: Any, masks: Any, tolerance: int = 0) -> Measure:
    """1 where the map's largest value (the first in row-major order) is on the object, else 0; 0
    too for a map that is zero everywhere.

    Args:
        maps: (N, H, W), 0..1. masks: bool (N, H, W), each with an object.
        tolerance: pixels that the largest value may be off the object, 0 or more, default 0.

    Raises:
        ValueError: for shapes that do not fit, a mask without an object, or a negative tolerance.

    Paper: Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop".
    """
    maps, masks = _checked(maps, masks)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance!r}")
    n, height, width = maps.shape
    row, column = np.divmod(maps.reshape(n, -1).argmax(1), width)
    y, x = np.mgrid[:height, :width]
    square = (y - row[:, None, None]) ** 2 + (x - column[:, None, None]) ** 2
    hits = (masks & (square <= tolerance**2)).any((1, 2)) & (maps.max((1, 2)) > 0)
    return Measure("pointing game", hits)


def energy_inside(maps: Any, masks: Any) -> Measure:
    """The share of the map's sum that is on the object; 0 for a map that is zero everywhere.

    A map that is the same everywhere gets the share of the image that the object covers.

    Args, Raises: as for :func:`pointing_game`.

    Paper: Wang et al. 2020, "Score-CAM" (the energy-based pointing game).
    """
    maps, masks = _checked(maps, masks)
    total = maps.sum((1, 2))
    inside = (maps * masks).sum((1, 2))
    return Measure("energy inside", inside / np.where(total > 0, total, 1))


def mask_iou(maps: Any, masks: Any, threshold: float = 0.5) -> Measure:
    """Intersection over union of the object and where the map reaches ``threshold`` of its largest
    value; 0 for a map that is zero everywhere.

    Args:
        maps, masks: as for :func:`pointing_game`. threshold: above 0, up to 1, default 0.5.

    Raises:
        ValueError: as there, and for another threshold.
    """
    maps, masks = _checked(maps, masks)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}")
    most = maps.max((1, 2), keepdims=True)
    found = (maps >= threshold * most) & (most > 0)
    return Measure("IoU", (found & masks).sum((1, 2)) / (found | masks).sum((1, 2)))


def measure_localisation(
    model: Module,
    images: Any,
    masks: Any,
    method: str = "gradcam",
    layers: Layers = None,
    target: Any = None,
    **options: Any,
) -> Measures:
    """All three measures of a network's maps, each layer by itself.

    ``measure_localisation(new, ...) - measure_localisation(cbam, ...)`` answers which of two
    networks looks at the object more, image by image.

    Args:
        model, images, method, layers, target, options: as for :func:`attnnet.explain.cam`; give
            the true labels as ``target`` to ask about those.
        masks: bool (N, H, W), the object of each image: ``dataset.masks``.

    Returns:
        :class:`Measures`: a row a layer (or the method's name, where it has none), columns
        "pointing game", "energy inside" and "IoU".

    Raises:
        ValueError, TypeError: as ``cam`` and :func:`pointing_game` do.
    """
    result = cam(model, images, method, layers, target, **options)
    rows = {name: result.of_layer(name) for name in result.layers}
    rows = rows or {result.method.name: result.maps}
    return Measures({
        name: {
            measure.name: measure
            for measure in (f(maps, masks) for f in (pointing_game, energy_inside, mask_iou))
        }
        for name, maps in rows.items()
    })


def _checked(maps: Any, masks: Any) -> tuple[np.ndarray, np.ndarray]:
    maps, masks = np.asarray(maps, np.float64), np.asarray(masks)
    if maps.ndim != 3 or masks.shape != maps.shape:
        raise ValueError(
            f"maps and masks must be (N, H, W) both: got {maps.shape} and {masks.shape}"
        )
    if masks.dtype != bool:
        raise ValueError(f"masks must be bool, got {masks.dtype}")
    empty = ~masks.any((1, 2))
    if empty.any():
        raise ValueError(f"mask {int(empty.argmax())} has no object")
    if not (maps >= 0).all():
        raise ValueError("maps must be 0 or more and no NaN; attribution_map makes such ones")
    return maps, masks
