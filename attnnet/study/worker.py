"""A run in a process of its own, and the two ends of the line to it.

The parent writes lines of JSON into the child's stdin: the task, then ``{"threads": N}`` whenever
cores are dealt anew; when that line ends, the parent has gone, and the child stops in order. The
child writes its events to stdout the same way; what the training prints goes to the run's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from ..own import another_python
from .execute import Control, Task, execute
from .folder import LOG


class Worker:
    """The parent's end.

    Args:
        task: the run.
        hear: is called with each event, from a thread of this object; the last one, when the
            process has ended, is ``{"event": "end", "outcome": ... or None, "code": ...}``, where
            None means that it died without a word.
    """

    def __init__(self, task: Task, hear: Callable[[dict[str, Any]], None]) -> None:
        os.makedirs(task.folder, exist_ok=True)
        command = another_python("from attnnet.study.worker import main; main()")
        with open(os.path.join(task.folder, LOG), "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, start_new_session=True,  # Ctrl-C is for the parent, who passes it on
            )  # fmt: skip
        self.pid = self._process.pid
        self.threads = task.threads
        self._say(task.to_dict())
        self._ear = threading.Thread(target=self._listen, args=(hear,), daemon=True)
        self._ear.start()

    def deal(self, threads: int) -> None:
        """Lets the run compute with another number of threads from its next step on."""
        if threads != self.threads:
            self.threads = threads
            self._say({"threads": threads})

    def stop(self) -> None:
        """Asks the run to write a checkpoint and end."""
        with contextlib.suppress(OSError):
            self._process.terminate()

    def kill(self) -> None:
        """Ends the process at once."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()

    def join(self) -> None:
        """Waits until the last event has been told."""
        self._ear.join()

    def _say(self, word: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError):  # it died, or has ended; _listen says so
            stdin: IO[bytes] = self._process.stdin  # type: ignore[assignment]
            stdin.write(json.dumps(word).encode() + b"\n")
            stdin.flush()

    def _listen(self, hear: Callable[[dict[str, Any]], None]) -> None:
        outcome = None
        stdout: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        for line in stdout:
            with contextlib.suppress(ValueError):  # a line cut off by the process's death
                event = json.loads(line)
                if event.get("event") == "outcome":
                    outcome = event["outcome"]
                else:
                    hear(event)
        code = self._process.wait()
        stdout.close()
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        hear({"event": "end", "outcome": outcome, "code": code})


def ending(word: dict[str, Any], stopping: bool) -> tuple[dict[str, Any] | None, str]:
    """What the last event of a worker says: the outcome of its run; or None, where the run is to
    be begun again, and how the process ended.

    Args:
        stopping: whether the run was asked to stop.
    """
    outcome = word["outcome"]
    if stopping:
        return outcome or {"state": "stopped"}, ""
    if outcome is None:
        return None, _death(word["code"])
    if outcome["state"] == "stopped":
        return None, "it was told to stop"
    return outcome, ""


def _death(code: int) -> str:
    """How a process died, in words."""
    if code >= 0:
        return f"its process ended without a word (exit code {code})"
    with contextlib.suppress(ValueError):
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process was killed by signal {-code}"


def main() -> None:
    """The child's end."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints, prints into the log
    guard = threading.Lock()

    def tell(event: dict[str, Any]) -> None:
        # A parent that has gone hears nothing; the line that ended on stdin stops the run.
        with guard, contextlib.suppress(OSError):
            out.write(json.dumps(event).encode() + b"\n")
            out.flush()

    task = Task.from_dict(json.loads(sys.stdin.readline()))
    control = Control()
    threading.Thread(target=_obey, args=(control,), daemon=True).start()
    tell({"event": "start", "pid": os.getpid()})
    outcome = execute(task, tell, control, progress="lines")
    tell({"event": "outcome", "outcome": outcome})
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written; the thread that reads stdin could hold up an orderly exit


def _obey(control: Control) -> None:
    for line in sys.stdin:
        control.threads = int(json.loads(line)["threads"])
    os.kill(os.getpid(), signal.SIGTERM)  # first: once a training stops, a signal ends it at once
    control.stop = True
