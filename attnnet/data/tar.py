"""Reads tar archives from a stream, in one pass, with time and memory that follow their size.

The formats are POSIX ustar and pax (IEEE Std 1003.1) and GNU's. Python's ``tarfile`` looks into
the extended headers of a hostile archive with regular expressions whose time grows with the square
of what is there (CVE-2024-6232), so a small archive can hold it up for hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_BLOCK = 512
_PIECE = 1 << 20
_LONGEST_HEADER = 1 << 16  # bytes of an extended header: names, times and the like
_PAX, _PAX_FOR_ALL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_FILE = (b"0", b"\0", b"7")


class Stream(Protocol):
    """What is read from: fewer bytes than asked for only where it ends."""

    def read(self, size: int) -> bytes: ...


@dataclass
class Member:
    """An entry of an archive.

    Attributes:
        name: with its folders. size: of its content, in bytes. is_file: whether it is a plain
            file, rather than a folder, a link or a device.
        stream: where the content comes from next.
    """

    name: str
    size: int
    is_file: bool
    stream: Stream
    _left: int = 0

    def __post_init__(self) -> None:
        self._left = -(-self.size // _BLOCK) * _BLOCK

    def content(self) -> bytes:
        """The whole content; to be asked for once, before the next member is.

        Raises:
            ValueError: the archive ends within it.
        """
        self._left -= self.size
        return _exactly(self.stream, self.size, self.name)

    def skip(self) -> None:
        """Passes over what was not asked for."""
        while self._left:
            self._left -= len(_exactly(self.stream, min(self._left, _PIECE), self.name))


def members(stream: Stream) -> Iterator[Member]:
    """The entries of an archive, up to its end mark or the stream's end.

    Raises:
        ValueError: truncated or corrupt.
    """
    more: dict[str, str] = {}
    while True:
        block = stream.read(_BLOCK)
        if not block or not block.strip(b"\0"):
            return
        if len(block) < _BLOCK:
            raise ValueError("truncated in a header")
        member, kind = _header(block, stream)
        if kind in (_PAX, _PAX_FOR_ALL, _LONG_NAME, _LONG_LINK):
            if member.size > _LONGEST_HEADER:
                raise ValueError(f"an extended header of {member.size:,} bytes")
            text = member.content()
            member.skip()
            if kind == _PAX:
                more |= _records(text)
            elif kind == _LONG_NAME:
                more["path"] = text.rstrip(b"\0").decode("utf-8", "replace")
            continue
        if "path" in more:
            member.name = more["path"]
        if "size" in more:
            member = Member(member.name, _decimal(more["size"]), member.is_file, stream)
        if any(key.startswith("GNU.sparse") for key in more):
            member.is_file = False
        more = {}
        member.name = member.name.rstrip("/")  # as folders have it
        yield member
        member.skip()


def _header(block: bytes, stream: Stream) -> tuple[Member, bytes]:
    """A header's member and the letter of its kind."""
    announced = _number(block[148:156])
    if announced != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise ValueError("a header that does not fit its checksum")
    name, prefix = _text(block[:100]), _text(block[345:500])
    if block[257:263] == b"ustar\0" and prefix:
        name = f"{prefix}/{name}"
    kind = block[156:157]
    if kind == b"S":
        raise ValueError("a file with holes")
    plain = kind in _FILE and not (kind == b"\0" and name.endswith("/"))
    # Links and folders have no content, whatever size they name.
    size = 0 if kind in b"123456" else _number(block[124:136])
    return Member(name, size, plain, stream), kind


def _records(text: bytes) -> dict[str, str]:
    """The records of a pax header, each "LENGTH KEY=VALUE\\n"."""
    found, position = {}, 0
    while position < len(text) and text[position]:
        space = text.find(b" ", position, position + 8)
        if space < 0:
            raise ValueError("a pax header without the length of a record")
        end = position + _decimal(text[position:space].decode("latin1"))
        key, equals, value = text[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(text) or not equals or text[end - 1] != ord("\n"):
            raise ValueError("a pax header with a corrupt record")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        position = end
    return found


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or GNU's binary where those do not suffice."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise ValueError(f"a header with the number {_text(digits)[:20]!r}")
    return int(digits or b"0", 8)


def _decimal(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise ValueError(f"a pax header with the number {digits[:20]!r}")
    return int(digits)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _exactly(stream: Stream, size: int, name: str) -> bytes:
    pieces, left = [], size
    while left:
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise ValueError(f"truncated within {name[:80]!r}")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
