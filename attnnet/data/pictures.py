"""Opens image files, of a few known kinds and of a size that memory has room for, and brings them
into the form that a network takes: the same for training and for all that looks at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, check_whole
from ..extras import need

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000  # of one image file: a larger one is refused before it is decoded
# What a file may be, whatever its name says. Pillow knows many more kinds, and runs Ghostscript on
# one of them.
KINDS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names for images of so many channels


@contextmanager
def opened(file: str | os.PathLike) -> Iterator[Image.Image]:
    """An image file as Pillow's image, for a ``with`` that decodes and converts it.

    Raises:
        FileNotFoundError: there is none.
        DataError: truncated, corrupt, of another kind or too large; also where decoding
            fails inside the ``with``.
    """
    opener = need("PIL.Image").open
    name = os.fspath(file)
    try:
        with opener(file, formats=KINDS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{name}: {image.width} x {image.height} pixels, expected at most "
                                f"{MAX_PIXELS:,} in all")
            yield image
    except (DataError, FileNotFoundError):
        raise
    except Exception as bad:
        # Pillow's readers answer a corrupt file with errors of many kinds.
        raise DataError(f"{name}: not a readable image: {bad}") from bad


def upright(image: Image.Image, channels: int) -> Image.Image:
    """An image of any kind as it is to be held (EXIF), with 8 bits a channel.

    Args:
        channels: 1 (gray), 3 (red, green, blue) or 4 (with opacity).
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which no range is known: pass an array")
    if image.mode.startswith("I"):
        # 16 bits of gray, which the usual conversion would cut off at 255.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    return need("PIL.ImageOps").exif_transpose(image.convert(MODES[channels]))


def covering(width: int, height: int, size: tuple[int, int]) -> tuple[float, ...]:
    """What of an image is kept: the largest part about its middle with the sides' ratio of `size`,
    (height, width), as the corners (left, top, right, bottom)."""
    scale = min(width / size[1], height / size[0])
    left, top = (width - scale * size[1]) / 2, (height - scale * size[0]) / 2
    return left, top, width - left, height - top


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image of another size, (height, width): scaled until it covers that, bilinear, cut about
    its middle."""
    bilinear = need("PIL.Image").Resampling.BILINEAR
    return image.resize(size[::-1], bilinear, covering(*image.size, size))


def read_image(
    file: str | os.PathLike, size: int | tuple[int, int], channels: int = 3
) -> np.ndarray:
    """An image file in the form that ``predict`` and ``attnnet.explain`` take, of any size.

    Held upright as its EXIF entry says, scaled (bilinear) until it covers the size, and cut to it
    about its middle: as the images of a folder are for training. Needs Pillow.

    Args:
        file: its path: BMP, GIF (the first picture), JPEG, PNG, PPM, TIFF or WebP.
        size: (height, width) in pixels, or one number for both; a network's own is
            ``model.image_size``.
        channels: 3 (red, green, blue; default), 1 (gray) or 4 (with opacity).

    Returns:
        uint8 (channels, height, width).

    Raises:
        ValueError: another number of channels, or a size below 1.
        FileNotFoundError: there is no such file.
        DataError: truncated, corrupt, of another kind or too large.
    """
    height, width = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
    for side in (height, width):
        check_whole("size", side, 1)
    if channels not in MODES:
        raise ValueError(f"channels is {channels!r}; an image file has 1, 3 or 4.")
    with opened(file) as image:
        pixels = np.asarray(fitted(upright(image, channels), (height, width)))
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)
