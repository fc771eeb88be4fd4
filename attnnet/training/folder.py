"""The folder of one training: a fresh name, a lock, room on the disk, leftovers cleared."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from typing import Any

from ..errors import CheckpointError
from . import behind
from .files import TEMPORARY, write_atomically

LAST, BEST, LOCK = "last.safetensors", "best.safetensors", "train.lock"


def fresh_folder(name: str, parent: str = "runs") -> str:
    """A path that nothing stands at yet: ``runs/NAME``, ``runs/NAME-2``, ..."""
    path, number = os.path.join(parent, name), 1
    while os.path.lexists(path):
        number += 1
        path = os.path.join(parent, f"{name}-{number}")
    return path


class RunFolder:
    """A folder that one training at a time may write into.

    Args:
        path: the folder; made where it does not exist. None: a new one, ``runs/NAME`` or
            ``runs/NAME-2`` and so on, which nobody else gets.
        name: for that name.
        anew: whether to write over a training that the folder holds already.

    Attributes:
        path: the folder; of a new one what it will be called unless another takes the name first.

    Raises:
        CheckpointError: the folder holds a training already.

    ``open`` takes the lock, ``close`` gives it back. The lock is the kernel's (``flock``) where
    the file system has it: it ends with its process, whatever ended that. Elsewhere the process
    number in the file decides: the lock of a process that is gone counts for nothing.
    """

    def __init__(self, path: str | None, name: str = "training", anew: bool = False) -> None:
        self.path = fresh_folder(name) if path is None else path
        self._new_name = name if path is None else None
        self._anew = anew
        self._lock: int | None = None
        self._check()

    def _check(self) -> None:
        """Refuses a folder with a training that is not to be written over."""
        behind.wait(self.path)
        if not self._anew and os.path.exists(self.file(LAST)):
            raise CheckpointError(
                f"the folder {self.path} holds a training already: go on with it (resume), choose "
                "another folder, or say overwrite."
            )

    def _make(self) -> None:
        """Makes the folder; a new one is made by nobody else."""
        while self._new_name is not None:
            self.path = fresh_folder(self._new_name)
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with contextlib.suppress(FileExistsError):  # somebody was faster: the next name
                os.mkdir(self.path)
                self._new_name = None
        os.makedirs(self.path, exist_ok=True)

    def file(self, name: str) -> str:
        """The path of a file in the folder."""
        return os.path.join(self.path, name)

    def open(self) -> None:
        """Makes the folder, takes the lock, and removes what a killed training left half written.

        Raises:
            CheckpointError: another training is using the folder, it holds one already, or it
                cannot be written to.
        """
        behind.wait(self.path)  # what is written there holds the lock
        try:
            self._make()
            self._lock = self._take_lock()
            self._check()
            self._anew = True  # what is written from now on is ours
            probe = self.file(f".probe{TEMPORARY}")
            write_atomically(probe, b"probe")
            for name in os.listdir(self.path):
                if name.startswith(".") and name.endswith(TEMPORARY):
                    os.unlink(self.file(name))
        except CheckpointError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise CheckpointError(
                f"cannot write to the folder {self.path}: {error.strerror or error}."
            ) from error

    def require_room(self, size: int) -> None:
        """Checks that two files of ``size`` bytes fit beside what is there.

        Raises:
            CheckpointError: they do not fit.
        """
        with contextlib.suppress(OSError):  # some file systems do not tell
            free = shutil.disk_usage(self.path).free
            if free < 2 * size:
                raise CheckpointError(
                    f"the disk of {self.path} has {free / 2**20:.0f} MiB free; the checkpoints "
                    f"need {2 * size / 2**20:.0f} MiB. Free some space or choose another folder."
                )

    def close(self) -> None:
        """Gives the lock back; does nothing without it."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):  # the folder may have been removed meanwhile
            os.unlink(self.file(LOCK))
        os.close(self._lock)
        self._lock = None

    def _take_lock(self) -> int:
        path = self.file(LOCK)
        for _ in range(100):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            owner = _read_owner(fd)
            if not _flock(fd, owner):
                os.close(fd)
                who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
                raise CheckpointError(
                    f"another training is using the folder {self.path} ({who}). "
                    "Choose another folder, or wait until it has ended."
                )
            # The file may have been removed by its last owner between our opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    _write_owner(fd)
                    return fd
            os.close(fd)
        raise CheckpointError(f"cannot lock the folder {self.path}: {LOCK} keeps vanishing.")


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
    except (ValueError, OSError):
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
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return owner.get("started") == _started(pid)
