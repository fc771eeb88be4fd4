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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import cores
from ..errors import CheckpointError
from ..training.interrupt import StopRequest
from ..training.recipe import Recipe
from .execute import Task, failed
from .folder import STUDY, read_done
from .runner import RETRIES, Event
from .worker import Worker, ending

if TYPE_CHECKING:
    from distributed import Client, Future, Variable

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
        self._futures: dict[str, Future] = {}  # of the runs that have not ended
        self._started: set[str] = set()
        self._missing: set[str] = set()  # of those, which no worker had at the last look

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
        for task in self._tasks:
            self._submit(task, threads)
        try:
            with StopRequest() as stop:
                stopping, began, beat = False, time.monotonic(), 0
                while self._futures:
                    now = int((time.monotonic() - began) // _BEAT)
                    is_next, beat = now > beat, now
                    if is_next:
                        self._look_for_lost()
                    if stop.requested and not stopping:
                        stopping = True
                        _set(word, "stop")
                    elif is_next and not stopping:
                        _set(word, f"go {beat}")
                    if stopping:  # what no worker has begun, or only one that is gone
                        self._cancel(self._started)
                    self._drain()
                    self._gather(stopping, threads)
                return not stop.requested
        except CommClosedError:
            raise ConnectionError(
                "the Dask scheduler is gone or has dropped the study; the runs stop in order: go "
                "on with another scheduler, or without one."
            ) from None
        finally:
            with contextlib.suppress(CommClosedError):
                _set(word, "stop")
                self._cancel(set())
                self._client.unsubscribe_topic(self._topic)

    def _submit(self, task: Task, threads: dict[str, int]) -> None:
        self._futures[task.name] = self._client.submit(
            do, task.to_dict(), self._topic, self._threads, threads,
            key=f"{task.name}-{uuid.uuid4().hex}", pure=False,
        )  # fmt: skip

    def _cancel(self, spared: set[str]) -> None:
        """Takes back all runs but these."""
        futures = [
            future for name, future in self._futures.items()
            if name not in spared and not future.done()
        ]  # fmt: skip
        if futures:
            self._client.cancel(futures)

    def _look_for_lost(self) -> None:
        """Sees which runs have been begun by workers that are gone; those that no worker has at two
        looks, as one that has just ended may be unheard of yet.

        Raises:
            CommClosedError: the scheduler does not answer.
        """
        if not self._started:
            return
        with _answering():
            at_work = {key for keys in self._client.processing().values() for key in keys}
        missing = {
            name for name in self._started
            if self._futures[name].key not in at_work and not self._futures[name].done()
        }  # fmt: skip
        for task in self._tasks:
            if task.name not in missing & self._missing:
                continue
            if read_done(task.folder, Recipe.from_dict(task.recipe)) is not None:
                self._end(task.name, {"state": "done"})
            else:
                self._again(task.name, "its worker is gone")
        self._missing = missing & self._started

    def _again(self, name: str, why: str) -> None:
        self._started.discard(name)
        self._event(name, {"event": "again", "message": why})

    def _end(self, name: str, outcome: dict[str, Any]) -> None:
        self._started.discard(name)
        self._futures.pop(name).release()  # or Dask does it anew where the result's worker dies
        self._event(name, {"event": "end", "outcome": outcome})

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
        if name not in self._futures:  # it has ended
            return
        if word["event"] == "start":
            self._started.add(name)
        self._event(name, word)

    def _gather(self, stopping: bool, threads: dict[str, int]) -> None:
        """Sees to the runs that have just ended."""
        for task in self._tasks:
            outcome = self._outcome(task, stopping)
            if outcome is None:
                continue
            if outcome["state"] == "stopped" and not stopping:
                self._again(task.name, "the study was silent for too long")
                self._submit(task, threads)
            else:
                self._end(task.name, outcome)

    def _outcome(self, task: Task, stopping: bool) -> dict[str, Any] | None:
        """That of a run which has just ended; None of any other.

        Raises:
            CommClosedError: the scheduler has dropped it.
        """
        from distributed import TimeoutError
        from distributed.comm import CommClosedError

        future = self._futures.get(task.name)
        if future is None or not future.done():
            return None
        if future.status == "finished":
            try:
                return future.result(timeout=_ANSWER)
            except TimeoutError:  # the worker that has it is gone: another one will find it done
                return None
        if stopping:
            return {"state": "stopped"}
        if future.cancelled():
            raise CommClosedError  # nobody here has cancelled it
        error = future.exception()  # the workers that took it died, or no process could be made
        return failed(task, type(error).__name__, " ".join(str(error).split()))


def _set(word: Variable, text: str) -> None:
    """Tells the tasks to go on or to stop.

    Raises:
        CommClosedError: the scheduler does not answer.
    """
    with _answering():
        word.set(text)


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """Turns all that Dask raises where nobody answers into one error.

    Raises:
        CommClosedError: the scheduler does not answer.
    """
    from distributed.comm import CommClosedError

    try:
        yield
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
    task = replace(Task.from_dict(fields), threads=share)
    study = _Study(topic)
    for deaths in range(1, 2 + RETRIES):
        outcome, how = _one_process(task, study, me, topic)
        if outcome is not None:
            return outcome
        if deaths <= RETRIES:
            me.log_event(topic, (task.name, {"event": "again", "message": how}))
    return failed(task, "Died", f"{how}, {deaths} times")


def _threads_of_machine() -> int:
    """What a worker's tasks share. ``OMP_NUM_THREADS`` does not count here: Dask sets it to 1 for
    libraries that know nothing of one another."""
    return cores.own() or cores.free()


def _one_process(
    task: Task, study: _Study, me: Any, topic: str
) -> tuple[dict[str, Any] | None, str]:
    """The run in a process: its outcome, or None and how the process died."""
    words: queue.Queue[dict[str, Any]] = queue.Queue()
    worker = Worker(task, words.put)
    stopping = False
    try:
        while True:
            if not stopping and study.stopped:
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
    return ending(word, stopping)


class _Study:
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
