"""Pictures of maps: colour maps, overlays, strips and grids. NumPy and Pillow only.

Pictures are uint8 arrays (H, W, 3), or (N, H, W, 3) where there are several.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ..errors import unknown_name
from ..extras import need

COLORMAPS = ("jet", "viridis")
_A_LINE = 8  # images side by side in a notebook
# Every 15th colour of viridis (Smith & van der Walt 2015); between them the colours are linear,
# which is off by 5 of 255 at most.
_VIRIDIS = (
    "440154 481769 472a7a 433d84 3d4e8a 355e8d 2e6d8e 297b8e 23898e "
    "1f978b 21a585 2eb37c 46c06f 65cb5e 89d548 b0dd2f d8e219 fde725"
)


@cache
def color_table(colormap: str = "jet") -> np.ndarray:
    """The colour map's (256, 3) uint8 table, red, green, blue.

    Args:
        colormap: "jet", OpenCV's JET; or "viridis", which grows steadily in brightness and is read
            alike by colour-blind people and in print.

    Raises:
        ValueError: for an unknown name.
    """
    i = np.arange(256)
    if colormap == "jet":
        red = np.where(i < 160, 4 * i - 382, 1148 - 4 * i)
        green = np.where(i < 128, 4 * i - 128, 892 - 4 * i)
        blue = np.where(i < 80, 128 + 4 * i, 638 - 4 * i)
        blue[159] = 1
        table = np.stack([red, green, blue], 1)
    elif colormap == "viridis":
        knots = np.array([list(bytes.fromhex(color)) for color in _VIRIDIS.split()])
        at = np.arange(len(knots)) * 15
        table = np.stack([np.interp(i, at, knots[:, c]) for c in range(3)], 1).round()
    else:
        raise unknown_name("colormap", colormap, COLORMAPS)
    table = np.clip(table, 0, 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def apply_colormap(maps: Any, colormap: str = "jet") -> np.ndarray:
    """Colours of maps: (..., H, W) in 0..1 -> (..., H, W, 3) uint8.

    Raises:
        ValueError: for values outside 0..1, NaN among them, and for an unknown colour map.
    """
    maps = np.asarray(maps)
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):
        raise ValueError(f"maps must be 0 to 1, got {maps.min():g} to {maps.max():g}")
    return color_table(colormap)[(255 * maps).astype(np.uint8)]


def deprocess(images: Any) -> np.ndarray:
    """Any float image as a picture: (x - mean) / (std + 1e-5) * 0.1 + 0.5, statistics of each whole
    image; clipped to 0..1, times 255, truncated.

    Args:
        images: (C, H, W) or (N, C, H, W), C 1 or 3: normalised images, gradients, products.

    Returns:
        uint8 (H, W, 3) or (N, H, W, 3).

    Raises:
        ValueError: for another shape.
    """
    x = np.asarray(images, np.float64)
    if x.ndim not in (3, 4) or x.shape[-3] not in (1, 3):
        raise ValueError(
            f"images must be (C, H, W) or (N, C, H, W) with 1 or 3 channels: got {x.shape}"
        )
    mean = x.mean((-3, -2, -1), keepdims=True)
    x = (x - mean) / (x.std((-3, -2, -1), keepdims=True) + 1e-5) * 0.1 + 0.5
    x = np.moveaxis((np.clip(x, 0, 1) * 255).astype(np.uint8), -3, -1)
    return np.repeat(x, 3, -1) if x.shape[-1] == 1 else x


def overlay(pictures: Any, maps: Any, weight: float = 0.5, colormap: str = "jet") -> np.ndarray:
    """Maps in colour over pictures: (1 - weight) * colours + weight * picture, divided by the
    largest value of each.

    Args:
        pictures: uint8 (H, W, 3) or (N, H, W, 3), or floats in 0..1.
        maps: (H, W) or (N, H, W), 0..1, of the pictures' size.
        weight: of the picture, 0 to 1, default 0.5.
        colormap: "jet" (default) or "viridis", which the command line takes where nothing is said.

    Returns:
        uint8, of the pictures' shape.

    Raises:
        ValueError: for shapes that do not fit or values out of range.
    """
    base, maps = np.asarray(pictures), np.asarray(maps)
    if base.shape != (*maps.shape, 3):
        raise ValueError(
            f"pictures must be (H, W, 3) and maps (H, W), or N of each: got {base.shape} and "
            f"{maps.shape}"
        )
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be 0 to 1, got {weight!r}")
    base = base / 255 if base.dtype == np.uint8 else base.astype(np.float64)
    if base.size and not (base.min() >= 0 and base.max() <= 1):
        raise ValueError(f"float pictures must be 0 to 1, got {base.min():g} to {base.max():g}")
    blend = (1 - weight) * (apply_colormap(maps, colormap) / 255) + weight * base
    largest = blend.max((-3, -2, -1), keepdims=True)
    return (255 * (blend / np.where(largest > 0, largest, 1))).astype(np.uint8)


def guided_product(maps: Any, gradients: Any) -> np.ndarray:
    """Guided Grad-CAM: the maps times guided backpropagation, as pictures.

    Args:
        maps: (N, H, W). gradients: (N, C, H, W), of ``guided_backprop``.

    Returns:
        uint8 (N, H, W, 3): ``deprocess(map * gradient)``.
    """
    return deprocess(np.asarray(maps)[..., None, :, :] * np.asarray(gradients))


def grid(
    pictures: Sequence[Any],
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    scale: int = 1,
    gap: int = 2,
) -> np.ndarray:
    """Pictures side by side, row after row, on white.

    Args:
        pictures: uint8 (H, W, 3), all of one size. columns: default all in one row.
        titles: one a picture, written above it; default none.
        scale: whole number by which pictures are enlarged, pixels staying squares.
        gap: white pixels between pictures.

    Returns:
        One uint8 picture (height, width, 3).

    Raises:
        ValueError: for no pictures, pictures of several sizes or another number of titles.
    """
    tiles = [np.asarray(picture) for picture in pictures]
    if not tiles or any(t.shape != tiles[0].shape or t.ndim != 3 for t in tiles):
        raise ValueError(
            "pictures must be one or more of one shape (H, W, 3), got "
            f"{sorted({t.shape for t in tiles})}"
        )
    if titles is not None and len(titles) != len(tiles):
        raise ValueError(f"{len(titles)} titles for {len(tiles)} pictures")
    if scale > 1:
        tiles = [tile.repeat(scale, 0).repeat(scale, 1) for tile in tiles]
    if titles is not None:
        tiles = [_titled(tile, title) for tile, title in zip(tiles, titles, strict=True)]
    columns = columns or len(tiles)
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[:2]
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8
    )
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def strip(pictures: Sequence[Any], **options: Any) -> np.ndarray:
    """Pictures in one row; ``titles``, ``scale`` and ``gap`` as for :func:`grid`."""
    return grid(pictures, None, **options)


def stacked(kinds: Sequence[Any], titles: Sequence[str] | None = None) -> np.ndarray:
    """Several pictures of each image under one another, for a notebook: lines of eight images,
    small ones enlarged.

    Args:
        kinds: one or more of uint8 (N, H, W, 3), N at least 1. titles: one an image, or none.

    Returns:
        One uint8 picture (height, width, 3).
    """
    scale = max(1, 96 // kinds[0].shape[2])
    lines = []
    for start in range(0, len(kinds[0]), _A_LINE):
        part = slice(start, start + _A_LINE)
        for number, kind in enumerate(kinds):
            named = titles[part] if titles is not None and number == 0 else None
            lines.append(grid(kind[part], titles=named, scale=scale))
    width = lines[0].shape[1]
    return np.concatenate(
        [np.pad(line, ((0, 2), (0, width - line.shape[1]), (0, 0)), constant_values=255)
         for line in lines]
    )  # fmt: skip


def _titled(tile: np.ndarray, title: str) -> np.ndarray:
    """The picture under a line of text, which is cut where it is too long."""
    Image, ImageDraw = need("PIL.Image"), need("PIL.ImageDraw")
    label = Image.new("RGB", (tile.shape[1], 14), "white")
    ImageDraw.Draw(label).text((1, 1), title, fill="black")
    return np.concatenate([np.asarray(label), tile])


def html_image(picture: np.ndarray | bytes, alt: str = "") -> str:
    """An ``<img>`` tag that holds a uint8 picture (H, W, 3), or the bytes of a PNG file, as PNG."""
    from html import escape

    if isinstance(picture, np.ndarray):
        stream = io.BytesIO()
        need("PIL.Image").fromarray(picture).save(stream, "PNG")
        picture = stream.getvalue()
    data = base64.b64encode(picture).decode("ascii")
    return f'<img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
