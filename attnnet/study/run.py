"""``run``: what a study's folder still lacks."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config import get_num_threads
from ..errors import check_whole
from ..markup import table
from ..training.interrupt import StopRequest
from ..training.progress import check_progress
from ..training.recipe import Recipe
from ..training.setup import load_data
from .board import Board
from .execute import Task
from .folder import State, StudyFolder
from .plan import Plan, Run
from .runner import Pool, run_here, usual_workers


@dataclass
class Progress:
    """How far a study is.

    Attributes:
        folder: of the study. states: each run's name and where it stands.
        interrupted: somebody stopped it.
        signal: the signal that did; None: none.
    """

    folder: str
    states: dict[str, State]
    interrupted: bool = False
    signal: signal.Signals | None = None

    def count(self, kind: str) -> int:
        """How many runs are "waiting", "begun", "done" or "failed"."""
        return sum(state.kind == kind for state in self.states.values())

    def __str__(self) -> str:
        lines = [f"{self.count('done')} of {len(self.states)} runs done"]
        for name, state in self.states.items():
            if state.kind == "failed":
                lines.append(f"failed: {name}: {state.message}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [(name, state.kind, state.message) for name, state in self.states.items()]
        return table(("run", "state", ""), rows)


def run(
    plan: Plan,
    folder: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    *,
    threads: int | None = None,
    data: str | os.PathLike[str] | None = None,
    scheduler: str | None = None,
    progress: bool | str = True,
    command: str | None = None,
) -> Progress:
    """Does what a study's folder still lacks: what is done is skipped, what was begun goes on to
    the bit, what failed is tried again unless it must fail again (a NaN loss).

    Args:
        plan: the study. A plan that only adds to the one that the folder holds is taken.
        folder: of the study; default: ``studies/NAME``.
        workers: runs at once, each in a process of its own; default: one a core, as far as memory
            goes. 0: one after another in this very process, which blocks that are registered here
            alone need (others: ``imports`` in the plan).
        threads: that all runs have together; default: as many as ``attnnet.get_num_threads()``. On
            a cluster: that each run has; default: the cores of its machine over the runs there.
        data: the folder of the data sets' files, as for ``Trainer``; default: where they were when
            the study began.
        scheduler: the address of a Dask scheduler, whose workers take the runs; the folder must be
            on a file system that they share. Needs distributed (``attnnet[cluster]``).
        progress: True: a table where there is room for one; "lines"; False: silent.
        command: what to book as the command; default: a call of this function.

    Returns:
        How far the study is. Ctrl-C and SIGTERM end it in order: every run writes a checkpoint.

    Raises:
        CheckpointError: another study works in the folder, or it holds another study.
        DataError: the images of a data set are missing or damaged.
        ValueError: a wrong number of workers or threads, workers on a cluster, or no such
            ``progress``.
        ModuleNotFoundError, OSError: no distributed, no scheduler at the address.
    """
    for name, value, least in (("workers", workers, 0), ("threads", threads, 1)):
        if value is not None:
            check_whole(name, value, least)
    check_progress(progress)
    if scheduler is not None and workers is not None:
        raise ValueError(
            f"workers is {workers} and scheduler {scheduler!r}; expected one of them: workers are "
            "of this machine, a scheduler has its own."
        )
    path = os.path.join("studies", plan.name) if folder is None else os.fspath(folder)
    home = StudyFolder(path)
    given = None if data is None else os.path.abspath(data)
    before = home.open(plan)
    try:
        where = given or before
        states = {run.name: home.state(run) for run in plan.runs}
        todo = [run for run in plan.runs if not _settled(states[run.name])]
        check_data(todo, where)
        home.book(plan, command or f"attnnet.study.run(plan, {path!r})", where)
        board = Board(plan.name, states, progress)
        tasks = [task_of(home, plan, run, where) for run in todo]
        with StopRequest() as stop:
            if scheduler is not None:
                finished = _on_cluster(scheduler, tasks, board, path, threads)
            elif workers == 0:
                here = [replace(task, threads=threads or 0) for task in tasks]
                finished = run_here(here, board.event)
            else:
                slots = workers or usual_workers(len(tasks))
                finished = Pool(tasks, board.event, slots, threads or get_num_threads()).run()
        board.draw(force=True)
        states = {run.name: home.state(run) for run in plan.runs}
        for name, message in board.failures().items():
            if states[name].kind not in ("done", "failed"):  # the disk had no room to book it
                states[name] = State("failed", message)
        return Progress(path, states, not finished, stop.signal)
    finally:
        home.close()


def _on_cluster(
    address: str, tasks: list[Task], board: Board, folder: str, threads: int | None
) -> bool:
    from .cluster import Cluster, connect

    with connect(address) as client:
        cluster = Cluster(tasks, board.event, client, threads)
        cluster.check(folder)
        return cluster.run()


def _settled(state: State) -> bool:
    return state.kind == "done" or (state.kind == "failed" and state.final)


def task_of(home: StudyFolder, plan: Plan, run: Run, data: str | None) -> Task:
    """What a worker needs to know of a run."""
    return Task(
        run.name, os.path.abspath(home.of(run)), run.recipe.to_dict(), data, tuple(plan.imports)
    )


def check_data(runs: Sequence[Run], data: str | None) -> None:
    """Loads each data set as each recipe wants it, once, before several processes do: it may have
    to be downloaded, and a recipe may want more of it than there is.

    Raises:
        DataError: the images are missing or damaged. ValueError: an option that does not fit.
    """
    seen: list[Recipe] = []
    for run in runs:
        of_all = run.recipe.replace(arch="resnet18", block=None, seed=0)
        if of_all not in seen:
            load_data(of_all, data)
            seen.append(of_all)
