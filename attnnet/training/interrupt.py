"""Ctrl-C and SIGTERM during a training: first ask, then insist."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """Context that turns the first SIGINT or SIGTERM into a flag, the second into an exception.

    A training asks ``requested`` after each step and ends in order: the step is whole, a checkpoint
    is written. A second signal raises ``KeyboardInterrupt`` at once. Signals reach only the main
    thread, and only handlers that Python knows can be put back; elsewhere the context does nothing
    and ``request`` alone sets the flag. A signal that was ignored (``nohup``) stays ignored. Of two
    such contexts, one within the other, a request to the outer one is the inner one's from its
    beginning, and a signal that reached the inner one is the outer one's once that has ended.

    Attributes:
        requested: whether to stop.
        asked: whether this process was asked to: the same, but where several train together
            (``agree``), one of them may know it before all do.
        signal: the signal that asked, for example ``signal.SIGTERM``; None: ``request`` did.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        return self.requested

    def agree(self) -> None:
        """Between two steps: whether to stop follows from what all processes were asked."""

    def request(self) -> None:
        """Asks to stop, from any thread."""
        self._ask(None)

    def _ask(self, number: signal.Signals | None) -> None:
        self.requested = True
        self.signal = number or self.signal

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self._restore()
            raise KeyboardInterrupt
        self._ask(signal.Signals(number))

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before is None or before == signal.SIG_IGN:
                continue
            self._before[number] = before
            signal.signal(number, self._handle)
        for outer in self._around():
            if outer.asked:
                self._ask(outer.signal)
        return self

    def __exit__(self, *exception: object) -> None:
        around = self._around()
        self._restore()
        for outer in around:
            if self.signal is not None:
                outer._ask(self.signal)

    def _around(self) -> set[StopRequest]:
        """The request whose context this one's is within, if any."""
        owners = {getattr(before, "__self__", None) for before in self._before.values()}
        return {owner for owner in owners if isinstance(owner, StopRequest)}

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
