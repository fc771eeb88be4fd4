"""Runners in processes of their own, each stopped while another one is at work.

Threads of some systems go on turning after their last call, and would take a core from whoever is
timed next; in one process they would also share one heap and one set of OpenMP threads.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .. import get_num_threads, set_num_threads
from .runner import Runner
from .timing import timed

_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


class Failed(Exception):
    """Something went wrong in the process; the text has the error's type."""


class Apart(Runner):
    """A runner in a process of its own, with as many threads as this one.

    Args:
        make: makes the runner, there: what pickle can send.

    Raises:
        Failed: it did not.
    """

    def __init__(self, make: Callable[[], Runner]) -> None:
        # Not a copy of this process, whose threads of other systems would be missing there.
        context = multiprocessing.get_context("forkserver")
        self._pipe, theirs = context.Pipe()
        words = (make, get_num_threads(), theirs)
        self._process = context.Process(target=_serve, args=words, daemon=True)
        self._process.start()
        theirs.close()
        try:
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
        self._process.join()
        self._pipe.close()

    def _ask(self, *question: Any) -> Any:
        self._signal(signal.SIGCONT)
        self._pipe.send(question)
        return self._answer()

    def _answer(self) -> Any:
        try:
            error, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise Failed(f"its process ended with exit code {self._process.exitcode}") from None
        self._signal(signal.SIGSTOP)
        if error:
            raise Failed(error)
        return value

    def _signal(self, number: int) -> None:
        if self._process.pid is not None:
            os.kill(self._process.pid, number)


def preload(*modules: str) -> None:
    """Has modules imported once for all processes, not once in each; before the first of them."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))


def _serve(make: Callable[[], Runner], threads: int, pipe: Connection) -> None:
    """The other process: makes the runner, then answers until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to answer
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    set_num_threads(threads)
    runner: Runner
    question: tuple[Any, ...] = ("make",)
    while True:
        value, error = None, ""
        try:
            if question[0] == "make":
                runner = make()
            elif question[0] == "logits":
                value = runner.logits()
            else:
                value = timed(runner.step, question[1])
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        pipe.send((error, value))
        question = pipe.recv()
