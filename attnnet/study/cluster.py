"""The runs of a study on a Dask cluster. Needs distributed (attnnet[cluster]).

Each run is a task, and each task trains in a process of its own beside its Dask worker, as on one
machine: two trainings never share a process, whatever threads the Dask worker has, and a training
that dies takes no worker with it. The study's folder must be on a file system that all share. Dask
gives the run of a worker that died to another one, where it goes on from its last checkpoint; the
lock of the run's folder sees to it that nobody does it twice at once.
"""

from __future__ import annotations

import os
import queue
import socket
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..training.interrupt import StopRequest
from .execute import Task
from .folder import write_failure
from .runner import RETRIES, Event
from .worker import Worker, death

if TYPE_CHECKING:
    from distributed import Client

_MOMENT = 0.2  # seconds between two looks at what is asked
_PATIENCE = 30.0  # seconds to wait for the cluster's first worker


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
        return Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answers at {address!r}: {error}") from None


class Cluster:
    """The runs on the workers of a scheduler.

    Args:
        tasks: the runs, in order. event: is called with each run's name and event.
        client: of the scheduler. threads: of each run; None: the cores of each machine over the
            runs that it takes at once.

    Raises:
        CheckpointError: there is no worker, or one does not see the study's folder.
    """

    def __init__(
        self, tasks: Sequence[Task], event: Event, client: Client, threads: int | None = None
    ) -> None:
        self._tasks, self._event, self._client, self._threads = tasks, event, client, threads
        self._topic = f"attnnet-{uuid.uuid4().hex}"
        self._stop = f"{self._topic}-stop"
        self._words: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._ended: set[str] = set()

    def check(self, folder: str) -> None:
        """Makes sure that every worker sees the study's folder.

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
        probe = os.path.join(os.path.abspath(folder), "study.json")
        for worker, seen in self._client.run(os.path.exists, probe).items():
            if not seen:
                raise CheckpointError(
                    f"the worker {worker} does not see {probe}: the study's folder must be on a "
                    "file system that all machines share, under the same path."
                )

    def run(self) -> bool:
        """Does the runs; False: somebody stopped it, and every run has written a checkpoint."""
        from distributed import Variable

        stop_asked = Variable(self._stop, client=self._client)
        stop_asked.set(False)
        self._client.subscribe_topic(self._topic, self._hear)
        futures = {
            task.name: self._client.submit(
                do, task.to_dict(), self._topic, self._stop, self._threads, key=self._key(task),
                pure=False, retries=0,
            ) for task in self._tasks
        }  # fmt: skip
        try:
            with StopRequest() as stop:
                while len(self._ended) < len(futures):
                    if stop.requested:
                        stop_asked.set(True)
                        # Those that wait for a worker would only begin to be stopped.
                        self._client.cancel([f for f in futures.values() if f.status == "pending"
                                             and not self._is_running(f)])  # fmt: skip
                    self._drain()
                    self._gather(futures, stop.requested)
                return not stop.requested
        finally:
            self._client.cancel(list(futures.values()))
            self._client.unsubscribe_topic(self._topic)

    def _key(self, task: Task) -> str:
        return f"{task.name}-{self._topic}"

    def _is_running(self, future: Any) -> bool:
        return any(future.key in keys for keys in self._client.processing().values())

    def _hear(self, message: tuple[float, Any]) -> None:
        name, word = message[1]
        self._words.put((name, word))

    def _drain(self) -> None:
        """Passes on what has been heard, for a moment."""
        try:
            name, word = self._words.get(timeout=_MOMENT)
        except queue.Empty:
            self._event("", {"event": "tick"})
            return
        if name not in self._ended:
            self._event(name, word)

    def _gather(self, futures: dict[str, Any], stopping: bool) -> None:
        """Books the runs that have ended."""
        for task in self._tasks:
            future = futures[task.name]
            if task.name in self._ended or not future.done():
                continue
            self._ended.add(task.name)
            if future.status == "finished":
                outcome = future.result()
            elif future.cancelled() or stopping:
                outcome = {"state": "stopped"}
            else:
                error = future.exception()
                outcome = {"state": "failed", "kind": type(error).__name__,
                           "message": " ".join(str(error).split())}  # fmt: skip
                write_failure(task.folder, outcome["kind"], outcome["message"])
            self._event(task.name, {"event": "end", "outcome": outcome})


def do(fields: dict[str, Any], topic: str, stop: str, threads: int | None) -> dict[str, Any]:
    """A run, as a task of a Dask worker does it: in a process beside it.

    Returns:
        The outcome, as ``execute`` gives it.
    """
    from distributed import Variable, get_worker

    me = get_worker()
    share = threads or max(1, (os.cpu_count() or 1) // _at_once(me))
    task = Task(**{**fields, "imports": tuple(fields["imports"]), "threads": share})
    asked = Variable(stop)
    for attempt in range(1 + RETRIES):
        words: queue.Queue[dict[str, Any]] = queue.Queue()
        worker = Worker(task, words.put)
        stopping = False
        try:
            while True:
                try:
                    word = words.get(timeout=_MOMENT)
                except queue.Empty:
                    if not stopping and asked.get(timeout=10):
                        stopping = True
                        worker.stop()
                    continue
                if word["event"] == "end":
                    break
                me.log_event(topic, (task.name, {**word, "worker": me.address}))
        finally:
            worker.kill()
            worker.join()
        outcome = word["outcome"]
        if outcome is not None and (outcome["state"] != "stopped" or stopping):
            return outcome
        if stopping:
            return {"state": "stopped"}
        how = "it was told to stop" if outcome is not None else death(word["code"])
        if attempt < RETRIES:
            me.log_event(topic, (task.name, {"event": "again", "message": how}))
    message = f"{how}, {1 + RETRIES} times"
    write_failure(task.folder, "Died", message)
    return {"state": "failed", "kind": "Died", "message": message}


def _at_once(me: Any) -> int:
    """How many tasks the Dask workers of this machine take at once."""
    facts = me.client.scheduler_info(n_workers=-1)["workers"] if hasattr(me, "client") else {}
    here = Counter({socket.gethostname(): me.state.nthreads})
    for worker in facts.values():
        here[worker.get("host", "")] += worker.get("nthreads", 1)
    return max(here.values())
