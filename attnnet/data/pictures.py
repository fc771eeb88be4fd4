"""Opens image files: of a few known kinds, of a size that memory has room for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import DataError
from ..extras import need

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000  # of one image file: a larger one is refused before it is decoded
# What a file may be, whatever its name says. Pillow knows many more kinds, and runs Ghostscript on
# one of them.
KINDS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


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
