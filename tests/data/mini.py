"""CIFAR in small: the official layout with few images, written as Python 2 wrote it."""

import dataclasses
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

from attnnet.data.cifar import CIFAR10, CIFAR100, Layout

MINI10 = dataclasses.replace(CIFAR10, per_batch=20, per_test=20)
MINI100 = dataclasses.replace(CIFAR100, per_batch=200, per_test=100)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings."""

    def save_bytes(self, obj):
        short = len(obj) < 256
        self.write(b"U" + bytes([len(obj)]) if short else b"T" + struct.pack("<i", len(obj)))
        self.write(obj)
        self.memoize(obj)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}


def python2_pickle(obj: object) -> bytes:
    out = io.BytesIO()
    Python2Pickler(out, protocol=2).dump(obj)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def contents(layout: Layout, seed: int = 0) -> dict[str, dict[bytes, object]]:
    """What each file of a set holds: the objects, not yet pickled."""
    rng = np.random.default_rng(seed)
    files = {}
    for names in (layout.train, layout.test):
        total = sum(layout.images_in(f) for f in names)
        labels = rng.permutation(np.arange(total) % layout.classes).tolist()
        for k, file in enumerate(names):
            count = layout.images_in(file)
            mine = labels[k * count:(k + 1) * count]
            files[file] = {
                b"batch_label": b"batch of " + file.encode(), layout.labels.encode(): mine,
                b"data": rng.integers(0, 256, (count, 3072), np.uint8),
                b"filenames": [b"image_%d.png" % i for i in range(count)]}
            if layout.coarse:
                files[file][layout.coarse.encode()] = [label // 5 for label in mine]
    names = [b"class_%d" % c for c in range(layout.classes)]
    files[layout.meta] = {layout.names.encode(): names, b"num_vis": 3072}
    return files


def write(layout: Layout, folder: Path, files: dict | None = None, dump=python2_pickle) -> Path:
    """Writes the official folder into ``folder``; returns it."""
    target = folder / layout.folder
    target.mkdir(parents=True, exist_ok=True)
    for name, value in (files or contents(layout)).items():
        (target / name).write_bytes(value if isinstance(value, bytes) else dump(value))
    return target


def pack(layout: Layout, folder: Path, archive: Path) -> Path:
    """Packs the official folder into an archive."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=layout.folder)
    return archive
