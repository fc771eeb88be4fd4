"""Data-parallel training through MPI: every process computes a part of each batch.

The sum over the processes is the gradient of the whole batch; batch norms take their statistics
from the whole batch, and dropout its mask (``csrc/base/peers.h``). So the weights after a step are
those of one process with that batch, up to the order in which floats are added, and in all
processes the same to the bit. All sums are added here, in the order of ranks: what an MPI library
does inside a reduction cannot change them.

P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import signal
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import _core, cores
from ..errors import CheckpointError, DataError, NaNLossError, RankError
from ..extras import need
from .evaluate import Evaluation, EvaluationStopped, logits_of, score
from .interrupt import StopRequest
from .ranks import Ranks, launched

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import Module

T = TypeVar("T")

EVALUATION_BATCH = 256
_BLOCK = 1 << 15  # floats that are added up in double at once: they stay in the cache


def connect(comm: Any = None) -> Ranks:
    """The processes of a communicator; None: of all that were started together.

    Raises:
        ModuleNotFoundError, RankError: see ``find_ranks``.
    """
    MPI = need("mpi4py.MPI")
    if comm is None:
        wanted, seen = launched(), MPI.COMM_WORLD.Get_size()
        if seen < wanted:
            library = MPI.Get_library_version().partition("\n")[0].strip(" \0")
            raise RankError(
                f"{wanted} processes were started together, but mpi4py sees {seen}: "
                f"its MPI library ({library}) is not the launcher's. Use the mpiexec of that "
                "library, or an mpi4py for the launcher's."
            )
        return _everyone(MPI)
    return Ranks() if comm.Get_size() == 1 else MPIRanks(comm.Dup(), MPI)


@functools.cache  # MPI has communicators for hundreds of trainings, not for any number
def _everyone(MPI: Any) -> Ranks:
    return MPIRanks(MPI.COMM_WORLD.Dup(), MPI) if MPI.COMM_WORLD.Get_size() > 1 else Ranks()


class MPIRanks(Ranks):
    """The processes of a communicator with at least two; methods as in ``Ranks``.

    Args:
        comm: only used here. MPI: the module ``mpi4py.MPI``.
    """

    def __init__(self, comm: Any, MPI: Any) -> None:
        self._comm, self._MPI = comm, MPI
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self._host_name = MPI.Get_processor_name()
        self._host = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self._host_count = sum(comm.allgather(self._host.Get_rank() == 0))
        self._agreed: BaseException | None = None  # an error that all processes raise
        self._buffers: tuple[np.ndarray, ...] = ()

    # Errors.

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # A NaN is found in the sums of all, so that all raise this.
            if error is self._agreed or isinstance(error, (NaNLossError, GeneratorExit)):
                raise
            self._abort(error)

    def _abort(self, error: BaseException) -> None:
        """Says what happened and ends all processes: they would wait for this one for ever."""
        if not isinstance(error, (CheckpointError, DataError, MemoryError, KeyboardInterrupt)):
            traceback.print_exception(error)
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        print(f"attnnet: error: {self._name(self.rank)} failed, which ends all {self.size} "
              f"processes: {what}", file=sys.stderr, flush=True)  # fmt: skip
        sys.stdout.flush()
        time.sleep(0.5)  # the launcher forwards what was written before it ends us
        self._comm.Abort(130 if isinstance(error, KeyboardInterrupt) else 1)

    def _name(self, rank: int) -> str:
        text = f"rank {rank} of {self.size}"
        return f"{text} (on {self._host_name})" if rank == self.rank else text

    @contextlib.contextmanager
    def all_or_none(self) -> Iterator[None]:
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        told = None if failed is None else (type(failed), str(failed))
        self._raise_any(failed, self._comm.allgather(told))

    def _raise_any(self, own: Exception | None, told: list[Any]) -> None:
        """Raises this process's error, or that of the first that has one."""
        rank = next((rank for rank, error in enumerate(told) if error is not None), None)
        if rank is None:
            return
        error = own
        if error is None:
            kind, text = told[rank]
            # Of others' errors only those are made anew that are sure to take one text.
            known = (CheckpointError, DataError, ValueError, ModuleNotFoundError)
            error = (kind if kind in known else RankError)(f"{self._name(rank)}: {text}")
        self._agreed = error
        raise error

    def from_first(self, call: Callable[[], T]) -> T:
        result, failed = None, None
        if self.is_first:
            try:
                result = call()
            except Exception as error:
                failed = error
        told = None if failed is None else (type(failed), str(failed))
        result, told = self._comm.bcast((result, told))
        self._raise_any(failed, [told])
        return result

    def once_a_host_first(self, call: Callable[[], T]) -> T:
        result: list[T] = []
        for turn in (True, False):
            with self.all_or_none():
                if (self._host.Get_rank() == 0) == turn:
                    result.append(call())
        return result[0]

    # Agreement.

    def stop_request(self) -> StopRequest:
        return SharedStop(self._comm)

    def check_equal(self, what: str, value: object) -> None:
        everyone = self._comm.allgather(value)
        for rank, other in enumerate(everyone):
            if other != everyone[0]:
                self._agreed = RankError(
                    f"{what} of rank {rank} differs from that of rank 0 ({other}; there "
                    f"{everyone[0]}). Processes that a launcher starts together train one network "
                    "together; distributed=False lets each train its own."
                )
                raise self._agreed

    def begin_equal(self, *models: Module) -> None:
        for model in models:
            weights = self._comm.bcast(model.state_dict(copy=False) if self.is_first else None)
            if not self.is_first:
                model.load_state_dict(weights)

    def check_weights(self, *models: Module) -> None:
        crc = 0
        for array in (array for m in models for array in m.state_dict(copy=False).values()):
            crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, crc)
        everyone = self._comm.allgather(crc)
        others = [str(rank) for rank, theirs in enumerate(everyone) if theirs != everyone[0]]
        if others:
            self._agreed = RankError(
                f"the weights of rank {', '.join(others)} are no longer those of rank 0: something "
                "in that process changed them, or its machine computes differently."
            )
            raise self._agreed

    def first_text(self, text: str | None, last: str = "") -> str | None:
        texts = [told for told in self._comm.allgather(text) if told is not None]
        return min(texts, key=lambda told: told == last, default=None)

    # Cores.

    def share_cores(self) -> None:
        from .. import get_num_threads, set_num_threads

        mine = cores.affinity()
        users = Counter(core for theirs in self._host.allgather(mine) for core in theirs)
        # Launchers may have given each process cores of its own, or leave all to all.
        share = min(
            sum(1 / users[core] for core in mine), (cores.quota() or math.inf) / self._host.size
        )
        if cores.chosen() is None and get_num_threads() == cores.free():
            set_num_threads(min(cores.MOST_THREADS, max(1, int(share + 1e-6))))

    def describe(self) -> list[str]:
        from .. import get_num_threads

        where = "" if self._host_count == 1 else f" on {self._host_count} hosts"
        return [f"{self.size} processes{where}, {get_num_threads()} threads in this one"]

    def command(self) -> list[str]:
        return ["mpiexec", "-n", str(self.size)]

    # Steps.

    @contextlib.contextmanager
    def one_batch(self, images: int, first: int) -> Iterator[None]:
        _core.set_peers(self._gather, self.size, images, first)
        try:
            yield
        finally:
            _core.set_peers(None, 1, 0, 0)

    def _gather(self, own: bytes) -> np.ndarray:
        everyone = np.empty((self.size, len(own) // 8))
        self._comm.Allgather(np.frombuffer(own), everyone)
        return everyone

    def add_up(self, loss: float, right: int, images: int) -> tuple[float, int, int]:
        parts = np.empty((self.size, 3))
        own = np.array([loss * images if images else 0.0, right if images else 0, images])
        self._comm.Allgather(own, parts)
        total = [sum(column) for column in parts.T.tolist()]
        return total[0] / total[2], int(total[1]), int(total[2])

    def add_gradients(self, model: Module) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        count = sum(gradient.numel() for gradient in gradients)
        flat, parts, mine = self._room_for(count)
        at = 0
        for gradient in gradients:
            flat[at : at + gradient.numel()] = gradient.numpy().reshape(-1)
            at += gradient.numel()
        # Each process adds up one piece of the gradient, in double, and gives it to all.
        self._comm.Alltoall(flat, parts)
        for begin in range(0, len(mine), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            mine[block] = parts[:, block].sum(axis=0, dtype=np.float64)
        self._comm.Allgather(mine, flat)
        at = 0
        for gradient in gradients:
            values = flat[at : at + gradient.numel()]
            gradient.copy_(values.reshape(gradient.shape))
            at += gradient.numel()

    def _room_for(self, count: int) -> tuple[np.ndarray, ...]:
        """Buffers for ``count`` floats, cut into a piece a process; kept from step to step."""
        piece = -(-count // self.size)
        if not self._buffers or len(self._buffers[2]) != piece:
            flat = np.zeros(piece * self.size, np.float32)
            parts = np.empty((self.size, piece), np.float32)
            self._buffers = (flat, parts, np.empty(piece, np.float32))
        return self._buffers

    def evaluate(
        self,
        model: Module,
        dataset: Dataset,
        stop: StopRequest,
        *,
        test_flip: bool,
        on_batch: Callable[[int, int], bool | None],
    ) -> Evaluation:
        # In whole batches, so that each image's logits are those of one process to the bit.
        batches = -(-len(dataset.labels) // EVALUATION_BATCH)
        begin, end = (
            min(len(dataset.labels), batches * rank // self.size * EVALUATION_BATCH)
            for rank in (self.rank, self.rank + 1)
        )
        own = None
        if end > begin:
            part = dataclasses.replace(
                dataset, images=dataset.images[begin:end], labels=dataset.labels[begin:end],
                masks=None,
            )  # fmt: skip
            with contextlib.suppress(EvaluationStopped):  # all are told next
                own = logits_of(
                    model, part, EVALUATION_BATCH, test_flip=test_flip, on_batch=on_batch
                )
        stop.agree()
        if stop.requested:
            raise EvaluationStopped
        logits = [part for part in self._comm.allgather(own) if part is not None]
        return score(np.concatenate(logits), dataset.labels, dataset.classes)


class SharedStop(StopRequest):
    """A request that may come to any process and is followed by all after the same step."""

    def __init__(self, comm: Any) -> None:
        super().__init__()
        self._comm = comm
        self._asked = False
        self._own: signal.Signals | None = None

    @property
    def asked(self) -> bool:
        return self._asked

    def _ask(self, number: signal.Signals | None) -> None:
        self._asked = True
        self._own = number or self._own

    def agree(self) -> None:
        told = [answer for answer in self._comm.allgather((self._asked, self._own)) if answer[0]]
        if told:
            self.requested = True
            self.signal = self.signal or next((number for _, number in told if number), None)
