"""The training loop: steps, epochs, checkpoints, interruption and resume."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import signal
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, NaNLossError, check_whole
from ..own import modules_of
from . import behind, keeping
from . import checkpoint as checkpoints
from .callbacks import Callback, CallbackList
from .checkpoint import Checkpoint
from .evaluate import Evaluation, EvaluationStopped
from .folder import LAST, RunFolder
from .history import History
from .interrupt import StopRequest
from .progress import BarAndLines, check_progress, in_notebook
from .ranks import Ranks, find_ranks
from .recipe import Recipe
from .schedule import LearningRates, make_average, make_optimizer
from .setup import TrainingData, check_sizes, describe, load_data, make_model
from .state import EpochSums, Position, fingerprint
from .step import train_step

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import Module
    from ..optim import AveragedModel


class Trainer:
    """Trains the network of a recipe; can be stopped and resumed anywhere, bit for bit.

    Args:
        recipe: what to train; None: the preset ``shapes``. A copy is kept.
        output: the folder for checkpoints, history and picture; None: a new one under ``runs/``;
            False: nothing is written.
        callbacks: objects of classes that inherit from ``Callback``.
        progress: True: a bar where there is room for one, and a line an epoch; ``"lines"``: the
            lines alone; False: silent.
        data: the folder of the data set's files, or a pair (training, test) of ``Dataset``; None:
            the variable ``ATTNNET_DATA``, a cache folder, a download.
        model: a network of your own instead of the recipe's.
        overwrite: begin anew in a folder that holds a training already.
        checkpoint_every: write a checkpoint each so many steps, too; None: once an epoch.
        distributed: whether the processes that an MPI launcher started together train this
            network together, each on its part of every batch; None: where one started several.
            Or a communicator of mpi4py. Then all must make the same trainer and call the same
            methods of it; rank 0 alone writes, shows progress and calls ``callbacks``.

    Attributes:
        model, optimizer: after ``prepare`` or ``fit``.
        average: the ``AveragedModel`` where the recipe averages the weights, else None.
        history: the rows so far.
        stop_signal: the signal that ended the last ``fit``; None: none did.
        folder: the folder written to, or None.
        ranks: the processes of this training.

    Raises:
        ValueError: a name in the recipe does not exist, or ``progress`` or ``checkpoint_every``
            is none of its values.
        TypeError: an object among ``callbacks`` is no ``Callback``.
        CheckpointError: ``output`` holds a training already.
        ModuleNotFoundError: several processes were started, and mpi4py is not installed.
        RankError: they do not find each other.

    Example:
        >>> history = attnnet.Trainer(attnnet.Recipe.preset("shapes")).fit()
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        output: str | os.PathLike[str] | bool | None = None,
        callbacks: Iterable[Callback] = (),
        progress: bool | str = True,
        *,
        data: str | os.PathLike[str] | tuple[Dataset, Dataset] | None = None,
        model: Module | None = None,
        overwrite: bool = False,
        checkpoint_every: int | None = None,
        distributed: Any = None,
    ) -> None:
        self.ranks = find_ranks(distributed)
        self.recipe = Recipe.preset("shapes") if recipe is None else recipe.replace()
        self._was_given = {"model": model is not None, "data": isinstance(data, (tuple, list))}
        if self._was_given["data"]:
            self.recipe.dataset = data[0].name
        with self.ranks.all_or_none():
            self.recipe.check_names(self._was_given["data"], self._was_given["model"])
        if checkpoint_every is not None:
            check_whole("checkpoint_every", checkpoint_every, 1)
        check_progress(progress)
        shown = [BarAndLines(bar=progress != "lines")] if progress else []
        self.callbacks = CallbackList([*shown, *callbacks] if self.ranks.is_first else [])
        self.model = model
        self.optimizer: Any = None
        self.average: AveragedModel | None = None
        self.rates: Any = None
        self.history = History()
        self.source = data
        self._data: TrainingData | None = None
        self._every = checkpoint_every
        self.position = Position()
        self.resumed_from: Checkpoint | None = None
        self.stop_request = StopRequest()
        self.stop_signal: signal.Signals | None = None
        self.best_evaluation: Evaluation | None = None
        self.best_weights: dict[str, np.ndarray] | None = None  # only where no file holds them
        self._paces: list[float] = []  # seconds a pixel of each epoch of this process
        self._torn = False
        self.owed: bool | None = None  # a checkpoint that could not be written; True: of the best
        self.run_folder: RunFolder | None = None
        with self.ranks.all_or_none():
            if output is not False and self.ranks.is_first:
                path = None if output in (None, True) else os.fspath(output)
                self.run_folder = RunFolder(path, self.recipe.name, anew=overwrite)
        self.ranks.share_cores()
        self.best_from = self.folder  # where the best checkpoint so far is

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        output: str | os.PathLike[str] | bool | None = None,
        callbacks: Iterable[Callback] = (),
        progress: bool | str = True,
        *,
        data: str | os.PathLike[str] | tuple[Dataset, Dataset] | None = None,
        model: Module | None = None,
        overwrite: bool = False,
        epochs: int | None = None,
        checkpoint_every: int | None = None,
        distributed: Any = None,
    ) -> Trainer:
        """A trainer that goes on exactly where a checkpoint was written; then call ``fit``.

        Args:
            path: a checkpoint, or a training's folder (its last checkpoint).
            output: None: the same folder when going on from its last checkpoint, else a new one.
            epochs: another number of epochs; the schedule follows it unless the recipe fixes
                ``schedule_epochs``. None: as before.
            callbacks, progress, data, model, checkpoint_every, distributed: see ``Trainer``. It
                need not be as many processes as before.
            overwrite: whether to write over another training that ``output`` holds.

        Raises:
            CheckpointError: missing, corrupt, or without the state of a training; or ``output``
                holds another training.
            ValueError: a block or model of your own is not registered.
        """
        checkpoint = find_ranks(distributed).from_first(lambda: checkpoints.load(path))
        if "position" not in checkpoint.meta:
            raise CheckpointError(f"{checkpoint.path}: holds a model, but no training to resume.")
        try:
            recipe = Recipe.from_dict(checkpoint.meta.get("recipe"))
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.path}: corrupt metadata: {error}") from None
        if epochs is not None:
            recipe = recipe.replace(epochs=epochs)
        folder, name = os.path.split(checkpoint.path)
        if output is None and name == LAST:
            output = folder or "."
        own = isinstance(output, (str, os.PathLike)) and \
            os.path.realpath(output) == os.path.realpath(folder)  # fmt: skip
        trainer = cls(
            recipe, output, callbacks, progress,
            data=data, model=model, overwrite=overwrite or own, checkpoint_every=checkpoint_every,
            distributed=distributed,
        )  # fmt: skip
        trainer.resumed_from = checkpoint
        trainer.best_from = folder
        if trainer.run_folder is not None:
            trainer.run_folder.ours = own
        return trainer

    # What callbacks may ask.

    @property
    def folder(self) -> str | None:
        """The folder that files are written to; None: none are."""
        return self.run_folder.path if self.run_folder else None

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.position.epoch

    @property
    def batch(self) -> int:
        """Steps done in the running epoch."""
        return self.position.batch

    @property
    def data(self) -> TrainingData:
        """The images in use; loaded by ``prepare``."""
        if self._data is None:
            self.prepare()
        return self._data

    @property
    def evaluated(self) -> Module:
        """The model that is evaluated and kept: that of the averaged weights, else ``model``."""
        return self.model if self.average is None else self.average.module

    def _models(self) -> list[Module]:
        """The models whose weights a step changes."""
        return [self.model] if self.average is None else [self.model, self.average.module]

    @property
    def train_images(self) -> int:
        """How many images an epoch trains on."""
        return len(self.data.train.labels)

    def stop(self) -> None:
        """Asks a running ``fit`` to end in order after the step; from any thread or callback."""
        self.stop_request.request()

    def remaining_seconds(self) -> float | None:
        """An estimate of the time to the last epoch; None before the first epoch has ended."""
        if not self._paces:
            return None
        recent = self._paces[-5:]
        pixels = sum(self._pixels(epoch) for epoch in range(self.epoch, self._end))
        return sum(recent) / len(recent) * pixels

    def _pixels(self, epoch: int) -> int:
        """Of a training image in an epoch: what the epoch's time is about proportional to."""
        return math.prod(self.data.loader.image_size(epoch))

    def describe(self) -> list[str]:
        """What is trained on what, in a few lines."""
        lines = describe(self.recipe, self.data, self.model, self.folder, self.position)
        return lines + self.ranks.describe()

    def say(self, text: str) -> None:
        """Shows one line through the callbacks."""
        self.callbacks.on_message(self, text)

    # The loop.

    def prepare(self) -> None:
        """Loads the data, makes model and optimiser, and restores a checkpoint; ``fit`` calls it.

        Raises:
            DataError: the data are missing or damaged.
            CheckpointError: the checkpoint does not fit the data or the model.
            ValueError: the model takes no images of the recipe's ``train_sizes``.
        """
        if self.optimizer is not None:
            return
        from .. import get_rng_state, manual_seed

        self.ranks.check_equal("the recipe", self.recipe.to_dict())
        if self._data is None:
            share = (self.ranks.rank, self.ranks.size)
            self._data = self.ranks.once_a_host_first(
                lambda: load_data(self.recipe, self.source, share)
            )
        self.ranks.check_equal("the training data", fingerprint(self._data.train))
        with self.ranks.all_or_none():
            manual_seed(self.recipe.seed)
            if self.model is None and self.resumed_from is not None:
                self.model = checkpoints.build_model(self.resumed_from)
            elif self.model is None:
                self.model = make_model(self.recipe, self._data.train)
            check_sizes(self.recipe, self.model, *self._data.train.images.shape[1:])
            self.model.class_names = list(self._data.train.classes)
            self.model.normalization = (self._data.train.mean, self._data.train.std)
            optimizer = make_optimizer(self.recipe, self.model)
            self.rates = LearningRates(self.recipe, optimizer, len(self._data.loader))
            self.average = make_average(self.recipe, self.model)
            self.position.random = get_rng_state()
            self._end = self.recipe.epochs
            if self.resumed_from is not None:
                keeping.restore(self, self.resumed_from, optimizer)
        self.ranks.begin_equal(*self._models())
        self.optimizer = optimizer

    def fit(self, stop_after: int | None = None) -> History:
        """Trains to the recipe's last epoch, or goes on to it after an interruption.

        Ctrl-C and SIGTERM end the running step, write a checkpoint and return; a second Ctrl-C
        raises ``KeyboardInterrupt`` at once. Where one comes while the last files are written, they
        are, and the history is ``interrupted`` all the same, so that a loop over trainings stops.

        Args:
            stop_after: stop when this many epochs are done, counted from the first one; the
                schedule still spans the recipe's epochs. None: do not stop early.

        Returns:
            The history; ``interrupted`` is True where somebody stopped it.

        Raises:
            ValueError: ``stop_after`` is no whole number of at least 1.
            NaNLossError: a loss or gradient was not finite and the recipe says to stop then.
            CheckpointError: another training uses the folder, writing failed, or an earlier
                ``fit`` was broken off in the middle of a step.
            DataError: the data are missing or damaged.
        """
        from .. import set_rng_state

        if stop_after is not None:
            check_whole("fit: stop_after", stop_after, 1)
        if self._torn:
            raise CheckpointError(
                "the last fit was broken off in the middle of a step, so that what is in memory "
                f"is not whole; go on from the last checkpoint: {self.resume_hint(fresh=True)}"
            )
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.ranks.guard())
            with self.ranks.all_or_none():
                if self.run_folder is not None:
                    self.run_folder.open()
                    stack.callback(behind.when_written, self.run_folder.path, self.run_folder.close)
            self.prepare()
            self._end = min(self.recipe.epochs, stop_after or self.recipe.epochs)
            self.position.best = self.ranks.from_first(lambda: keeping.begin(self))
            set_rng_state(self.position.random)
            self.history.summary = {}
            self.stop_signal = None
            stack.callback(self._forget_request)
            self.stop_request = stack.enter_context(self.ranks.stop_request())
            try:
                self._run()
            except BaseException:
                self.history.interrupted = True
                with contextlib.suppress(Exception):  # the first error is the one to show
                    self.callbacks.on_train_end(self, self.history)
                raise
            self.callbacks.on_train_end(self, self.history)
        return self.history

    def _run(self) -> None:
        """The epochs, and what follows them."""
        from .finish import finish

        self.callbacks.on_train_begin(self)
        while self.epoch < self._end and not self.stop_request.requested:
            self._train_epoch()
        self.history.interrupted = self.stop_request.requested and self.epoch < self._end
        if self.history.interrupted:
            keeping.save_interrupted(self)
        finish(self)
        self.stop_request.agree()
        if self.stop_request.signal is not None:  # one that came too late to stop anything here
            self.history.interrupted = True

    def _forget_request(self) -> None:
        """A request that has ended ``fit`` is not to end an evaluation that follows."""
        self.stop_signal, self.stop_request = self.stop_request.signal, StopRequest()

    def _train_epoch(self) -> None:
        """Trains the rest of the running epoch and evaluates it, unless asked to stop before."""
        from .. import get_rng_state

        self.callbacks.on_epoch_begin(self, self.epoch)
        steps = self.data.loader.epoch(self.epoch, start=self.batch)
        with contextlib.closing(steps):
            self.model.train()
            while self.batch < len(self.data.loader):
                self.stop_request.agree()
                if self.stop_request.requested:
                    return
                began = time.perf_counter()
                batch = next(steps)
                with self._whole():
                    result = train_step(self, batch)
                    self.position.batch += 1
                    self.position.random = get_rng_state()
                self.position.sums.seconds += time.perf_counter() - began
                self.callbacks.on_batch_end(self, result)
                if self._every and self.batch % self._every == 0:
                    keeping.save(self)
        try:
            began = time.perf_counter()
            evaluation = self.evaluate(self.data.chooser, together=True)
            seconds = time.perf_counter() - began
        except EvaluationStopped:
            return
        self.ranks.check_weights(*self._models())
        self._end_epoch(evaluation, seconds)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """What must happen as a whole or not at all, or else ``fit`` cannot go on in memory."""
        self._torn = True
        try:
            yield
        except NaNLossError:  # raised when all is as before the step
            self._torn = False
            raise
        self._torn = False

    def evaluate(self, dataset: Dataset, together: bool = False) -> Evaluation:
        """Evaluates ``evaluated`` as it is now; a request to stop raises ``EvaluationStopped``.

        Args:
            together: all processes of this training call it, each does a part, and all get the
                whole; else it is of this process alone.
        """

        def on_batch(done: int, total: int) -> bool:
            self.callbacks.on_evaluate(self, done, total)
            return self.stop_request.asked

        ranks = self.ranks if together else Ranks()
        return ranks.evaluate(
            self.evaluated, dataset, self.stop_request,
            test_flip=self.recipe.test_flip, on_batch=on_batch,
        )  # fmt: skip

    def _end_epoch(self, evaluation: Evaluation, seconds: float) -> None:
        """Books an epoch: its row, the best so far, checkpoints and history files."""
        position, sums = self.position, self.position.sums
        split = self.data.split
        row = {
            "epoch": self.epoch + 1,
            "train_loss": sums.mean_loss,
            "train_top1": sums.top1,
            f"{split}_loss": evaluation.loss,
            f"{split}_top1": evaluation.top1,
            "lr": self.rates.set(self.epoch, len(self.data.loader) - 1),
            "images_per_second": sums.images / max(sums.seconds, 1e-9),
            "seconds": sums.seconds + seconds,
            "skipped": sums.skipped,
        }
        improved = evaluation.top1 > position.best.top1
        with self._whole():
            self.history.append(row)
            self._paces.append(row["seconds"] / self._pixels(self.epoch))
            position.seconds += row["seconds"]
            position.epoch, position.batch, position.sums = self.epoch + 1, 0, EpochSums()
            if improved:
                position.best.epoch, position.best.top1 = self.epoch, evaluation.top1
                self.best_evaluation = evaluation
                if self.run_folder is None and self.ranks.is_first:
                    self.best_weights = self.evaluated.state_dict()
        keeping.save(self, improved)
        self.callbacks.on_epoch_end(self, row)

    def resume_hint(self, fresh: bool = False) -> str:
        """How to go on: a command for a terminal, Python for a notebook.

        Args:
            fresh: in a new trainer, as this one cannot.
        """
        if self.folder is None:
            return "begin anew, nothing is on disk" if fresh else "call fit() again"
        own = [] if self.model is None else modules_of(self.model)
        objects = [f", {name}={name}" for name, given in self._was_given.items() if given]
        if in_notebook() or objects or "__main__" in own:  # what no command could name
            again = "fit() again, or " if in_notebook() and not fresh else ""
            return f"{again}attnnet.Trainer.resume({self.folder!r}{''.join(objects)}).fit()"
        command = [*self.ranks.command(), "attnnet", "train", "--resume", self.folder]
        if own:
            command += ["--imports", ",".join(own)]
        if isinstance(self.source, (str, os.PathLike)):
            command += ["--data", os.fspath(self.source)]
        return shlex.join(command)
