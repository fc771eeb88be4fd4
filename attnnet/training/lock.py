"""The lock of a folder that only one process at a time may write into."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any

from ..errors import CheckpointError


class FolderLock:
    """A lock in the form of a file; held from its making until ``release``.

    The lock is the kernel's (``flock``) where the file system has it: it ends with its process,
    whatever ended that. Elsewhere the process number in the file decides: the lock of a process
    that is gone counts for nothing.

    Args:
        folder: it must exist. name: of the file. what: holds such a lock, for the message.

    Raises:
        FolderInUseError: somebody else holds it; the message says who.
        OSError: the file cannot be made.
    """

    def __init__(self, folder: str, name: str, what: str) -> None:
        self._path = os.path.join(folder, name)
        self._fd: int | None = None
        for _ in range(100):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                owner = _read_owner(fd)
                if not _flock(fd, owner):
                    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
                    raise FolderInUseError(
                        f"another {what} is using the folder {folder} ({who}). "
                        "Choose another folder, or wait until it has ended."
                    )
                # Its last owner may have removed the file between our opening and locking it.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(fd), os.stat(self._path)):
                        _write_owner(fd)
                        self._fd = fd
                        return
            finally:
                if self._fd is None:
                    os.close(fd)
        raise CheckpointError(f"cannot lock the folder {folder}: {name} keeps vanishing.")

    def release(self) -> None:
        """Gives the lock back; a second time does nothing."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):  # the folder may have been removed meanwhile
            if self.held():
                os.unlink(self._path)
        os.close(self._fd)
        self._fd = None

    def held(self) -> bool:
        """Whether the file in the folder is this lock: not removed, not another's."""
        try:
            return self._fd is not None and os.path.samestat(
                os.fstat(self._fd), os.stat(self._path)
            )
        except OSError:
            return False


class FolderInUseError(CheckpointError):
    """Another process is writing into the folder."""


def _flock(fd: int, owner: dict[str, Any]) -> bool:
    """Takes the lock; False when somebody else holds it."""
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return not _alive(owner)


def _read_owner(fd: int) -> dict[str, Any]:
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        owner = json.loads(os.read(fd, 4096))
    except (ValueError, RecursionError, OSError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _write_owner(fd: int) -> None:
    pid = os.getpid()
    owner = {"pid": pid, "host": socket.gethostname(), "started": _started(pid)}
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, json.dumps(owner).encode())


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; tells it from a later one of its number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None


def _alive(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote a lock file still runs; another machine's counts as alive."""
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return owner.get("started") == _started(pid)
