"""The folder of one training: a fresh name, a lock, room on the disk, leftovers cleared."""

from __future__ import annotations

import contextlib
import os
import shutil

from ..errors import CheckpointError
from . import behind
from .files import TEMPORARY, is_leftover, write_atomically
from .lock import FolderLock

LAST, BEST, LOCK = "last.safetensors", "best.safetensors", "train.lock"
# What a training leaves beside its recipe. The last checkpoint first: it makes the others count.
_FILES = (LAST, BEST, "history.json", "history.csv", "result.png")


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
        ours: whether what the folder holds is of this training.

    Raises:
        CheckpointError: the folder holds a training already.

    ``open`` takes the lock, ``close`` gives it back.
    """

    def __init__(self, path: str | None, name: str = "training", anew: bool = False) -> None:
        self._name_it(fresh_folder(name) if path is None else path)
        self._new_name = name if path is None else None
        self._anew = anew
        self.ours = False
        self._lock: FolderLock | None = None
        self._check()

    def _name_it(self, path: str) -> None:
        self._name, self._absolute = path, os.path.abspath(path)

    @property
    def path(self) -> str:
        """The folder as it was named, or from the root on where the working directory is another
        by now; of a new one what it will be called unless another takes the name first."""
        return self._name if os.path.abspath(self._name) == self._absolute else self._absolute

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
            self._name_it(fresh_folder(self._new_name))
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
            self._lock = self._new_lock()
            self._check()
            self._anew = True  # what is written from now on is ours
            probe = self.file(f".probe{TEMPORARY}")
            write_atomically(probe, b"probe")
            for name in os.listdir(self.path):
                if is_leftover(name):
                    os.unlink(self.file(name))
        except CheckpointError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise CheckpointError(
                f"cannot write to the folder {self.path}: {error.strerror or error}."
            ) from error

    def clear(self) -> None:
        """Removes what another training left, which is written over: whatever ends this one before
        its first checkpoint, nothing of the other counts as its own.

        Raises:
            OSError: a file cannot be removed.
        """
        if self.ours:
            return
        for name in _FILES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.file(name))
        self.ours = True

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
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def keep(self) -> None:
        """Checks, before something is written, that the folder is still this training's.

        Raises:
            CheckpointError: it was removed, or another training has taken it meanwhile.
        """
        if self._lock is None or self._lock.held():
            return
        if not os.path.isdir(self.path):
            raise CheckpointError(
                f"the folder {self.path} is gone: somebody removed it while the training ran."
            )
        lock = self._new_lock()  # the folder is there, its lock is not: it may be another's
        self._lock.release()
        self._lock = lock

    def _new_lock(self) -> FolderLock:
        return FolderLock(self.path, LOCK, "training")
