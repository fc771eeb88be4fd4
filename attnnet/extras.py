"""What is not installed with every attnnet, asked for where it is used."""

from __future__ import annotations

import importlib
from types import ModuleType

# Package -> what cannot be done without it, the extra that brings it.
_EXTRAS = {
    "PIL": ("image files and pictures need Pillow", "images"),
    "matplotlib": ("figures need matplotlib", "plots"),
    "mpi4py": ("training in several processes needs mpi4py", "mpi"),
    "onnx": ("export_onnx needs the package onnx", "onnx"),
}


def need(module: str) -> ModuleType:
    """Imports a module of a package that is an extra.

    Args:
        module: its full name, for example ``"PIL.Image"``.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        what, extra = _EXTRAS[module.partition(".")[0]]
        raise ModuleNotFoundError(f"{what}: pip install attnnet[{extra}]") from error
