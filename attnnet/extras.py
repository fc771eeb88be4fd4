"""What is not installed with every attnnet, asked for where it is used."""

from __future__ import annotations

import importlib
from types import ModuleType


def pillow(module: str) -> ModuleType:
    """A module of Pillow.

    Args:
        module: its name in ``PIL``, for example ``"Image"``.

    Raises:
        ModuleNotFoundError: Pillow is not installed; the message says how to install it.
    """
    return _load(f"PIL.{module}", "image files and pictures need Pillow", "images")


def matplotlib(module: str) -> ModuleType:
    """A module of matplotlib.

    Args:
        module: its name in ``matplotlib``, for example ``"figure"``.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to install it.
    """
    return _load(f"matplotlib.{module}", "figures need matplotlib", "plots")


def _load(module: str, what: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what}: pip install attnnet[{extra}]") from error
