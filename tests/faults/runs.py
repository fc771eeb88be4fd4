"""A tiny training whose state is known at every step, for tests of what may go wrong around it."""

from __future__ import annotations

import json
import os
import sys
import traceback
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from training import tiny

import attnnet
from attnnet.data import Dataset
from attnnet.training import Callback, History, Trainer, keeping
from attnnet.training import checkpoint as checkpoints
from attnnet.training.checkpoint import Checkpoint

EVERY = 2  # steps between checkpoints
RECIPE = tiny.recipe(epochs=3, limit_train=None, limit_test=None)  # 7 steps an epoch
_TIMES = ("seconds", "images_per_second")


@cache
def images() -> tuple[Dataset, Dataset]:
    """A hundred training images and sixty test images of `shapes`."""
    return attnnet.data.load("shapes", train_count=100, test_count=60)


def trainer(folder: Path | bool, *callbacks: Callback, **options: object) -> Trainer:
    """A trainer in a folder: a new one, or one that goes on where the folder has a checkpoint."""
    given = {"callbacks": callbacks, "progress": False, "data": images(), "checkpoint_every": EVERY}
    if folder and (Path(folder) / "last.safetensors").exists():
        return Trainer.resume(folder, **(given | options))
    return Trainer(RECIPE, folder, **(given | options))


def state(checkpoint: Checkpoint) -> str:
    """A checksum of all that a checkpoint holds but times, and what it says of the best epoch."""
    meta = json.loads(json.dumps(checkpoint.meta))
    for part in (meta["position"], meta["position"]["sums"], *meta["history"]):
        for key in _TIMES:
            part.pop(key, None)
    for key in ("format", "version"):
        meta.pop(key, None)
    meta["position"].pop("best")
    crc = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    arrays = {**checkpoint.weights, **{f"o/{k}": v for k, v in checkpoint.optimizer.items()}}
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(name.encode() + np.ascontiguousarray(array).tobytes(), crc)
    return f"{crc:08x}"


def place(checkpoint: Checkpoint) -> str:
    """Where a training stood."""
    position = checkpoint.meta["position"]
    return f"{position['epoch']}/{position['batch']}"


class Diary(Callback):
    """Notes the state after every step and epoch, as a checkpoint would hold it."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.bests: dict[str, list] = {}

    def note(self, trainer: Trainer) -> None:
        trainer.position.random = attnnet.get_rng_state()
        now = keeping.capture(trainer)
        self.states[place(now)] = state(now)
        best = trainer.position.best
        self.bests[place(now)] = [best.epoch, best.top1]

    def on_batch_end(self, trainer: Trainer, result: object) -> None:
        self.note(trainer)

    def on_epoch_end(self, trainer: Trainer, row: object) -> None:
        self.note(trainer)


def rows(history: History) -> list[dict]:
    """The rows of a history without times."""
    return [{k: v for k, v in row.items() if k not in _TIMES} for row in history]


def straight() -> dict:
    """What an undisturbed training goes through and ends with."""
    diary = Diary()
    one = trainer(False, diary)
    history = one.fit()
    return {"states": diary.states, "bests": diary.bests, "rows": rows(history),
            "best": crc_of(one.best_weights)}  # fmt: skip


def crc_of(weights: dict[str, np.ndarray]) -> str:
    crc = 0
    for name in sorted(weights):
        crc = zlib.crc32(weights[name].tobytes(), crc)
    return f"{crc:08x}"


def check(folder: Path, expected: dict) -> str:
    """Looks at what a training left behind, however it ended; says where it stands.

    Raises:
        AssertionError: a checkpoint that does not load, or is not what the undisturbed training
            was at the same place.
    """
    if not (folder / "last.safetensors").exists():
        return "nothing yet"
    last = checkpoints.load(folder)
    where, best = place(last), last.meta["position"]["best"]
    assert state(last) == expected["states"][where], f"another state at {where}"
    # One that died between the two renames looks for the best anew, and finds the same.
    assert [best["epoch"], best["top1"]] in (expected["bests"][where], [0, -1.0])
    if best["epoch"]:
        checkpoints.load(folder / "best.safetensors")
    return where


def check_end(folder: Path, expected: dict) -> None:
    """``check`` for a training that ran to its end."""
    assert check(folder, expected) == f"{RECIPE.epochs}/0"
    assert crc_of(checkpoints.load(folder / "best.safetensors").weights) == expected["best"]
    assert rows(History.from_json(folder / "history.json")) == expected["rows"]
    assert not [n for n in os.listdir(folder) if n.endswith((".tmp", ".twin", ".lock"))]


def forked(job: Callable[[], object]) -> int:
    """Starts a job in a child; the child ends with 0, or with 3 and the error on stderr."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def answer_of(job: Callable[[], object]) -> object:
    """What a job in a child gave back, so that no thread of the core starts in this process."""
    read, write = os.pipe()

    def send() -> None:
        with os.fdopen(write, "w") as out:
            json.dump(job(), out)

    pid = forked(send)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    _, code = os.waitpid(pid, 0)
    assert code == 0, "the job failed"
    return json.loads(text)
