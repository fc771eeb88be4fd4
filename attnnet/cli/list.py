"""``attnnet list``: the models, blocks, data sets, presets and ready studies there are."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "what", nargs="?", choices=tuple(_LISTS), help=", ".join(_LISTS) + "; default: all"
    )


def run(args: argparse.Namespace) -> int:
    """Prints; returns the exit code."""
    for name in [args.what] if args.what else _LISTS:
        if args.what is None:
            print(f"{name}:")
        rows = _LISTS[name]()
        width = max(len(row) for row in rows)
        for row, about in rows.items():
            print(f"  {row:<{width}}  {about}".rstrip())
        if args.what is None:
            print()
    return 0


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]


def _models() -> dict[str, str]:
    from .. import list_models, models

    return {name: _first_line(getattr(models, name, None)) for name in list_models()}


def _blocks() -> dict[str, str]:
    from .. import list_blocks
    from ..nn.registry import find_block

    return {name: find_block(name).summary for name in list_blocks()}


def _data() -> dict[str, str]:
    from ..data import DATASETS

    return dict(DATASETS)


def _presets() -> dict[str, str]:
    from ..training.presets import list_presets, preset_summary

    return {name: preset_summary(name) for name in list_presets()}


def _studies() -> dict[str, str]:
    from ..study.presets import list_plans, plan_summary

    return {name: plan_summary(name) for name in list_plans()}


_LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "models": _models,
    "blocks": _blocks,
    "data": _data,
    "presets": _presets,
    "studies": _studies,
}
