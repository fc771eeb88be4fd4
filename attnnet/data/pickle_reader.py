"""Reads the pickles of CIFAR, and can build nothing else: see ``attnnet/pickles.py``."""

from __future__ import annotations

from ..errors import DataError
from ..pickles import NAMES, STEPS, Machine


class _CifarMachine(Machine):
    """Dicts, lists, text, bytes, whole numbers and arrays of whole numbers; nothing else."""

    error_type = DataError
    kind = "CIFAR file"
    names = NAMES
    steps = STEPS
    max_steps = 1_000_000  # twice what the largest takes: CIFAR-100's train, 50,000 images


def loads(data: bytes, source: str = "pickle") -> object:
    """Reads one pickle of protocol 2 to 5; arrays as protocols 2 to 4 write them.

    Python 2's strings come as ``bytes``, as they do from ``pickle.load(encoding="bytes")``.

    Args:
        data: the whole file.
        source: the file's name, for messages.

    Returns:
        The object: nested dicts, lists, tuples, str, bytes, int, bool, None, and NumPy arrays of
        integers. Arrays are to be treated as read-only.

    Raises:
        DataError: the file is truncated, corrupt, or asks for anything else.
    """
    return _CifarMachine(data, source).run()
