"""The processes that train one network together: what a trainer asks of them.

``Ranks`` itself is a training alone: every method does what one process does. ``mpi.MPIRanks`` does
the same with others. A trainer calls these methods in the same order in all processes, which all
hold the same weights and come to the same decisions; rank 0 alone writes, speaks and calls
callbacks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from .evaluate import Evaluation, evaluate
from .interrupt import StopRequest

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import Module

T = TypeVar("T")

# How launchers tell a process how many were started together: Open MPI; MPICH, Intel MPI, Cray;
# MVAPICH. (Slurm's own variables say so of programs without MPI, too.)
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


class Ranks:
    """One process alone.

    Attributes:
        rank: the number of this process. size: how many there are.
    """

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def guard(self) -> AbstractContextManager[None]:
        """What ends the other processes where this one fails."""
        return contextlib.nullcontext()

    def all_or_none(self) -> AbstractContextManager[None]:
        """A piece of work that fails in all processes where it fails in one. Holds no other call
        of these methods."""
        return contextlib.nullcontext()

    def from_first(self, call: Callable[[], T]) -> T:
        """What a function gives in the first process, for all; its exception as well."""
        return call()

    def once_a_host_first(self, call: Callable[[], T]) -> T:
        """What a function gives, called by one process of each host before the others of it: what
        that one downloads is there for them."""
        return call()

    def stop_request(self) -> StopRequest:
        """A new request to stop that all processes follow after the same step."""
        return StopRequest()

    def share_cores(self) -> None:
        """Takes as many threads as fall to this process; does nothing where somebody chose."""

    def check_equal(self, what: str, value: object) -> None:
        """Refuses to begin where a value is not the same in all processes.

        Raises:
            RankError: it is not; the message names a rank.
        """

    def begin_equal(self, *models: Module) -> None:
        """Gives all processes the weights of the first one's models."""

    def check_weights(self, *models: Module) -> None:
        """Checks that all processes hold the same weights to the bit.

        Raises:
            RankError: they do not; the message names the ranks.
        """

    def one_batch(self, images: int, first: int) -> AbstractContextManager[None]:
        """Forward and backward pass of this process's part of a batch: ``images`` from place
        ``first`` on; 0 images: what is computed does not count."""
        return contextlib.nullcontext()

    def add_up(self, loss: float, right: int, images: int) -> tuple[float, int, int]:
        """Mean loss, right ones and number of images of a part -> those of the batch."""
        return loss, right, images

    def add_gradients(self, model: Module) -> None:
        """Puts the sums over all processes in the place of the model's gradients."""

    def first_text(self, text: str | None, last: str = "") -> str | None:
        """The text of the lowest rank that has one; one that equals ``last`` only where no other
        is there."""
        return text

    def evaluate(
        self,
        model: Module,
        dataset: Dataset,
        stop: StopRequest,
        *,
        test_flip: bool,
        on_batch: Callable[[int, int], bool | None],
    ) -> Evaluation:
        """``evaluate``, shared among all; every process gets the whole result."""
        return evaluate(model, dataset, test_flip=test_flip, on_batch=on_batch)

    def describe(self) -> list[str]:
        """A line on how the work is shared, where it is."""
        return []

    def command(self) -> list[str]:
        """What stands before a command line that is run like this."""
        return []


def launched() -> int:
    """How many processes an MPI launcher (``mpirun``, ``mpiexec``, ``srun``) started together with
    this one, as far as the environment says; 1 without one."""
    sizes = [os.environ.get(name, "") for name in _SIZES]
    if "PMIX_RANK" in os.environ:  # srun with PMIx says no more than this
        sizes.append(os.environ.get("SLURM_STEP_NUM_TASKS", ""))
    return max([1, *(int(size) for size in sizes if size.isdecimal())])


def find_ranks(distributed: Any = None) -> Ranks:
    """The processes that train together with this one.

    Args:
        distributed: True: all that MPI knows; False: none; None: all, where an MPI launcher started
            several; or a communicator of mpi4py.

    Raises:
        ModuleNotFoundError: mpi4py is not installed; the message says how to install it.
        RankError: mpi4py knows of fewer processes than were launched.
    """
    if distributed is False or (distributed is None and launched() == 1):
        return Ranks()
    from .mpi import connect

    return connect(None if distributed in (None, True) else distributed)
