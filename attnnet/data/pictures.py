"""Opens image files, of a few known kinds and of a size that memory has room for, and brings them
into the form that a network takes: the same for training and for all that looks at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
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
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16 bits of gray, which the usual conversion would cut off at 255.
        image = image.point(lambda value: value / 256).convert("L")
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


def read(file: str | os.PathLike, size: tuple[int, int], channels: int) -> np.ndarray:
    """An image file as uint8 (channels, height, width), upright and fitted.

    Args:
        size: (height, width). channels: 1, 3 or 4.

    Raises:
        FileNotFoundError: there is none.
        DataError: truncated, corrupt, of another kind or too large.
    """
    with opened(file) as image:
        pixels = np.asarray(fitted(upright(image, channels), size))
    return pixels.reshape(*size, channels).transpose(2, 0, 1)
