"""The runs of a study, one after another or several at once on this machine."""

from __future__ import annotations

import os
import queue
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..config import get_num_threads
from ..training.interrupt import StopRequest
from .execute import Control, Task, execute, failed
from .worker import Worker, ending

Event = Callable[[str, dict[str, Any]], None]
RETRIES = 2  # times that a run is begun again after its process died
_ONE_RUN = 3 << 29  # bytes: what a training of ResNet18 with 128 images a step takes, and some more


def usual_workers(runs: int) -> int:
    """How many runs go at once where nobody says: one for each thread that it may use, as far as
    memory goes. Runs of one thread each wait for nothing, so that together they are done
    sooner than one after another with all cores each."""
    return max(1, min(runs, get_num_threads(), _free_memory() // _ONE_RUN))


def _free_memory() -> int:
    """Bytes that processes may take now; plenty where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            facts = dict(line.split(":", 1) for line in file)
        return int(facts["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return 1 << 50


def shares(cores: int, runs: int) -> list[int]:
    """How many threads each of so many runs gets of so many cores: at least one."""
    least, more = divmod(cores, runs)
    return [max(1, least + (place < more)) for place in range(runs)]


def run_here(tasks: Iterable[Task], event: Event) -> bool:
    """Does the runs one after another in this very process; False: somebody stopped it.

    What is registered in this process alone, such as a block in a notebook's cell, works here.
    """
    broken: list[Exception] = []

    def tell(name: str, word: dict[str, Any]) -> None:
        try:
            event(name, word)
        except Exception as error:  # no failure of the run, which ends in order
            broken.append(error)
            stop.request()

    with StopRequest() as stop:
        for task in tasks:
            if stop.requested:
                return False
            tell(task.name, {"event": "start", "pid": os.getpid()})
            outcome = execute(task, partial(tell, task.name), Control(request=stop))
            tell(task.name, {"event": "end", "outcome": outcome})
            if broken:
                raise broken[0]
            if outcome["state"] == "stopped":
                return False
    return True


class Pool:
    """Several runs at once, each in a process of its own.

    Args:
        tasks: the runs, in order. event: is called with each run's name and event.
        workers: how many at once. cores: how many threads they have together.
        retries: times that a run is begun again after its process died.
    """

    def __init__(
        self, tasks: Sequence[Task], event: Event, workers: int, cores: int, retries: int = RETRIES
    ) -> None:
        self._waiting = deque(tasks)
        self._event, self._slots, self._cores, self._retries = event, workers, cores, retries
        self._running: dict[str, tuple[Task, Worker]] = {}
        self._deaths: Counter[str] = Counter()
        self._words: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def run(self) -> bool:
        """Does the runs; False: somebody stopped it.

        Ctrl-C and SIGTERM let every run write a checkpoint and end; a second Ctrl-C ends them at
        once and raises ``KeyboardInterrupt``.
        """
        stopping = False
        try:
            with StopRequest() as stop:
                while self._running or (self._waiting and not stop.requested):
                    if stop.requested and not stopping:
                        stopping = True
                        self._stop()
                    if not stopping:
                        self._start()
                    self._hear(stopping)
                return not stop.requested
        except Exception:  # what shows the events failed: the runs end in order all the same
            if not stopping:  # a second time would break them off
                self._stop()
            for _, worker in self._running.values():
                worker.join()
            raise
        finally:
            for _, worker in self._running.values():
                worker.kill()
                worker.join()

    def _stop(self) -> None:
        for _, worker in self._running.values():
            worker.stop()

    def _start(self) -> None:
        """Starts runs where there is room, and deals the cores."""
        while self._waiting and len(self._running) < self._slots:
            going = min(self._slots, len(self._running) + len(self._waiting))
            task = self._waiting.popleft()
            threads = shares(self._cores, going)[len(self._running)]
            task = replace(task, threads=threads)
            try:
                worker = Worker(task, partial(self._heard, task.name))
            except OSError as error:  # no room for its folder, no process left
                message = f"cannot start: {error.strerror or error}"
                self._end(task, failed(task, type(error).__name__, message))
                continue
            self._running[task.name] = (task, worker)
        if self._running:
            dealt = shares(self._cores, len(self._running))
            for (_, worker), threads in zip(self._running.values(), dealt, strict=True):
                worker.deal(threads)

    def _heard(self, name: str, word: dict[str, Any]) -> None:
        """Notes an event; called from the workers' threads."""
        self._words.put((name, word))

    def _hear(self, stopping: bool) -> None:
        """Waits a moment for an event and sees to it."""
        try:
            name, word = self._words.get(timeout=0.2)
        except queue.Empty:
            self._event("", {"event": "tick"})
            return
        if word["event"] != "end":
            self._event(name, word)
            return
        task, worker = self._running.pop(name)
        worker.join()
        outcome, how = ending(word, stopping)
        if outcome is None:
            self._died(task, how)
        else:
            self._end(task, outcome)

    def _died(self, task: Task, how: str) -> None:
        self._deaths[task.name] += 1
        if self._deaths[task.name] <= self._retries:
            self._event(task.name, {"event": "again", "message": how})
            self._waiting.appendleft(task)
        else:
            self._end(task, failed(task, "Died", f"{how}, {self._deaths[task.name]} times"))

    def _end(self, task: Task, outcome: dict[str, Any]) -> None:
        self._event(task.name, {"event": "end", "outcome": outcome})
