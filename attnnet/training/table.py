"""Reads small files that hold a table: recipes, and plans of studies."""

from __future__ import annotations

import json
import re
from typing import Any

_LARGEST_FILE = 1 << 16  # a recipe is a few hundred bytes; refuse to read a disk image
# Names inside names inside names: reading them takes time and memory that grow with their square.
_DEEP_NAME = re.compile(r"(?:\.[^.,=\n]+){50}")


def read_table(path: str, what: str = "recipe") -> Any:
    """What a JSON or TOML file holds, which should be a table.

    Args:
        path: ends in ``.toml`` for TOML. what: what the file should hold, for messages.

    Raises:
        ValueError: it holds neither JSON nor TOML. OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        raw = file.read(_LARGEST_FILE + 1)
    if len(raw) > _LARGEST_FILE:
        raise ValueError(f"larger than {_LARGEST_FILE} bytes; this is no {what}.")
    try:
        text = raw.decode("utf-8")
        if not path.lower().endswith(".toml"):
            return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON {what}: {error}.") from None
    try:
        import tomllib
    except ModuleNotFoundError:
        raise ValueError(f"TOML needs Python 3.11 or newer; write the {what} as JSON.") from None
    if _DEEP_NAME.search(text):
        raise ValueError(f"not a TOML {what}: names inside names without end.")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a TOML {what}: {error}.") from None
