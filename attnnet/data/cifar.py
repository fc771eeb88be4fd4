"""CIFAR-10 and CIFAR-100 in their official python layout, from a folder or the official archive.

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The official
address is https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import Dataset

URL = "https://www.cs.toronto.edu/~kriz/"
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """How one of the two sets is laid out, and what its contents must be.

    Attributes:
        name: "cifar10" or "cifar100".
        title: for messages.
        folder: the folder in the archive.
        archive: the archive's file name.
        md5, archive_bytes: of the official archive.
        train, test: the names of the batch files.
        meta: the name of the file with the class names.
        labels: the key of the labels in a batch; ``coarse`` that of the superclasses, if any.
        names: the key of the class names in ``meta``.
        classes, per_batch, per_test: how many there are.
        mean, std: what the study normalises with.
    """

    name: str
    title: str
    folder: str
    archive: str
    md5: str
    archive_bytes: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    coarse: str | None
    names: str
    classes: int
    per_batch: int
    per_test: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the set needs."""
        return (*self.train, *self.test, self.meta)

    def images_in(self, file: str) -> int:
        """How many images a batch file holds."""
        return self.per_test if file in self.test else self.per_batch

    def largest(self, file: str) -> int:
        """The most bytes that a file may have: pixels (written by Python 3 for Python 2 they
        take up to two bytes each), labels and file names."""
        if file == self.meta:
            return 1 << 16
        return self.images_in(file) * (2 * _PIXELS + 256) + (1 << 16)


CIFAR10 = Layout(
    "cifar10", "CIFAR-10", "cifar-10-batches-py", "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a", 170_498_071,
    tuple(f"data_batch_{k}" for k in range(1, 6)), ("test_batch",), "batches.meta",
    "labels", None, "label_names", 10, 10_000, 10_000,
    (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR100 = Layout(
    "cifar100", "CIFAR-100", "cifar-100-python", "cifar-100-python.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437,
    ("train",), ("test",), "meta",
    "fine_labels", "coarse_labels", "fine_label_names", 100, 50_000, 10_000,
    (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def load_cifar(layout: Layout, root: str | os.PathLike | None = None, download: bool = True,
               url: str | None = None, progress: bool = True) -> tuple[Dataset, Dataset]:
    """Finds, if need be downloads, reads and checks CIFAR-10 or CIFAR-100.

    Looks into ``root``, the environment's ATTNNET_DATA, and the cache folder
    ($XDG_CACHE_HOME/attnnet, or ~/.cache/attnnet), in this order. Each may be the folder that
    holds the official folder or archive, the official folder itself, or the archive.

    Args:
        layout: CIFAR10 or CIFAR100.
        root: where to look first.
        download: fetch the official archive (170 MB) into the cache folder where nothing is
            found.
        url: the folder to download from; by default ATTNNET_DATA_URL or the official one.
        progress: show a progress bar while downloading.

    Returns:
        (train, test): 50,000 and 10,000 images of 3 x 32 x 32.

    Raises:
        DataError: not found (says where it looked and how to get it), download failed,
            truncated, corrupt, incomplete, or not what the set must hold.
    """
    looked = []
    for place in _places(root):
        found = _find(layout, place)
        if found is not None:
            if looked and root is not None:
                warnings.warn(f"no {layout.title} in {root}: taking {found}", stacklevel=3)
            return read(layout, found)
        looked.append(place)
    if not download:
        raise DataError(_missing(layout, looked))
    from .download import download as fetch

    base = (url or os.environ.get("ATTNNET_DATA_URL") or URL).rstrip("/")
    archive = cache_folder() / layout.archive
    try:
        fetch(f"{base}/{layout.archive}", archive, layout.md5, 2 * layout.archive_bytes,
              progress=progress)
    except DataError as failed:
        raise DataError(f"{_missing(layout, looked)} The download failed: {failed}") from failed
    return read(layout, archive)


def cache_folder() -> Path:
    """Where downloads go: $XDG_CACHE_HOME/attnnet, by default ~/.cache/attnnet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The convention ignores a relative path.
    folder = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return folder / "attnnet"


def _places(root: str | os.PathLike | None) -> list[Path]:
    given = [root, os.environ.get("ATTNNET_DATA") or None]
    return [Path(p).expanduser() for p in given if p is not None] + [cache_folder()]


def _find(layout: Layout, place: Path) -> Path | None:
    """The official folder or archive at a place; one that is incomplete counts as found."""
    if place.is_file():
        return place
    for folder in (place / layout.folder, place):
        if any((folder / file).is_file() for file in (*layout.train, layout.meta)):
            return folder
    return place / layout.archive if (place / layout.archive).is_file() else None


def _missing(layout: Layout, looked: list[Path]) -> str:
    places = ", ".join(str(p) for p in looked)
    return (f"{layout.title} not found. Looked for the folder {layout.folder} or the archive "
            f"{layout.archive} in: {places}. Download {URL}{layout.archive} into one of them, or "
            "name its folder with root=... (--data) or the environment variable ATTNNET_DATA.")


def read(layout: Layout, path: str | os.PathLike) -> tuple[Dataset, Dataset]:
    """Reads an unpacked folder, or an archive without unpacking it. See ``load_cifar``.

    An archive that is not the official one (its md5 tells) is used with a warning if its
    contents are right; a folder is judged by its contents alone.

    Raises:
        DataError: truncated, corrupt, incomplete, or not what the set must hold.
    """
    path = Path(path)
    if path.is_dir():
        files = _folder_files(layout, path)
    else:
        files = _archive_files(layout, path)
    parts, names = {}, None
    for file, content in files:
        source = f"{path}: {file}" if path.is_file() else str(path / file)
        if file == layout.meta:
            names = _class_names(layout, content, source)
        else:
            parts[file] = _batch(layout, file, content, source)
    absent = [file for file in layout.files if file not in parts and file != layout.meta]
    if absent or names is None:
        absent += [layout.meta] if names is None else []
        raise DataError(f"{path}: incomplete {layout.title}: {', '.join(absent)} missing")
    train = _assemble(layout, layout.train, parts, names, path)
    return train, _assemble(layout, layout.test, parts, names, path)


def _folder_files(layout: Layout, path: Path) -> Iterator[tuple[str, bytes]]:
    for file in layout.files:
        try:
            # The size is known before anything is read.
            size = (path / file).stat().st_size
            if size > layout.largest(file):
                raise DataError(f"{path / file}: {size:,} bytes, expected at most "
                                f"{layout.largest(file):,}: not a file of {layout.title}")
            yield file, (path / file).read_bytes()
        except FileNotFoundError:
            continue  # read() lists what is missing
        except OSError as bad:
            raise DataError(f"{path / file}: cannot be read: {bad.strerror or bad}") from bad


def _archive_files(layout: Layout, path: Path) -> Iterator[tuple[str, bytes]]:
    from .archive import md5_of, members

    try:
        found = md5_of(path)
    except OSError as bad:
        raise DataError(f"{path}: cannot be read: {bad.strerror or bad}") from bad
    if found != layout.md5:
        warnings.warn(f"{path} is not the official archive of {layout.title} (md5 {found}, "
                      f"expected {layout.md5}); its contents are checked instead", stacklevel=5)
    wanted = {f"{layout.folder}/{file}": layout.largest(file) for file in layout.files}
    for name, content in members(path, wanted):
        yield name.rsplit("/", 1)[1], content


def _unpickle(content: bytes, source: str) -> dict[str, object]:
    from .pickle_reader import loads

    value = loads(content, source)
    if type(value) is not dict:
        raise DataError(f"{source}: holds a {type(value).__name__}, expected a dict")
    return {key.decode("latin1") if type(key) is bytes else str(key): item
            for key, item in value.items()}


def _entry(content: dict[str, object], key: str, kind: type, source: str) -> object:
    if key not in content:
        keys = ", ".join(sorted(content)[:8])
        raise DataError(f"{source}: no entry {key!r}; it has: {keys[:200]}")
    if type(content[key]) is not kind:
        raise DataError(f"{source}: {key!r} is a {type(content[key]).__name__}, expected a "
                        f"{kind.__name__}")
    return content[key]


def _batch(layout: Layout, file: str, content: bytes, source: str) \
        -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 (n, 3, 32, 32), labels int64 (n,)) of one batch file, checked."""
    batch = _unpickle(content, source)
    count = layout.images_in(file)
    pixels = _entry(batch, "data", np.ndarray, source)
    if pixels.dtype != np.uint8 or pixels.shape != (count, _PIXELS):
        raise DataError(f"{source}: 'data' is {pixels.dtype} {pixels.shape}, expected uint8 "
                        f"({count}, {_PIXELS})")
    labels = _labels(batch, layout.labels, layout.classes, count, source)
    if layout.coarse is not None:
        _labels(batch, layout.coarse, 20, count, source)
    return pixels.reshape(count, 3, 32, 32), labels


def _labels(batch: dict[str, object], key: str, classes: int, count: int, source: str) \
        -> np.ndarray:
    values = _entry(batch, key, list, source)
    if len(values) != count:
        raise DataError(f"{source}: {key!r} has {len(values):,} values, expected {count:,}")
    for i, value in enumerate(values):
        if type(value) is not int or not 0 <= value < classes:
            shown = value if type(value) is int else type(value).__name__
            raise DataError(f"{source}: {key!r} of image {i:,} is {shown}, expected 0 to "
                            f"{classes - 1}")
    return np.array(values, np.int64)


def _class_names(layout: Layout, content: bytes, source: str) -> list[str]:
    values = _entry(_unpickle(content, source), layout.names, list, source)
    names = [v.decode("utf-8", "replace") if type(v) is bytes else v for v in values]
    if len(names) != layout.classes or not all(type(n) is str and 0 < len(n) <= 100
                                               for n in names):
        raise DataError(f"{source}: {layout.names!r} must be {layout.classes} names")
    if len(set(names)) != len(names):
        raise DataError(f"{source}: {layout.names!r} holds a name twice")
    # Class 26 of CIFAR-100, as some copies misspell it.
    return ["crab" if name == "cra" else name for name in names]


def _assemble(layout: Layout, files: tuple[str, ...], parts: dict, names: list[str],
              path: Path) -> Dataset:
    images = np.concatenate([parts[file][0] for file in files])
    labels = np.concatenate([parts[file][1] for file in files])
    counts = np.bincount(labels, minlength=layout.classes)
    expected = len(labels) // layout.classes
    if (counts != expected).any():
        worst = int(np.argmax(np.abs(counts - expected)))
        raise DataError(f"{path}: class {worst} ({names[worst]}) has {counts[worst]:,} images in "
                        f"{', '.join(files)}, expected {expected:,}: not the labels of "
                        f"{layout.title}")
    return Dataset(images, labels, names, layout.name, layout.mean, layout.std)


LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (CIFAR10, CIFAR100)}
