"""What training asks of the file system, counted, and broken off where a test wants it."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attnnet.training import files, finish

_CALLS = ("fsync", "replace", "link")


class Storage:
    """Counts opens, writes, syncs, renames and links.

    Args:
        fail: called with the number and name of each operation, before it is done; may raise.
    """

    def __init__(self, fail: Callable[[int, str], None]) -> None:
        self.count = 0
        self._fail = fail

    def __call__(self, name: str) -> None:
        self.count += 1
        self._fail(self.count, name)

    def wrapped(self, function: Callable, name: str) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            self(name)
            return function(*arguments, **options)

        return call

    def open(self, path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if "w" not in mode and "x" not in mode:
            return builtins.open(path, mode, *rest, **options)
        self("open")
        return _File(builtins.open(path, mode, *rest, **options), self)


class _File:
    """A file whose writes are counted."""

    def __init__(self, file: Any, storage: Storage) -> None:
        self._file, self._storage = file, storage

    def write(self, data: Any) -> int:
        self._storage("write")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


@contextmanager
def broken(fail: Callable[[int, str], None]) -> Iterator[Storage]:
    """Lets ``fail`` see, and break off, each operation of a training's files; draws no picture."""
    storage = Storage(fail)
    before = {name: getattr(os, name) for name in _CALLS}
    draw = finish._draw
    try:
        for name, function in before.items():
            setattr(os, name, storage.wrapped(function, name))
        files.open = storage.open
        finish._draw = lambda trainer, evaluation: None
        yield storage
    finally:
        for name, function in before.items():
            setattr(os, name, function)
        del files.open
        finish._draw = draw
