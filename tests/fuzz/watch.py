"""Watches a reader at work: what it raises, how long it takes, how much memory, what it touches.

A reader may give a value or one of the errors that it documents. Everything else is a finding:
another error, too much time or memory, a file written, a process started, the network.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .readers import Reader

SECONDS = 5.0  # of the processor
MIB = 1 << 20
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What no reader has any business with; the rest of the interpreter's events is harmless.
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill",
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.putenv", "os.unsetenv", "subprocess.Popen", "socket.",
    "shutil.", "tempfile.", "pickle.find_class", "ctypes.dlopen", "urllib.Request", "webbrowser.",
)  # fmt: skip
_seen: list[str] | None = None  # events of the run that is being watched; None: nobody watches


class Finding(NamedTuple):
    """What a reader did that it must not do: one line, and what tells it from others."""

    text: str
    key: str


def _audit(event: str, arguments: tuple) -> None:
    if _seen is None:
        return
    if event == "socket.gethostname" or (event == "os.kill" and arguments[1] == 0):
        return  # nothing but the questions which machine this is and whether a process is there
    if event.startswith(_FORBIDDEN):
        _seen.append(f"{event} {arguments!r}"[:200])
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
        _seen.append(f"wrote {arguments[0]!r}"[:200])


def _hook() -> None:
    """Hooks cannot be taken away again, so there is one for all runs."""
    if not getattr(_hook, "done", False):
        sys.addaudithook(_audit)
        _hook.done = True


@contextmanager
def limited(megabytes: int) -> Iterator[None]:
    """Lets this process take so much more memory than it has now; then it is a MemoryError."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * MIB, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def watched(reader: Reader, data: bytes, folder: Path, memory: bool = False) -> Finding | None:
    """Gives a reader one input; None where it did what it may.

    Args:
        folder: where the reader's file goes. memory: measure what Python and NumPy allocate (it
            takes several times as long).
    """
    global _seen
    _hook()
    prepared = reader.prepare(data, folder)
    if memory:
        gc.collect()
        with contextlib.suppress(Exception):  # what is imported at first use is not the file's
            reader.read(prepared)
        tracemalloc.start()
    peak, start, problem = 0, time.process_time(), None  # not of the machine's other work
    _seen = events = []
    try:
        reader.read(prepared)
    except reader.refusals:
        pass
    except (SystemExit, Exception) as error:
        problem = _described(error)
    finally:
        _seen = None
        took = time.process_time() - start
        if memory:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    if problem is None and events:
        problem = Finding(events[0], events[0].split()[0])
    if problem is None and took > SECONDS:
        problem = Finding(f"took {took:.1f} s for {len(data):,} bytes", "time")
    if problem is None and peak > reader.most_memory(len(data)):
        problem = Finding(f"took {peak / MIB:.1f} MiB for {len(data):,} bytes", "memory")
    return problem


def _described(error: BaseException) -> Finding:
    """An error and the place in the package that it passed last."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [f for f in frames if f"{os.sep}attnnet{os.sep}" in f.filename] or frames
    place = f"{Path(inner[-1].filename).name}:{inner[-1].name}"
    text = f"{type(error).__name__} in {place} (line {inner[-1].lineno}): {str(error)[:200]}"
    return Finding(text, f"{type(error).__name__} {place}")
