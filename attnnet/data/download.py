"""Fetches one file: goes on where it stopped, checks the sum, appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .archive import md5_of

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4
_PIECE = 1 << 16


def download(url: str, target: Path, md5: str, max_size: int, *, progress: bool = True,
             wait: float = 1.0) -> Path:
    """Downloads ``url`` to ``target``, unless it is there already.

    The bytes gather in ``target`` + ".part", which survives an interruption: the next call asks
    the server for the rest (HTTP Range). Only a file with the right checksum, synced to the
    disk, is renamed to ``target``. Of several processes that want the same file one downloads
    and the others wait for it.

    Args:
        url: where it is.
        target: where it goes; its folder is made.
        md5: the checksum expected, as hexadecimal digits.
        max_size: in bytes; a larger answer is refused.
        progress: show a progress bar.
        wait: seconds before the second attempt; doubled for each further one.

    Raises:
        DataError: no connection, an error answer, too large, no space, no permission, or a wrong
            checksum also after starting afresh; says what is kept and how to go on.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url}: not an address, expected http://... or https://...")
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock")):
            if target.exists():  # another process was faster
                return target
            _fetch_and_check(url, part, md5, max_size, progress, wait)
            os.replace(part, target)
            _sync_folder(target.parent)
    except OSError as bad:
        raise DataError(f"cannot write {target}: {bad.strerror or bad}. Choose another place with "
                        "root or ATTNNET_DATA, or make room") from bad
    return target


def _fetch_and_check(url: str, part: Path, md5: str, max_size: int, progress: bool,
                     wait: float) -> None:
    resumed = part.exists() and part.stat().st_size > 0
    _fetch(url, part, max_size, progress, wait)
    found = md5_of(part)
    if found != md5 and resumed:
        # What an earlier call left may have been of another file: once more from the start.
        part.unlink()
        _fetch(url, part, max_size, progress, wait)
        found = md5_of(part)
    if found != md5:
        part.unlink()
        raise DataError(f"{url}: wrong checksum: md5 {found}, expected {md5}. The download was "
                        "thrown away; a proxy or mirror may have changed it")


def _fetch(url: str, part: Path, max_size: int, progress: bool, wait: float) -> None:
    """Brings ``part`` to its full length; several attempts, each going on from the last."""
    import http.client
    import urllib.error

    for attempt in range(1, ATTEMPTS + 1):
        try:
            if _fetch_rest(url, part, max_size, progress):
                return
            problem = "the connection ended early"
        except urllib.error.HTTPError as answer:
            if 400 <= answer.code < 500 and answer.code not in (408, 429):
                raise DataError(f"{url}: the server answers {answer.code} "
                                f"{answer.reason}") from answer
            problem = f"the server answers {answer.code} {answer.reason}"
        except DataError:
            raise
        except ValueError as bad:
            raise DataError(f"{url}: not an address: {bad}") from bad
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError,
                ConnectionError) as bad:
            problem = str(getattr(bad, "reason", bad))
        if attempt < ATTEMPTS:
            time.sleep(wait * 2 ** (attempt - 1))
    kept = part.stat().st_size if part.exists() else 0
    raise DataError(f"cannot download {url}: {problem} ({ATTEMPTS} attempts). {kept:,} bytes are "
                    f"kept in {part}; the same call goes on from there")


def _fetch_rest(url: str, part: Path, max_size: int, progress: bool) -> bool:
    """One request for what is missing. True: the file is complete."""
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity",
                                                   "User-Agent": "attnnet"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        # 416: nothing after what we have, so it is complete; the checksum will tell.
        if error.code == 416 and have:
            return True
        raise
    with answer:
        start = _start_of(answer, have)
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        _check_room(url, part, total, start, max_size)
        got = _copy(answer, part, start, total, max_size, url, progress)
    return total is None or got >= total


def _start_of(answer: object, have: int) -> int:
    """Where the answer's bytes go: after what we have only if the server says exactly that."""
    if answer.status == 206:
        where = answer.headers.get("Content-Range", "")
        if where.startswith(f"bytes {have}-"):
            return have
        raise DataError(f"{answer.url}: asked for bytes from {have:,}, got {where!r}")
    return 0


def _check_room(url: str, part: Path, total: int | None, start: int, max_size: int) -> None:
    if total is None:
        return
    if total > max_size:
        raise DataError(f"{url}: {total:,} bytes, expected at most {max_size:,}: refused")
    free = shutil.disk_usage(part.parent).free + (0 if start else _size(part))
    if total - start > free:
        raise DataError(f"no space in {part.parent}: {total - start:,} bytes needed, {free:,} "
                        "free. Choose another place with root or ATTNNET_DATA, or make room")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _copy(answer: object, part: Path, start: int, total: int | None, max_size: int, url: str,
          progress: bool) -> int:
    """Writes the answer at ``start``; returns how long the file is now."""
    from tqdm.auto import tqdm

    position = start
    with open(part, "r+b" if start else "wb") as file, \
            tqdm(total=total, initial=start, unit="B", unit_scale=True, unit_divisor=1024,
                 desc=part.name.removesuffix(".part"), disable=not progress) as bar:
        file.seek(start)
        try:
            while piece := _read(answer):
                if position + len(piece) > max_size:
                    raise DataError(f"{url}: more than {max_size:,} bytes: refused")
                file.write(piece)
                position += len(piece)
                bar.update(len(piece))
        finally:
            file.truncate(position)
            file.flush()
            os.fsync(file.fileno())
    return position


def _read(answer: object) -> bytes:
    """A piece of the answer. Trouble of the connection is told apart from trouble of the disk."""
    import http.client

    try:
        return answer.read(_PIECE)
    except (OSError, http.client.HTTPException) as broken:
        raise ConnectionError(f"the connection broke: {broken}") from broken


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a file's lock; where the system has none, downloads are not kept apart."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a network file system without locks
            yield
            return
        yield
    # The file stays: removing it would let a third process lock another one of that name.


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a power failure, where folders can be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
