"""Arithmetic of maps: scaling to 0..1, resizing, joining layers, the first principal component.

The conventions are those of pytorch-grad-cam, so that numbers compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def scale(maps: np.ndarray) -> np.ndarray:
    """(maps - minimum) / (1e-7 + maximum of that), each map (..., H, W) by itself."""
    maps = maps - maps.min((-2, -1), keepdims=True)
    return maps / (np.float32(1e-7) + maps.max((-2, -1), keepdims=True))


def resize(maps: np.ndarray, size: tuple[int, int], align_corners: bool = False) -> np.ndarray:
    """Bilinear resize of maps (..., h, w) to (..., H, W), without antialiasing.

    Args:
        maps: floats. size: (H, W).
        align_corners: whether the centres of the corner pixels fall on each other; by default
            those of the pixels' outer corners do (half-pixel centres, as OpenCV has it).
    """
    if maps.shape[-2:] == tuple(size):
        return maps
    rows = _interpolation(maps.shape[-2], size[0], align_corners)
    columns = _interpolation(maps.shape[-1], size[1], align_corners)
    return rows @ maps @ columns.T


@lru_cache(64)
def _interpolation(before: int, after: int, align_corners: bool) -> np.ndarray:
    """(after, before) float32: each row holds the weights of one new sample, which add up to 1."""
    if align_corners:
        place = np.arange(after) * ((before - 1) / max(after - 1, 1))
    else:
        place = np.clip((np.arange(after) + 0.5) * (before / after) - 0.5, 0, before - 1)
    low = np.minimum(place.astype(np.int64), before - 1)
    high = np.minimum(low + 1, before - 1)
    weights = np.zeros((after, before))
    np.add.at(weights, (np.arange(after), low), 1 - (place - low))
    np.add.at(weights, (np.arange(after), high), place - low)
    weights.setflags(write=False)
    return weights.astype(np.float32)


def scaled_layer(raw: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """One layer's raw maps (N, h, w): positive part, scaled, then resized unless size is None."""
    scaled = scale(np.maximum(raw, 0)).astype(np.float32)
    return scaled if size is None else resize(scaled, size)


def join_layers(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the layers' scaled maps, scaled once more, even where there is one layer only."""
    return scale(np.maximum(np.stack(layers), 0).mean(0)).astype(np.float32)


def layer_alone(raw: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """One layer's raw maps as those of a look at that layer alone."""
    return join_layers([scaled_layer(raw, size)])


def principal_component(weighted: np.ndarray) -> np.ndarray:
    """Projection on the first principal component: (N, C, h, w) -> (N, h, w).

    Positions are the samples, channels the features; channel means are subtracted, and the centred
    data is multiplied by its first right singular vector v. The sign of v is arbitrary. Here it is
    the one for which the components of v add up to a positive number, which is the same as: the
    map correlates positively with the plain sum over the channels.
    """
    n, channels, height, width = weighted.shape
    x = weighted.reshape(n, channels, height * width).astype(np.float64)
    x -= x.mean(2, keepdims=True)
    # Of the two Gram matrices the smaller one is taken; eigh puts the largest eigenvalue last.
    if channels <= height * width:
        vector = np.linalg.eigh(x @ x.transpose(0, 2, 1))[1][:, None, :, -1]
        projection = (vector @ x)[:, 0]
    else:
        values, vectors = np.linalg.eigh(x.transpose(0, 2, 1) @ x)
        projection = vectors[:, :, -1] * np.sqrt(np.maximum(values[:, -1:], 0))
    agrees = np.sum(projection * x.sum(1), 1, keepdims=True) >= 0
    projection = np.where(agrees, projection, -projection)
    return projection.reshape(n, height, width).astype(np.float32)
