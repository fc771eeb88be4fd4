"""Reads named files out of a .tar.gz without unpacking anything to the disk.

Only files with the very names asked for are read, and only into memory, so there is no path for
an archive to lead astray. What a header announces is compared with limits before memory is
taken, and no more is decompressed than the data set can be large.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import DataError
from . import tar

# Headers, padding and a few small files beside the ones asked for (readme.html).
_SLACK = 1 << 20


def members(path: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """The files of an archive that ``limits`` names, as (name, content), in the archive's order.

    Args:
        path: a gzip-compressed tar archive.
        limits: the full name of each file wanted -> the most bytes that it may have.

    Raises:
        DataError: no such archive, truncated, corrupt, a file above its limit, twice the same
            file, or something in a file's place that is none (a link, a device).
    """
    seen = set()
    try:
        with open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as unzipped:
            limited = _Limited(unzipped, sum(limits.values()) + _SLACK, path)
            for member in tar.members(limited):
                name = member.name.removeprefix("./")
                if name not in limits:
                    continue
                _check_member(path, member, name, limits[name], seen)
                seen.add(name)
                yield name, member.content()
            # To the end, for the checksum that stands there.
            while limited.read(1 << 20):
                pass
    except FileNotFoundError as missing:
        raise DataError(f"{path}: no such archive") from missing
    except EOFError as short:
        raise DataError(f"{path}: truncated: the compressed data end too early") from short
    except DataError:
        raise
    except (zlib.error, OSError, ValueError, OverflowError) as bad:
        raise DataError(f"{path}: not a readable .tar.gz archive, or a corrupt one: "
                        f"{bad}") from bad


def _check_member(path: Path, member: tar.Member, name: str, limit: int, seen: set) -> None:
    if not member.is_file:
        raise DataError(f"{path}: {name} is no plain file: refused")
    if name in seen:
        raise DataError(f"{path}: holds {name} twice: refused")
    if member.size > limit:
        raise DataError(f"{path}: {name} would have {member.size:,} bytes, expected at most "
                        f"{limit:,}: refused")


class _Limited:
    """A stream that refuses to hand out more than ``limit`` bytes in all."""

    def __init__(self, stream: gzip.GzipFile, limit: int, path: Path):
        self.stream = stream
        self.left = limit
        self.path = path

    def read(self, size: int) -> bytes:
        # Checked before reading: a header may announce any size.
        if size < 0 or size > self.left + _SLACK:
            raise DataError(f"{self.path}: announces a part of {size:,} bytes, more than the data "
                            "set can have: refused")
        piece = self.stream.read(size)
        self.left -= len(piece)
        if self.left < 0:
            raise DataError(f"{self.path}: decompresses to more than the data set can have: "
                            "refused")
        return piece


def md5_of(path: Path) -> str:
    """The md5 sum of a file, as hexadecimal digits. It guards against accidents, not enemies."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
