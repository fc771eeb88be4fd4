"""Runners in processes of their own, each stopped while another one is at work.

Threads of some systems go on turning after their last call, and would take a core from whoever is
timed next; in one process they would also share one heap and one set of OpenMP threads.

A process is begun anew rather than copied, since a copy of one whose systems have threads would
lack those; and not by multiprocessing, which runs the user's script again in its children.
"""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .. import get_num_threads, set_num_threads
from ..own import another_python
from .runner import Runner
from .timing import timed

_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


class Failed(Exception):
    """Something went wrong in the process; the text has the error's type."""


class Apart(Runner):
    """A runner in a process of its own, with as many threads as this one.

    Args:
        make: makes the runner, there: what pickle can send, of modules that can be imported.

    Raises:
        Failed: it did not; or it is of the script or notebook that runs, which is no such module.
    """

    def __init__(self, make: Callable[[], Runner]) -> None:
        words = pickle.dumps((get_num_threads(), make))
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = _begin(theirs.fileno())
        try:
            self._send(words)
            self._answer()
        except BaseException:
            self.close()
            raise

    def logits(self) -> np.ndarray:
        return self._ask("logits")

    def step(self) -> None:
        self.seconds(1)

    def seconds(self, calls: int) -> float:
        """The time that so many steps take."""
        return self._ask("seconds", calls)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def _ask(self, *question: Any) -> Any:
        self._process.send_signal(signal.SIGCONT)
        self._send(pickle.dumps(question))
        return self._answer()

    def _send(self, words: bytes) -> None:
        try:
            self._pipe.send_bytes(words)
        except ConnectionError:
            raise self._death() from None

    def _answer(self) -> Any:
        try:
            error, value = self._pipe.recv()
        except (EOFError, ConnectionError):  # the second where it left something unread
            raise self._death() from None
        self._process.send_signal(signal.SIGSTOP)
        if error:
            raise Failed(error)
        return value

    def _death(self) -> Failed:
        return Failed(f"its process ended with exit code {self._process.wait()}")


def _begin(pipe: int) -> subprocess.Popen:
    """The other process, with the file descriptor of its end of the line."""
    command = another_python(f"from attnnet.bench.apart import serve; serve({pipe})")
    # Ctrl-C is this process's to answer: held back there until the other ignores it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(command, pass_fds=[pipe])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(line: int) -> None:
    """The other process: makes the runner, then answers until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    pipe = Connection(line)
    runner: Runner
    question: tuple[Any, ...] = ("make", pipe.recv_bytes())
    while True:
        value, error = None, ""
        try:
            if question[0] == "make":
                threads, make = _Unpickler(io.BytesIO(question[1])).load()
                set_num_threads(threads)
                runner = make()
            elif question[0] == "logits":
                value = runner.logits()
            else:
                value = timed(runner.step, question[1])
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        pipe.send((error, value))
        question = pipe.recv()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            raise AttributeError(
                f"{name} is of the script or notebook that runs, which no other process imports: "
                "put it into a module of its own"
            )
        return super().find_class(module, name)
