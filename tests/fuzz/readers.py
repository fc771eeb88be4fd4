"""Everything in the package that reads a file, as functions of the file's bytes.

Bytes from a fuzzer seldom carry the right checksum, so where a format has one the reader is given
what stands behind it (the pickle of a zip file, the metadata of a checkpoint), and the file around
it is made here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import socket
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from data import mini
from study import small, synthetic
from training import tiny

import attnnet
from attnnet.data import Dataset, cifar, pickle_reader, pictures
from attnnet.errors import CheckpointError, DataError
from attnnet.interop import torch_file
from attnnet.study.folder import write_failure
from attnnet.study.plan import Plan
from attnnet.study.predictions import FILE as PREDICTIONS
from attnnet.study.report import markdown
from attnnet.study.results import Results
from attnnet.study.tables import rows_csv, runs_csv
from attnnet.training import Callback, History, Recipe, Trainer, lock
from attnnet.training import checkpoint as checkpoints
from attnnet.training import history as histories

MIB = 1 << 20
# CIFAR with two images of two classes a file, so that a file is a few kB.
LAYOUT = dataclasses.replace(
    mini.CIFAR10, train=("data_batch_1",), classes=2, per_batch=2, per_test=2
)
MOST_PIXELS = 1 << 20


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        prepare: (bytes, an own folder) -> what ``read`` takes; writes the file.
        read: reads it, and looks at what came out as a user would.
        refusals: the errors that its documentation names.
        base, factor: the most memory: ``base`` MiB and ``factor`` times the input.
        modules: what coverage is measured of.
    """

    prepare: Callable[[bytes, Path], Any]
    read: Callable[[Any], object]
    refusals: tuple[type[Exception], ...]
    modules: tuple[str, ...]
    base: float = 2
    factor: int = 400  # a byte of a pickle or of JSON can make a dict

    def most_memory(self, size: int) -> int:
        return int(self.base * MIB) + self.factor * size


def as_file(name: str) -> Callable[[bytes, Path], Path]:
    """A ``prepare`` that writes the bytes into a file."""

    def prepare(data: bytes, place: Path) -> Path:
        (place / name).write_bytes(data)
        return place / name

    return prepare


# CIFAR

_GOOD = {name: mini.python2_pickle(value) for name, value in mini.contents(LAYOUT).items()}


def cifar_folder(data: bytes, place: Path) -> Path:
    """A folder of CIFAR; the first byte says which of its files the rest is."""
    target = place / LAYOUT.folder
    if not target.exists():
        target.mkdir()
    spoilt = LAYOUT.files[data[0] % 3] if data else LAYOUT.meta
    for name, good in _GOOD.items():
        (target / name).write_bytes(data[1:] if name == spoilt else good)
    return target


def cifar_archive(data: bytes, place: Path) -> Path:
    """An archive: as it is where the first byte is even, else a tar that is compressed here."""
    path = place / LAYOUT.archive
    packed = data[1:] if not data or data[0] % 2 == 0 else gzip.compress(data[1:], 1, mtime=0)
    path.write_bytes(packed)
    return path


def read_cifar(path: Path) -> object:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not the official archive
        return cifar.read(LAYOUT, path)


# PyTorch's files


def torch_pickle(data: bytes, place: Path) -> bytes:
    """A zip file of torch.save around a pickle, with three storages."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"big" if data[:1] == b"(" else b"little")
        for key in "012":
            archive.writestr(f"archive/data/{key}", bytes(range(24)))
    return out.getvalue()


def read_weights(path: Path) -> object:
    """What ``attnnet.load`` does with a file, when it knows the model and when it does not."""
    for model in (None, _little()):
        try:
            attnnet.load(path, model)
        except (CheckpointError, ValueError):
            if model is not None:
                raise
    return None


def _little() -> object:
    return tiny.Tiny(2, 1, (8, 8))


# Checkpoints


class _StopAtOnce(Callback):
    def on_batch_end(self, trainer: Trainer, result: object) -> None:
        trainer.stop()

    def on_evaluate(self, trainer: Trainer, done: int, total: int) -> None:
        trainer.stop()


def _images() -> Dataset:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (6, 1, 8, 8), np.uint8)
    return Dataset(images, np.arange(6) % 2, ["a", "b"], "six", (0.5,), (0.25,))


IMAGES = _images()
RECIPE = tiny.recipe(
    dataset="six", epochs=2, batch_size=4, limit_train=None, limit_test=None, crop_padding=0
)


def trained() -> checkpoints.Checkpoint:
    """The checkpoint of a tiny training, one epoch old."""
    from attnnet.training import keeping

    trainer = Trainer(RECIPE, False, progress=False, data=(IMAGES, IMAGES))
    trainer.fit(stop_after=1)
    return keeping.capture(trainer)


_trained: list[checkpoints.Checkpoint] = []


def checkpoint_file(data: bytes, place: Path) -> Path:
    """A checkpoint of a real training with these metadata, under the right checksum."""
    if not _trained:
        _trained.append(trained())
    one = _trained[0]
    arrays = {**one.weights, **{f"optimizer/{k}": v for k, v in one.optimizer.items()}}
    arrays = {name: np.asarray(arrays[name]) for name in sorted(arrays)}
    text = data.decode("utf-8", "replace")
    table: dict[str, Any] = {
        "__metadata__": {"attnnet": text, "crc32": checkpoints._checksum(arrays, text)}
    }
    kinds, start = {"f": "F32", "i": "I64"}, 0
    for name, array in arrays.items():
        end = start + array.nbytes
        kind = kinds[array.dtype.kind]
        table[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    head = json.dumps(table).encode()
    path = place / "c.safetensors"
    content = b"".join(array.tobytes() for array in arrays.values())
    path.write_bytes(len(head).to_bytes(8, "little") + head + content)
    return path


def read_checkpoint(path: Path) -> object:
    """Loads the model, then goes on with the training for a step."""
    with contextlib.suppress(CheckpointError, ValueError):
        attnnet.load(path)
    trainer = Trainer.resume(
        path, False, [_StopAtOnce()], progress=False, data=(IMAGES, IMAGES)
    )
    return trainer.fit()


def read_safetensors(path: Path) -> object:
    return checkpoints.read_safetensors(str(path))


# The small files of a training


def read_history(path: Path) -> object:
    history = History.from_json(path)
    made = repr(history), history.csv_text(), history.json_text(), history.held_out
    names = history.columns()
    return made, [[histories._cell(name, row.get(name)) for name in names] for row in history]


def recipe_file(data: bytes, place: Path) -> Path:
    """A recipe as TOML where the first byte is ``#``, else as JSON."""
    path = place / ("r.toml" if data[:1] == b"#" else "r.json")
    path.write_bytes(data)
    return path


def read_recipe(path: Path) -> object:
    recipe = Recipe.from_file(path)
    return recipe.name, Recipe.from_dict(recipe.to_dict()) == recipe, repr(recipe)


def read_plan(path: Path) -> object:
    plan = Plan.from_file(path)
    return Plan.from_dict(plan.to_dict()) == plan


# The files of a study with a base and a block that are done, and a block that failed.
PLAN = small.plan(blocks=["SE", "SA"], seeds=1)
_BASE, _DONE, _FAILED = (os.path.join("runs", run.name) for run in PLAN.runs)
OF_A_STUDY = (
    "study.json", os.path.join(_DONE, "result.json"), os.path.join(_DONE, PREDICTIONS),
    os.path.join(_FAILED, "failed.json"),
)  # fmt: skip
_study: dict[str, bytes] = {}


def good_study(place: Path) -> dict[str, bytes]:
    """The contents of those files, all as they should be; the rest is left in a folder."""
    right = {None: 0.5, "SE_1": 0.7}
    home = synthetic.make(place, PLAN, right, 20, leave=[PLAN.runs[2].name])
    write_failure(home.of(PLAN.runs[2]), "NaNLossError", "the loss is NaN")
    return {name: Path(home.file(name)).read_bytes() for name in OF_A_STUDY}


def study_folder(data: bytes, place: Path) -> Path:
    """A study's folder; the first byte says which of its files the rest is."""
    folder = place / "study"
    if not folder.exists():
        _study.update(good_study(folder))
    spoilt = OF_A_STUDY[data[0] % len(OF_A_STUDY)] if data else None
    for name, good in _study.items():
        (folder / name).write_bytes(data[1:] if name == spoilt else good)
    return folder


def read_study(path: Path) -> object:
    """All of its report that needs no network and no figure."""
    results = Results(str(path))
    html = results._repr_html_()
    return str(results), html, rows_csv(results), runs_csv(results), str(markdown(results))


def lock_file(data: bytes, place: Path) -> Path:
    """A lock file; HOST in it stands for this machine's name."""
    (place / "train.lock").write_bytes(data.replace(b"HOST", socket.gethostname().encode()))
    return place / "train.lock"


def read_lock(path: Path) -> object:
    fd = os.open(path, os.O_RDONLY)
    try:
        owner = lock._read_owner(fd)
    finally:
        os.close(fd)
    return lock._alive(owner)


# Images


def read_image(path: Path) -> object:
    before = pictures.MAX_PIXELS
    pictures.MAX_PIXELS = MOST_PIXELS
    try:
        return pictures.read_image(path, 8)
    finally:
        pictures.MAX_PIXELS = before


PICKLES = ("attnnet.pickles",)
READERS: dict[str, Reader] = {
    "pickle": Reader(lambda data, _: data, pickle_reader.loads, (DataError,), PICKLES),
    "cifar": Reader(
        cifar_folder, read_cifar, (DataError,), (*PICKLES, "attnnet.data.cifar")
    ),
    "archive": Reader(
        cifar_archive, read_cifar, (DataError,),
        ("attnnet.data.archive", "attnnet.data.cifar", "tarfile", "gzip"), base=8,
    ),
    "torch": Reader(
        lambda data, _: data, lambda data: torch_file.parse(data, "x.pth"), (CheckpointError,),
        (*PICKLES, "attnnet.interop"),
    ),
    "torch-pickle": Reader(
        torch_pickle, lambda data: torch_file.parse(data, "x.pth"), (CheckpointError,),
        (*PICKLES, "attnnet.interop"),
    ),
    "weights": Reader(
        lambda data, place: as_file("x.pth")(torch_pickle(data, place), place), read_weights,
        (CheckpointError, ValueError), (*PICKLES, "attnnet.interop", "attnnet.nn.state"),
    ),
    "safetensors": Reader(
        as_file("x.safetensors"), read_safetensors, (CheckpointError,),
        ("attnnet.training.checkpoint", "safetensors"),
    ),
    "checkpoint": Reader(
        checkpoint_file, read_checkpoint, (CheckpointError, ValueError),
        ("attnnet.training", "attnnet.nn.state", "attnnet.optim", "attnnet.models", "json"),
    ),
    "history": Reader(
        as_file("history.json"), read_history, (ValueError,), ("attnnet.training.history", "json")
    ),
    "recipe": Reader(
        recipe_file, read_recipe, (ValueError,),
        ("attnnet.training.recipe", "attnnet.training.presets", "json", "tomllib"),
    ),
    "plan": Reader(
        recipe_file, read_plan, (ValueError,),
        ("attnnet.study.plan", "attnnet.training.recipe", "json", "tomllib"),
    ),
    "study": Reader(
        study_folder, read_study, (CheckpointError, ValueError), ("attnnet.study", "json")
    ),
    "lock": Reader(
        lock_file, read_lock, (CheckpointError,), ("attnnet.training.lock", "json")
    ),
    "image": Reader(
        as_file("x.png"), read_image, (DataError,),
        ("attnnet.data.image_folder", "attnnet.data.pictures", "PIL"), base=64,
    ),
}  # fmt: skip
