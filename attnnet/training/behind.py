"""Writing that goes on after the call that began it has returned.

An interrupted cell of a notebook ends at once; its checkpoint is written while the kernel waits for
the next one. All that reads or writes the folder waits for that here, and so does the end of the
process: the threads are no daemons.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_lock = threading.Lock()
_writings: dict[str, _Writing] = {}  # by folder


class _Writing(threading.Thread):
    """One piece of work, what it failed with, and what is done when it is over."""

    def __init__(self, folder: str, work: Callable[[], None]) -> None:
        super().__init__(name="attnnet checkpoint", daemon=False)
        self.folder = folder
        self.work: Callable[[], None] | None = work
        self.error: Exception | None = None
        self.over = False
        self.then: list[Callable[[], None]] = []

    def run(self) -> None:
        try:
            self.work()
        except Exception as error:
            self.error = error  # kept for ``wait`` to raise
        self.work = None  # it holds a copy of the model
        while self._goes_on():
            self.then.pop()()

    def _goes_on(self) -> bool:
        """Whether there is something left to do; else this is over, for all to see."""
        with _lock:
            self.over = not self.then
            if self.over and self.error is None:
                del _writings[self.folder]
            return not self.over


def start(folder: str, work: Callable[[], None]) -> None:
    """Runs work that writes into a folder in a thread of its own, after what runs there already.

    Raises:
        Exception: what that failed with.
    """
    wait(folder)
    key = os.path.realpath(folder)
    _writings[key] = writing = _Writing(key, work)
    writing.start()


def when_written(folder: str, call: Callable[[], None]) -> None:
    """Calls a function when nothing is being written into a folder: now, or in its thread."""
    with _lock:
        writing = _writings.get(os.path.realpath(folder))
        if writing is not None and not writing.over:
            writing.then.append(call)
            return
    call()


def wait(path: str | os.PathLike[str]) -> None:
    """Waits until what is being written into a folder, or into that of a file, is there.

    Raises:
        Exception: what the writing failed with; the first to wait gets it.
    """
    if not _writings:
        return
    path = os.path.realpath(path)
    for folder in (path, os.path.dirname(path)):
        writing = _writings.get(folder)
        if writing is None:
            continue
        writing.join()
        with _lock:
            failed = writing.error is not None and _writings.pop(folder, None) is writing
        if failed:
            raise writing.error
