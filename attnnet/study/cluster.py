"""The runs of a study on a Dask cluster. Needs distributed (attnnet[cluster]).

Each run is a task, and each task trains in a process of its own beside its Dask worker, as on one
machine: two trainings never share a process, whatever threads the Dask worker has, and a training
that dies takes no worker with it. The study's folder must be on a file system that all share. Dask
gives the run of a worker that died to another one, where it goes on from its last checkpoint; the
lock of the run's folder sees to it that nobody does it twice at once.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import cores
from ..errors import CheckpointError
from ..training.interrupt import StopRequest
from .execute import Task
from .folder import STUDY, write_failure
from .runner import RETRIES, Event
from .worker import Worker, death

if TYPE_CHECKING:
    from distributed import Client, Variable

_MOMENT = 0.2  # seconds between two looks at what is asked
_ANSWER = 10.0  # seconds to wait for the scheduler
_PATIENCE = 30.0  # seconds to wait for the cluster's first worker
_BEAT = 5.0  # seconds between two signs of life of the study
_SILENCE = 60.0  # seconds without one, after which its tasks stop


def connect(address: str) -> Client:
    """A client of the scheduler.

    Raises:
        ModuleNotFoundError: distributed is not installed.
        OSError: nobody answers at the address.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a cluster needs distributed: pip install distributed (or attnnet[cluster])"
        ) from error
    try:
        return Client(address, timeout=_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answers at {address!r}: {error}") from None


class Cluster:
    """The runs on the workers of a scheduler.

    Args:
        tasks: the runs, in order. event: is called with each run's name and event.
        client: of the scheduler. threads: of each run; None: the cores of each machine over the
            runs that it takes at once.
    """

    def __init__(
        self, tasks: Sequence[Task], event: Event, client: Client, threads: int | None = None
    ) -> None:
        self._tasks, self._event, self._client, self._threads = tasks, event, client, threads
        self._topic = f"attnnet-{uuid.uuid4().hex}"
        self._words: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._started: set[str] = set()
        self._ended: set[str] = set()

    def check(self, folder: str) -> None:
        """Makes sure that there are workers, and that each sees the study's folder.

        Raises:
            CheckpointError: one does not, or there is no worker.
        """
        from distributed import TimeoutError

        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise CheckpointError(
                "the cluster has no worker; start some: dask worker ADDRESS"
            ) from None
        probe = os.path.join(os.path.abspath(folder), STUDY)
        for worker, seen in self._client.run(os.path.exists, probe).items():
            if not seen:
                raise CheckpointError(
                    f"the worker {worker} does not see {probe}: the study's folder must be on a "
                    "file system that all machines share, under the same path."
                )

    def run(self) -> bool:
        """Does the runs; False: somebody stopped it, and every run has written a checkpoint.

        Raises:
            ConnectionError: the scheduler is gone; the runs that it had dealt out stop in order.
        """
        from distributed import Variable
        from distributed.comm import CommClosedError

        word = Variable(self._topic, client=self._client)
        _set(word, "go 0")
        threads = {} if self._threads else self._threads_of_workers()
        self._client.subscribe_topic(self._topic, self._hear)
        futures = {
            task.name: self._client.submit(
                do, task.to_dict(), self._topic, self._threads, threads,
                key=f"{task.name}-{self._topic}", pure=False,
            ) for task in self._tasks
        }  # fmt: skip
        try:
            with StopRequest() as stop:
                stopping, began, beat = False, time.monotonic(), 0
                while len(self._ended) < len(futures):
                    if stop.requested and not stopping:
                        stopping = True
                        _set(word, "stop")
                        waiting = [f for n, f in futures.items() if n not in self._started]
                        self._cancel(waiting)
                    elif not stopping and (time.monotonic() - began) // _BEAT > beat:
                        beat += 1
                        _set(word, f"go {beat}")
                    self._drain()
                    self._gather(futures, stopping)
                return not stop.requested
        except CommClosedError:
            raise ConnectionError(
                "the Dask scheduler is gone or has dropped the study; the runs stop in order: go "
                "on with another scheduler, or without one."
            ) from None
        finally:
            with contextlib.suppress(CommClosedError):
                _set(word, "stop")
                self._cancel([f for name, f in futures.items() if name not in self._ended])
                self._client.unsubscribe_topic(self._topic)

    def _cancel(self, futures: list[Any]) -> None:
        if futures:
            self._client.cancel(futures)

    def _threads_of_workers(self) -> dict[str, int]:
        """By a worker's address, the cores of its machine over the tasks that it takes at once."""
        threads = self._client.run(_threads_of_machine)
        facts = self._client.scheduler_info(n_workers=-1)["workers"]
        at_once: Counter[str] = Counter()
        for worker in facts.values():
            at_once[worker["host"]] += worker["nthreads"]
        return {
            address: max(1, count // at_once[facts[address]["host"]])
            for address, count in threads.items() if address in facts
        }  # fmt: skip

    def _hear(self, message: tuple[float, Any]) -> None:
        name, word = message[1]
        self._words.put((name, word))

    def _drain(self) -> None:
        """Passes on what is heard, or waits a moment."""
        try:
            name, word = self._words.get(timeout=_MOMENT)
        except queue.Empty:
            self._event("", {"event": "tick"})
            return
        if word["event"] == "start":
            self._started.add(name)
        if name not in self._ended:
            self._event(name, word)

    def _gather(self, futures: dict[str, Any], stopping: bool) -> None:
        """Books the runs that have ended."""
        from distributed.comm import CommClosedError

        for task in self._tasks:
            future = futures[task.name]
            if task.name in self._ended or not future.done():
                continue
            if future.cancelled() and not stopping:
                raise CommClosedError  # nobody here has cancelled it
            self._ended.add(task.name)
            if future.status == "finished":
                outcome = future.result()
            elif stopping:
                outcome = {"state": "stopped"}
            else:  # the workers that took it died, one after another
                error = future.exception()
                message = " ".join(str(error).split())
                outcome = {"state": "failed", "kind": type(error).__name__, "message": message}
                write_failure(task.folder, outcome["kind"], message)
            self._event(task.name, {"event": "end", "outcome": outcome})


def _set(word: Variable, text: str) -> None:
    """Tells the tasks to go on or to stop.

    Raises:
        CommClosedError: the scheduler does not answer.
    """
    from distributed.comm import CommClosedError

    try:
        word.set(text)
    except OSError as error:  # also that of a new connection which nobody takes
        raise CommClosedError(str(error)) from error


def do(
    fields: dict[str, Any], topic: str, threads: int | None, of_workers: dict[str, int]
) -> dict[str, Any]:
    """A run, as a task of a Dask worker does it: in a process beside it.

    Args:
        fields: of the ``Task``. topic: where events go to; the variable of that name says "stop",
            or "go" and a number that grows while the study is there.
        threads: to compute with; None: what ``of_workers`` says of this worker's address.

    Returns:
        The outcome, as ``execute`` gives it.
    """
    from distributed import get_worker

    me = get_worker()
    share = threads or of_workers.get(me.address)
    # A worker that came later.
    share = share or max(1, _threads_of_machine() // me.state.nthreads)
    task = Task(**{**fields, "imports": tuple(fields["imports"]), "threads": share})
    studies = _Studies(topic)
    for death_count in range(1, 2 + RETRIES):
        outcome, how = _one_process(task, studies, me, topic)
        if outcome is not None:
            return outcome
        if death_count <= RETRIES:
            me.log_event(topic, (task.name, {"event": "again", "message": how}))
    message = f"{how}, {death_count} times"
    write_failure(task.folder, "Died", message)
    return {"state": "failed", "kind": "Died", "message": message}


def _threads_of_machine() -> int:
    """What a worker's tasks share. ``OMP_NUM_THREADS`` does not count here: Dask sets it to 1 for
    libraries that know nothing of one another."""
    return cores.own() or cores.free()


def _one_process(
    task: Task, studies: _Studies, me: Any, topic: str
) -> tuple[dict[str, Any] | None, str]:
    """The run in a process: its outcome, or None and how the process died."""
    words: queue.Queue[dict[str, Any]] = queue.Queue()
    worker = Worker(task, words.put)
    stopping = False
    try:
        while True:
            if not stopping and studies.stopped:
                stopping = True
                worker.stop()
            try:
                word = words.get(timeout=_MOMENT)
            except queue.Empty:
                continue
            if word["event"] == "end":
                break
            me.log_event(topic, (task.name, {**word, "worker": me.address}))
    finally:
        worker.kill()
        worker.join()
    outcome = word["outcome"]
    if stopping and outcome is None:
        return {"state": "stopped"}, ""
    if outcome is not None and (stopping or outcome["state"] != "stopped"):
        return outcome, ""
    return None, death(word["code"]) if outcome is None else "it was told to stop"


class _Studies:
    """What the study says to its tasks: go on, or stop; its silence means stop, too."""

    def __init__(self, topic: str) -> None:
        from distributed import Variable

        self._variable = Variable(topic)
        self._word, self._asked = "", -math.inf
        self._changed = time.monotonic()

    @property
    def stopped(self) -> bool:
        """Whether to stop; asks every second at most."""
        now = time.monotonic()
        if now - self._asked >= 1:
            self._asked = now
            with contextlib.suppress(Exception):  # whatever Dask raises: no answer is silence
                word = self._variable.get(timeout=_ANSWER)
                if word != self._word:
                    self._word, self._changed = word, now
        return self._word == "stop" or now - self._changed > _SILENCE
