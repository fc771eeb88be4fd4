"""The entries of a zip archive whose content is stored as it is, as PyTorch writes them.

Nothing is unpacked and nothing copied: an entry is a piece of the file's bytes. So no archive can
ask for more memory than it has bytes itself.
"""

from __future__ import annotations

import struct
import zlib

from ..errors import CheckpointError

_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_ENTRY = b"PK\x01\x02"
_LOCAL = b"PK\x03\x04"
_MOST_ENTRIES = 100_000
_IN_EXTRA = 0xFFFFFFFF  # the real number stands in the zip64 field


def entries(data: bytes, source: str) -> dict[str, memoryview]:
    """Every entry of an archive by its name; contents are checked against their CRC-32.

    Args:
        data: the whole file. source: its name, for messages.

    Raises:
        CheckpointError: truncated, corrupt, compressed or encrypted entries, a name twice.
    """
    try:
        return _entries(data)
    except (struct.error, IndexError, OverflowError, ValueError) as error:
        raise CheckpointError(
            f"{source}: a zip archive that is truncated or corrupt ({len(data):,} bytes): {error}."
        ) from None


def _entries(data: bytes) -> dict[str, memoryview]:
    view, found, total = memoryview(data), {}, 0
    count, position = _directory(data)
    if count > _MOST_ENTRIES:
        raise ValueError(f"it announces {count:,} entries")
    for _ in range(count):
        fields = struct.unpack_from("<4s4x2H4x3I3H8xI", data, position)
        magic, flags, method, crc, packed, size, name_len, extra_len, note_len, start = fields
        if magic != _ENTRY:
            raise ValueError(f"no directory entry at byte {position:,}")
        extra_at = position + 46 + name_len
        name = data[position + 46 : extra_at].decode("utf-8", "replace")
        extra = data[extra_at : extra_at + extra_len]
        size, packed, start = _large(extra, size, packed, start)
        if flags & 1 or method != 0 or packed != size:
            raise ValueError(f"{name[:80]!r} is compressed or encrypted; PyTorch stores as it is")
        if name in found:
            raise ValueError(f"{name[:80]!r} is there twice")
        total += size
        if total > len(data):
            raise ValueError("its entries are larger together than the file")
        found[name] = content = _content(view, start, size, name)
        if crc and zlib.crc32(content) != crc:  # PyTorch can be told to leave it out
            raise ValueError(f"the content of {name[:80]!r} does not fit its checksum")
        position = extra_at + extra_len + note_len
    return found


def _directory(data: bytes) -> tuple[int, int]:
    """How many entries there are, and where their directory begins."""
    end = data.rfind(_END, max(0, len(data) - 22 - 0xFFFF))
    if end < 0:
        raise ValueError("its directory is missing")
    count, _size, start, note_len = struct.unpack_from("<10xHIIH", data, end)
    if end + 22 + note_len > len(data):
        raise ValueError("its last bytes are missing")
    if data[end - 20 : end - 16] == _LOCATOR64:
        (end64,) = struct.unpack_from("<8xQ", data, end - 20)
        magic, count, start = struct.unpack_from("<4s28xQ8xQ", data, end64)
        if magic != _END64:
            raise ValueError("its directory of 64 bits is missing")
    return count, start


def _large(extra: bytes, size: int, packed: int, start: int) -> list[int]:
    """Sizes and start with those that need 64 bits taken from the extra field."""
    numbers, position = [size, packed, start], 0
    while position + 4 <= len(extra) and _IN_EXTRA in numbers:
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, position))
            numbers = [next(wide, n) if n == _IN_EXTRA else n for n in numbers]
        position += length
    return numbers


def _content(view: memoryview, start: int, size: int, name: str) -> memoryview:
    magic, name_len, extra_len = struct.unpack_from("<4s22x2H", view, start)
    begin = start + 30 + name_len + extra_len
    if magic != _LOCAL or begin + size > len(view):
        raise ValueError(f"{name[:80]!r} needs {size:,} bytes at {begin:,}")
    return view[begin : begin + size]
