"""The pickles inside PyTorch's files: tensors as NumPy arrays, containers, numbers, text.

See ``attnnet/pickles.py`` for how they are read. A storage is the flat memory behind tensors; a
pickle names it by key, and a tensor is an offset, a shape and strides into one. Here a tensor is
a read-only view of the file's bytes where it is contiguous, and a copy where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import CheckpointError
from ..pickles import INTEGERS, NAMES, STEPS, DType, Machine, Name

# A storage's class in PyTorch to its elements; NumPy has no bfloat16: its bits come as uint16.
_STORAGES = {
    "Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": "u2",
    "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "b1",
}  # fmt: skip
_MOST_DIMENSIONS = 16
_LONGEST_NAME = 1000  # characters of a storage's key
_BYTES_OF_ITEM = 4  # the least that a pair of a key and a value takes in a file


class _StorageType(Name):
    """One of PyTorch's storage classes."""

    def __init__(self, kind: str):
        super().__init__(f"torch.{kind}Storage")
        self.dtype = np.dtype(_STORAGES[kind])
        self.is_bfloat16 = kind == "BFloat16"


@dataclass(frozen=True)
class Storage:
    """A storage as a pickle names it."""

    key: str
    type: _StorageType
    count: int

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return self.count * self.type.dtype.itemsize


class TorchMachine(Machine):
    """The machine for PyTorch's pickles.

    Args:
        data, source, position: see ``Machine``.
        budget: bytes that copies and decoded text may take.
        contents: a storage's key to its bytes; None while the storages are not known yet: then
            tensors come as None, and ``storages`` says afterwards what was named.
        big_endian: whether the storages hold big-endian numbers.
    """

    error_type = CheckpointError
    kind = "file of weights"
    array_codes = INTEGERS | {"f2", "f4", "f8", "b1"}
    array_words = "numbers"
    longest_integer = 10  # the older format begins with such a number

    def __init__(
        self,
        data: bytes,
        source: str,
        position: int = 0,
        budget: int | None = None,
        contents: Mapping[str, memoryview] | None = None,
        big_endian: bool = False,
    ):
        super().__init__(data, source, position, budget)
        self.contents = contents
        self.order = ">" if big_endian else "<"
        self.storages: dict[str, Storage] = {}

    def float8(self) -> None:
        self.stack.append(self.number(">d"))

    def storage(self) -> None:
        """A persistent id: ("storage", class, key, place, count), older ones with a view."""
        named = self.pop()
        if type(named) is not tuple or len(named) not in (5, 6) or named[0] != "storage":
            raise self.error("corrupt: a persistent id that names no storage")
        _, kind, key, _place, count = named[:5]
        if type(kind) is not _StorageType or type(key) is not str or type(count) is not int \
                or len(key) > _LONGEST_NAME:  # fmt: skip
            raise self.error("corrupt: a storage that is described wrongly")
        if len(named) == 6 and named[5] is not None:
            raise self.error("holds views of storages, as PyTorch wrote before 0.4: not supported")
        storage = Storage(key, kind, count)
        known = self.storages.setdefault(key, storage)
        if count < 0 or known != storage:
            raise self.error(f"corrupt: storage {key[:40]!r} is described twice, differently")
        self.stack.append(storage)

    def build(self) -> None:
        # An OrderedDict carries its attributes, _metadata among them; nobody here needs them.
        if type(self.stack[-1]) is dict and len(self.stack) > 1 and type(self.stack[-2]) is dict:
            self.pop()
        else:
            super().build()

    def tensor(self, storage: Storage, offset: object, shape: object, strides: object) -> object:
        """The tensor as an array; checked against its storage before anything is made."""
        if (
            type(storage) is not Storage
            or type(shape) not in (tuple, list)
            or type(strides) not in (tuple, list)
            or len(shape) != len(strides)
            or len(shape) > _MOST_DIMENSIONS
            or not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
        ):
            raise self.error("corrupt: a tensor that is described wrongly")
        shape, strides = tuple(shape), tuple(strides)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.count:
            raise self.error(
                f"corrupt: a tensor of shape {shape} at {offset:,} with strides {strides} in a "
                f"storage of {storage.count:,} numbers"
            )
        if self.contents is None:
            return None
        raw = self.contents.get(storage.key)
        if raw is None or len(raw) != storage.bytes:
            there = "is missing" if raw is None else f"has {len(raw):,}"
            raise self.error(
                f"truncated or corrupt: storage {storage.key[:40]!r} needs {storage.bytes:,} "
                f"bytes, {there}"
            )
        return self._view(storage, raw, offset, shape, strides)

    def _view(
        self,
        storage: Storage,
        raw: memoryview,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> np.ndarray:
        dtype = storage.type.dtype.newbyteorder(self.order)
        if 0 in shape:
            array = np.zeros(shape, dtype)
        else:
            steps = [step * dtype.itemsize for step in strides]
            array = np.ndarray(shape, dtype, raw, offset * dtype.itemsize, steps)
        if storage.type.is_bfloat16:  # the upper half of a float32
            self.spend(4 * math.prod(shape))
            wide = array.astype(np.uint32, order="C")
            wide <<= 16
            array = wide.view(np.float32)
        elif not array.flags.c_contiguous or not dtype.isnative:
            self.spend(array.nbytes)
            array = array.astype(dtype.newbyteorder("="), order="C")
        return array


def _ordered_dict(machine: TorchMachine, items: object = ()) -> dict:
    """An OrderedDict is a dict here. Older Pythons give its items at once, as a list of pairs."""
    if type(items) not in (list, tuple):
        raise machine.error("corrupt: an OrderedDict of something else than pairs")
    machine.spend(_BYTES_OF_ITEM * len(items))  # the same list may be named again and again
    made: dict = {}
    machine.stack.append(made)
    for key, value in items:
        machine.update([key, value])
    return machine.stack.pop()


def _tensor_v2(
    machine: TorchMachine, storage: Storage, offset: int, shape: object, strides: object, *_: object
) -> object:
    return machine.tensor(storage, offset, shape, strides)


def _parameter(machine: TorchMachine, tensor: object, *rest: object) -> object:
    if tensor is not None and type(tensor) is not np.ndarray:
        raise machine.error("corrupt: a parameter that is no tensor")
    return tensor


def _size(machine: TorchMachine, sizes: object) -> tuple:
    fits = type(sizes) is tuple and len(sizes) <= _MOST_DIMENSIONS
    if not fits or not all(type(size) is int for size in sizes):
        raise machine.error("corrupt: a size that holds no whole numbers")
    return sizes


def _scalar(machine: TorchMachine, dtype: object, raw: object) -> object:
    """One of NumPy's numbers, as a Python number."""
    if type(dtype) is not DType or type(raw) is not bytes or len(raw) != dtype.numpy.itemsize:
        raise machine.error("corrupt: a number that is described wrongly")
    return np.frombuffer(raw, dtype.numpy)[0].item()


TorchMachine.steps = list(STEPS)
TorchMachine.steps[ord("G")] = TorchMachine.float8
TorchMachine.steps[ord("Q")] = TorchMachine.storage
TorchMachine.steps[ord("b")] = TorchMachine.build
TorchMachine.names = {
    **NAMES,
    ("collections", "OrderedDict"): Name("collections.OrderedDict", _ordered_dict),
    ("torch._utils", "_rebuild_tensor"): Name("torch._utils._rebuild_tensor", _tensor_v2),
    ("torch._utils", "_rebuild_tensor_v2"): Name("torch._utils._rebuild_tensor_v2", _tensor_v2),
    ("torch._utils", "_rebuild_parameter"): Name("torch._utils._rebuild_parameter", _parameter),
    ("torch", "Size"): Name("torch.Size", _size),
    ("numpy.core.multiarray", "scalar"): Name("numpy scalar", _scalar),
    ("numpy._core.multiarray", "scalar"): Name("numpy scalar", _scalar),
}
for _type in map(_StorageType, _STORAGES):
    for _module in ("torch", "torch.cuda"):  # the second in the oldest files
        TorchMachine.names[_module, _type.name.removeprefix("torch.")] = _type
