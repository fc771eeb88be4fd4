"""Checkpoints: one safetensors file with all that is needed to use a model or to train on.

Tensors: the model's weights and batch norm statistics under their own names, so that any reader of
safetensors finds them, and the optimiser's arrays under ``optimizer/``. Metadata: the key
``attnnet`` holds one JSON object (format, version, recipe, classes, normalisation, position,
random state, history), ``crc32`` a checksum of it all. Reading builds arrays, numbers and
text and nothing else.

Files are written here rather than by the safetensors package, because that one holds a second copy
of all arrays and loses the reason of a failed write; they are read by it.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..errors import CheckpointError
from . import behind
from .files import write_atomically

if TYPE_CHECKING:
    from ..nn import Module

FORMAT = 1  # raised when an older version could not read what this one writes
_OPTIMIZER = "optimizer/"
_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
_ENDINGS = (".safetensors", ".pth", ".pt", ".tar")
_NAMES = {np.dtype(v): k for k, v in _DTYPES.items()}


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        weights: the model's state: parameters and batch norm statistics, by name.
        optimizer: the optimiser's arrays, by name.
        meta: everything else, as plain JSON values.
        path: the file it was read from; empty when it was never in a file.
    """

    weights: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    path: str = ""


def save(
    path: str | os.PathLike[str], checkpoint: Checkpoint, also: Iterable[str] = ()
) -> None:
    """Writes a checkpoint: a temporary file in the same folder, synced, then renamed.

    Args:
        path: the file to write; an earlier one under this name stays whole if writing fails.
        checkpoint: what to write.
        also: further paths in the same folder that get the same content (a hard link).

    Raises:
        CheckpointError: the file could not be written (no space, read-only folder, ...).
    """
    path = os.fspath(path)
    tensors = dict(checkpoint.weights)
    clash = [name for name in tensors if name.startswith(_OPTIMIZER)]
    if clash:
        raise CheckpointError(f"a parameter may not be called {clash[0]!r}: the name is taken.")
    tensors.update({_OPTIMIZER + name: array for name, array in checkpoint.optimizer.items()})
    arrays = {name: _plain(name, array) for name, array in sorted(tensors.items())}
    head = _header(arrays, checkpoint.meta)

    def write(file: BinaryIO) -> None:
        file.write(head)
        for array in arrays.values():
            file.write(array.reshape(-1).view(np.uint8).data)

    try:
        write_atomically(path, write, also)
    except OSError as error:
        size = (len(head) + sum(a.nbytes for a in arrays.values())) / 2**20
        kept = "; the checkpoint that was there is unchanged" if os.path.exists(path) else ""
        raise CheckpointError(
            f"cannot write the checkpoint {path} ({size:.1f} MiB): "
            f"{error.strerror or error}{kept}."
        ) from error


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """The array in little-endian C order, of a dtype that the format knows."""
    array = np.asarray(array)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _NAMES:
        raise CheckpointError(f"tensor {name!r} has dtype {array.dtype}; expected float32.")
    return np.ascontiguousarray(array, dtype).reshape(array.shape)  # a scalar keeps its shape


def _checksum(arrays: Mapping[str, np.ndarray], text: str) -> str:
    """CRC-32 over the metadata's text and the names, shapes and contents of the tensors."""
    crc = zlib.crc32(text.encode())
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name}{array.shape}{array.dtype.str}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def _header(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    """The safetensors header: its length (8 bytes), then JSON padded to a multiple of 8."""
    from .. import __version__

    stamp = {"format": FORMAT, "version": __version__}
    text = json.dumps({**meta, **stamp}, allow_nan=False, separators=(",", ":"))
    metadata = {"attnnet": text, "crc32": _checksum(arrays, text)}
    table: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, array in arrays.items():
        end = start + array.nbytes
        table[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        start = end
    raw = json.dumps(table, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint; nothing in the file is executed.

    Args:
        path: a checkpoint, or a training's folder (its ``last.safetensors``).

    Raises:
        CheckpointError: missing, truncated, corrupt, not a checkpoint of attnnet, or written by a
            newer version.
    """
    path = file_of(os.fspath(path))
    tensors, metadata = read_safetensors(path)
    text = metadata.get("attnnet")
    if text is None:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a checkpoint of attnnet (no attnnet metadata)."
        )
    meta = _read_meta(path, text)
    if metadata.get("crc32") != _checksum(tensors, text):
        raise CheckpointError(f"{path}: corrupt, its content does not fit its checksum.")
    cut = len(_OPTIMIZER)
    return Checkpoint(
        weights={k: v for k, v in tensors.items() if not k.startswith(_OPTIMIZER)},
        optimizer={k[cut:]: v for k, v in tensors.items() if k.startswith(_OPTIMIZER)},
        meta=meta,
        path=path,
    )


def file_of(path: str) -> str:
    """The checkpoint that a path means, once it is written."""
    behind.wait(path)
    if os.path.isdir(path):
        inside = os.path.join(path, "last.safetensors")
        if not os.path.exists(inside):
            raise CheckpointError(f"{path}: this folder holds no checkpoint (last.safetensors).")
        return inside
    if not os.path.exists(path):
        raise CheckpointError(f"{path}: no such checkpoint.{_nearest_file(path)}")
    return path


def _nearest_file(path: str) -> str:
    """A hint at a checkpoint with a similar name beside a missing one."""
    import difflib

    folder, name = os.path.split(path)
    try:
        there = [n for n in os.listdir(folder or ".") if n.endswith(_ENDINGS)]
    except OSError:
        return f" The folder {folder} does not exist." if folder else ""
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    return f" Did you mean {os.path.join(folder, near[0])}?" if near else ""


def read_safetensors(path: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a safetensors file, and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118  (the file itself is no mapping)
                if file.get_slice(name).get_dtype() == "BF16":
                    tensors[name] = _read_bfloat16(path, name)
                else:
                    tensors[name] = file.get_tensor(name)
            return tensors, file.metadata() or {}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except AttributeError as error:  # NumPy has not all of the types that the format has
        raise CheckpointError(f"{path}: holds numbers of a type that NumPy lacks: {error}.")\
            from None  # fmt: skip
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        size = os.path.getsize(path)
        raise CheckpointError(
            f"{path}: truncated, corrupt or not a checkpoint ({size} bytes): {error}."
        ) from error


def _read_bfloat16(path: str, name: str) -> np.ndarray:
    """A tensor of a type that NumPy has not, as float32; the file's header is a checked one."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + length + start)
        raw = np.frombuffer(file.read(end - start), "<u2")
    wide = raw.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32).reshape(entry["shape"])


def _read_meta(path: str, text: str) -> dict[str, Any]:
    """The metadata, checked as far as every use of a checkpoint needs it."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: corrupt metadata: {error}.") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("format"), int):
        raise CheckpointError(f"{path}: corrupt metadata: no format number.")
    if meta["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: written by attnnet {meta.get('version')} in checkpoint format "
            f"{meta['format']}; this version reads up to format {FORMAT}. Upgrade attnnet."
        )
    return meta


def load_model(path: str | os.PathLike[str]) -> Module:
    """The model in a checkpoint, ready to predict (eval mode).

    Args:
        path: a checkpoint, or a training's folder (its ``best.safetensors``, else ``last``).

    Returns:
        The model, with ``class_names`` (list of str), ``normalization`` (mean, std) and
        ``recipe`` attached.

    Raises:
        CheckpointError: missing, truncated, corrupt, or the weights do not fit the model.
        ValueError: its network or block is not registered (register a block of your own first).
    """
    from .. import get_rng_state, set_rng_state

    checkpoint = load(best_of(path))
    random = get_rng_state()
    model = build_model(checkpoint)
    set_rng_state(random)  # the numbers that filled it at first are nobody's business
    fill_model(model, checkpoint)
    model.eval()
    return model


def best_of(path: str | os.PathLike[str]) -> str:
    """The best checkpoint where the path is a training's folder that has one, else the path."""
    behind.wait(path)
    best = os.path.join(path, "best.safetensors")
    return best if os.path.exists(best) else os.fspath(path)


def build_model(checkpoint: Checkpoint) -> Module:
    """The network that a checkpoint is of, freshly initialised.

    Raises:
        CheckpointError: the metadata do not describe a network, or one with more parameters than
            the checkpoint has bytes.
        ValueError: its network or block is not registered.
    """
    from .. import create_model
    from ..nn.parameter import at_most

    config, path = checkpoint.meta.get("model"), checkpoint.path
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: corrupt metadata: nothing says which model this is.")
    if "custom" in config:
        raise CheckpointError(
            f"{path}: holds a model of your own ({str(config['custom'])[:60]}). Make it, then "
            "resume with model=..., or fill it with attnnet.training.checkpoint.fill_model."
        )
    for key, value in config.items():
        if key not in _CONFIG or not _CONFIG[key](value):
            raise CheckpointError(
                f"{path}: corrupt metadata: the model's {key} is {str(value)[:60]}."
            )
    if "arch" not in config:
        raise CheckpointError(f"{path}: corrupt metadata: the model has no arch.")
    arrays = (*checkpoint.weights.values(), *checkpoint.optimizer.values())
    with at_most(sum(array.nbytes for array in arrays)):
        return create_model(**config)


def _is_size(value: Any) -> bool:
    """Whether this is a size; what it asks of memory, ``at_most`` bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2**17


# What a model's ``config`` may hold, and what each must be.
_CONFIG: dict[str, Callable[[Any], bool]] = {
    "arch": lambda v: isinstance(v, str),
    "block": lambda v: v is None or isinstance(v, str),
    "num_classes": _is_size,
    "in_channels": _is_size,
    "image_size": lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_size, v)),
    "batch_norm": lambda v: isinstance(v, bool),
    "dropout": lambda v: isinstance(v, float) and 0.0 <= v < 1.0,
}


def fill_model(model: Module, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights, class names, normalisation and recipe into a model.

    Raises:
        CheckpointError: a weight is missing, unexpected, or has another shape.
    """
    from .recipe import Recipe

    path, meta = checkpoint.path, checkpoint.meta
    try:
        model.load_state_dict(checkpoint.weights)
    except CheckpointError as error:
        text = " ".join(str(error).split())
        raise CheckpointError(f"{path}: the weights do not fit the model: {text}") from None
    classes, normalization = meta.get("classes"), meta.get("normalization")
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        model.class_names = list(classes)
    if normalization is not None:
        try:
            mean, std = (tuple(float(v) for v in part) for part in normalization)
        except (TypeError, ValueError, OverflowError):
            raise CheckpointError(f"{path}: corrupt metadata: normalization.") from None
        fits = len(mean) == len(std) and all(map(math.isfinite, (*mean, *std)))
        if not fits or not all(v > 0 for v in std):
            raise CheckpointError(f"{path}: corrupt metadata: normalization.")
        model.normalization = (mean, std)
    if isinstance(meta.get("recipe"), dict):
        try:
            model.recipe = Recipe.from_dict(meta["recipe"])
        except ValueError as error:
            raise CheckpointError(f"{path}: corrupt metadata: {error}") from None
