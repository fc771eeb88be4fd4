"""Reads the files of ``torch.save``, both formats, without PyTorch.

The newer one (since PyTorch 1.6) is a zip archive: ``NAME/data.pkl`` and a ``NAME/data/KEY`` for
each storage. The older one is a row of pickles: a magic number, a version, facts of the machine,
the object, the keys of its storages; then each storage as a count and its bytes.
"""

from __future__ import annotations

import os

from ..errors import CheckpointError
from .stored_zip import entries
from .torch_pickle import TorchMachine

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
# What may be decoded and copied, as a multiple of the file: a bfloat16 becomes a float32, and
# two names may share one storage.
_BUDGET = 4


def looks_like_torch(head: bytes) -> bool:
    """Whether a file whose first nine bytes these are may be one of PyTorch's.

    A safetensors file begins with any eight bytes, a length, so with those of PyTorch's too; but
    then comes its header's brace, which no file of PyTorch has there.
    """
    return head.startswith((b"PK", b"\x80")) and head[8:9] != b"{"


def read_torch_file(path: str | os.PathLike[str]) -> object:
    """What ``torch.save`` put into a file, with NumPy arrays for tensors.

    The reader can build tensors, containers, numbers and text and nothing else; whatever else the
    file names is refused, never imported or run.

    Args:
        path: of a file in either format.

    Returns:
        The object. An OrderedDict is a dict, NumPy's numbers are Python's; tensors are read-only
        arrays of their own type, bfloat16 ones float32. Their devices are forgotten.

    Raises:
        CheckpointError: missing, truncated, corrupt, not a file of PyTorch, or it asks for
            something that no file of weights needs, named in the message.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}.") from error
    return parse(data, path)


def parse(data: bytes, source: str) -> object:
    """``read_torch_file`` for the bytes of a file."""
    if data.startswith(b"PK"):
        return _parse_zip(data, source)
    if data.startswith(b"\x80"):
        return _parse_stream(data, source)
    raise CheckpointError(f"{source}: not a file of torch.save ({len(data):,} bytes).")


def _parse_zip(data: bytes, source: str) -> object:
    files = entries(data, source)
    found = [name for name in files if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        raise CheckpointError(
            f"{source}: a zip archive with {len(found)} entries named data.pkl; a file of "
            "torch.save has one."
        )
    folder = found[0].removesuffix("data.pkl")
    contents = {
        name.removeprefix(f"{folder}data/"): content
        for name, content in files.items()
        if name.startswith(f"{folder}data/")
    }
    order = bytes(files.get(f"{folder}byteorder", b"little"))
    if order not in (b"little", b"big"):
        raise CheckpointError(f"{source}: corrupt, an unknown order of bytes.")
    pickle = bytes(files[found[0]])
    return TorchMachine(
        pickle, source, 0, _BUDGET * len(data), contents, big_endian=order == b"big"
    ).run()


def _parse_stream(data: bytes, source: str) -> object:
    machine = TorchMachine(data, source)
    for expected in (_MAGIC, _VERSION):
        number = machine.run_next()
        if type(number) is not int or number != expected:
            raise machine.error("a pickle, but not one of torch.save (not its magic numbers)")
    machine.run_next()  # facts of the machine that wrote it; storages are little-endian always
    # The object comes before the storages that it needs, so it is read twice: the first time only
    # to learn where it ends and what it names.
    begin = machine.position
    machine.run_next()
    keys = machine.run_next()
    contents = _storages(machine, keys)
    return TorchMachine(data, source, begin, _BUDGET * len(data), contents).run()


def _storages(machine: TorchMachine, keys: object) -> dict[str, memoryview]:
    """The storages that follow the pickles, in the order of ``keys``."""
    named, view = machine.storages, memoryview(machine.data)
    fits = type(keys) is list and all(type(key) is str for key in keys)
    if not fits or len(keys) != len(named) or set(keys) != set(named):
        raise machine.error("corrupt: the list of storages does not fit the tensors")
    contents = {}
    for key in keys:
        count, storage = machine.number("<q"), named[key]
        if count != storage.count:
            raise machine.error(
                f"corrupt: storage {key[:40]!r} holds {count:,} numbers, expected {storage.count:,}"
            )
        begin = machine.position
        if storage.bytes > len(view) - begin:
            raise machine.error(
                f"truncated: storage {key[:40]!r} needs {storage.bytes:,} bytes, "
                f"{len(view) - begin:,} left"
            )
        machine.position = begin + storage.bytes
        contents[key] = view[begin : machine.position]
    return contents
