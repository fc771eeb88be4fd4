"""Writing files so that a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable
from typing import BinaryIO

TEMPORARY = ".tmp"  # how temporary names end; what a killed process left is found by it
_serial = itertools.count()


def plain_file_name(text: str) -> str:
    """A text as the name of a file or folder: letters, digits and ``-_+.`` stay, others are _."""
    return "".join(c if c.isalnum() or c in "-_+." else "_" for c in text)


def is_leftover(name: str, of: str = "") -> bool:
    """Whether a file's name is that of a temporary one, ``of`` that file (default: of any)."""
    return name.startswith(f".{of}." if of else ".") and name.endswith(TEMPORARY)


def sync_folder(path: str) -> None:
    """Makes renames inside a folder last through a power cut, where the system can do that."""
    # Windows cannot open folders, and some network file systems refuse to sync them: there the
    # rename itself must do, and the file's own content is synced already.
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_atomically(
    path: str, content: bytes | Callable[[BinaryIO], None], also: Iterable[str] = ()
) -> None:
    """Writes a file through a temporary one in the same folder: synced, then renamed.

    Args:
        path: the file to write; its folder must exist.
        content: the bytes, or a function that writes them to the open file.
        also: further names in the same folder that get the same content, renamed before ``path``.

    Raises:
        OSError: the file could not be written; what stood under the name before still does.
    """
    # From the root on: the working directory may change meanwhile.
    path, also = os.path.abspath(path), [os.path.abspath(name) for name in also]
    folder = os.path.dirname(path)
    made: list[str] = []
    try:
        temporary = _write_temporary(folder, os.path.basename(path), content, made)
        for name in also:
            twin = temporary.removesuffix(TEMPORARY) + f".twin{TEMPORARY}"
            made.append(twin)
            _link_or_copy(temporary, twin)
            os.replace(twin, name)
        os.replace(temporary, path)
    except BaseException:
        for leftover in made:
            if os.path.exists(leftover):
                os.unlink(leftover)
        raise
    sync_folder(folder)


def _write_temporary(
    folder: str, name: str, content: bytes | Callable[[BinaryIO], None], made: list[str]
) -> str:
    """Writes and syncs a temporary file that readers of ``name`` may later see."""
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{next(_serial)}{TEMPORARY}")
    with open(temporary, "xb") as file:
        made.append(temporary)
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _link_or_copy(source: str, target: str) -> None:
    """A second name for a file; a synced copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        import shutil

        shutil.copyfile(source, target)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
