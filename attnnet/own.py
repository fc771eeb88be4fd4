"""What users bring: modules that register blocks and networks of their own; and processes that find
them as this one does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nn import Module


def import_modules(names: Iterable[str], who: str) -> None:
    """Imports modules, which are looked for in the current folder, too.

    Args:
        names: such as ``"my_blocks"``. who: names them, for the message.

    Raises:
        ValueError: Python does not find one, or something that it imports.
    """
    here = os.getcwd()
    for name in names:
        if not {"", here} & set(sys.path):
            sys.path.append(here)  # at the end: beside a source tree, what is installed comes first
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{who} names {name!r}, which Python does not find ({error}); it looks in {here} "
                "and where installed modules are."
            ) from None


def another_python(code: str) -> list[str]:
    """The command of a process that runs a line of code, and imports what this process does: by -c
    and with this very path."""
    path = [entry or os.getcwd() for entry in sys.path]
    return [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}"]


def modules_of(model: Module) -> list[str]:
    """The modules, none of this package, that define parts of a model; ``"__main__"`` for what was
    defined in a notebook or a script."""
    homes = (type(part).__module__ for part in model.modules())
    return list(dict.fromkeys(home for home in homes if home.partition(".")[0] != "attnnet"))
