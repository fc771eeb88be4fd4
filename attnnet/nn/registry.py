"""The registry of attention blocks: names and how to make each. There is no second list.

``attnnet train``, placements such as ``NEW_12``, tests and the bench all read it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import unknown_name
from . import attention
from .attention_augmented import AA
from .module import Module


@dataclass(frozen=True)
class BlockEntry:
    """One registered block: its name, how to make it, and a line about it."""

    name: str
    factory: Callable[..., Module]
    keywords: frozenset[str]  # of height and width, those that the factory takes
    summary: str
    builtin: bool


_entries: dict[str, BlockEntry] = {}
_aliases = {"SER": "SE"}
# A trailing _digits would read as stages, a plus sign as a second placement.
_valid = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*)*")


def register_block(name: str, factory: Callable[..., Module] | None = None) -> Callable[..., Any]:
    """Give an attention block a name, so that ``resnet18("ECA_12")`` and the like find it.

    Use it as a decorator, ``@attnnet.register_block("ECA")``, or with the factory as second
    argument.

    Args:
        name: letters, digits and underscores, beginning with a letter; no trailing ``_12``,
            which would read as stages. Registering one's own name again replaces it (so a
            notebook cell can run twice).
        factory: a Module class or function, called ``factory(channels)``, and with
            ``height=`` and ``width=`` where its signature takes them. Its result must map
            (N, C, H, W) to the same shape.

    Returns:
        The factory, unchanged.

    Raises:
        ValueError: for a name that cannot be one, or that a built-in block has.
        TypeError: for a factory that is not callable.
    """
    if factory is None:
        return lambda given: register_block(name, given)
    _register(name, factory, builtin=False)
    return factory


def _register(name: str, factory: Callable[..., Module], builtin: bool) -> None:
    if not isinstance(name, str) or not _valid.fullmatch(name):
        raise ValueError(
            f"a block's name needs letters, digits and underscores, begins with a letter and does "
            f"not end in _digits (those name stages): got {name!r}"
        )
    if not callable(factory):
        raise TypeError(
            f"register_block({name!r}) needs a class or function that makes the block, got "
            f"{type(factory).__name__}"
        )
    same = [e for e in _entries.values() if e.name.lower() == name.lower() and e.builtin]
    if same or name.upper() in _aliases:
        raise ValueError(f"{name!r} is a built-in block: choose another name")
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        keywords = frozenset(("height", "width"))
    else:
        keywords = frozenset(p.name for p in parameters) & {"height", "width"}
    text = getattr(factory, "func", factory).__doc__ or ""  # its own: no base class's
    summary = text.strip().split("\n", 1)[0]
    _entries[name] = BlockEntry(name, factory, keywords, summary, builtin)


def list_blocks() -> list[str]:
    """Names of all registered blocks, the study's first."""
    return list(_entries)


def find_block(name: str) -> BlockEntry:
    """The entry of a name: exact, or alike but for case where only one is, or an alias.

    Raises:
        ValueError: for an unknown name; lists what exists and the nearest match.
    """
    if name in _entries:
        return _entries[name]
    if str(name).upper() in _aliases:
        return _entries[_aliases[str(name).upper()]]
    alike = [entry for key, entry in _entries.items() if key.lower() == str(name).lower()]
    if len(alike) == 1:
        return alike[0]
    raise unknown_name("attention block", name, _entries)


def make_block(name: str, channels: int, height: int, width: int) -> Module:
    """Make a registered block for one place of a network.

    Args:
        name: of the block. channels: C. height, width: image size at that place.

    Raises:
        ValueError: for an unknown name, or a size that the block cannot work at.
        TypeError: where the factory returns no Module.
    """
    entry = find_block(name)
    size = {"height": height, "width": width}
    block = entry.factory(channels, **{key: size[key] for key in entry.keywords})
    if not isinstance(block, Module):
        raise TypeError(
            f"the factory of block {entry.name!r} must return an attnnet Module, got "
            f"{type(block).__name__}"
        )
    return block


def _aa_original(channels: int, height: int, width: int) -> AA:
    """AA in the form of the study's code, which its checkpoints need."""
    return AA(channels, height, width, form="original")


for _name in ("SE", "SEC", "CA", "SA", "SE_SA", "SEC_SA", "CBAM", "NEW", "NAB"):
    _register(_name, getattr(attention, _name), builtin=True)
_register("AA", AA, builtin=True)
_register("AA_ORIGINAL", _aa_original, builtin=True)
