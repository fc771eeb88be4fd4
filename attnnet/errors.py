"""The exceptions of attnnet, and the one way unknown names and wrong numbers are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral


class DataError(ValueError):
    """A data set, archive or image that is missing, corrupt or of the wrong kind."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, truncated, corrupt or does not fit the model."""


class NaNLossError(ArithmeticError):
    """The training loss became NaN or infinite; the message says where it first appeared."""


class RankError(RuntimeError):
    """Processes that train together cannot begin, or have come apart; the message names a rank."""


def check_whole(name: str, value: object, least: int) -> None:
    """Refuses what is no whole number of at least ``least``, the argument ``name`` of a call.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}.")


def unknown_name(kind: str, got: object, choices: Iterable[str]) -> ValueError:
    """The error for a name that does not exist: lists what exists and the nearest match.

    Args:
        kind: what the name stands for, for example ``"model"``.
        got: what came.
        choices: every valid name.

    Returns:
        A ``ValueError``, to be raised by the caller.
    """
    names = list(choices)
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(got).lower(), lowered, n=1, cutoff=0.4)
    hint = f" Did you mean {lowered[near[0]]!r}?" if near else ""
    return ValueError(f"unknown {kind} {got!r}.{hint} Known: {', '.join(names)}.")
