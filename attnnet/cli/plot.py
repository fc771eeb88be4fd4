"""``attnnet plot``: accuracy and loss curves of trainings, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training import History


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "histories", nargs="+", metavar="HISTORY", help="trainings: their folders or history.json"
    )
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one a training; default: "
                        "the folders' names")  # fmt: skip
    parser.add_argument("--epochs", metavar="A:B", help="only epochs A to B, for example 140:200")
    parser.add_argument(
        "--metric", choices=("top1", "loss", "both"), default="both", metavar="NAME",
        help="top1, loss or both (default)",
    )  # fmt: skip
    parser.add_argument(
        "--split", choices=("train", "test"), metavar="NAME",
        help="train, or test: the held out images; default: test, of a single training both",
    )  # fmt: skip
    parser.add_argument(
        "--against", choices=("epochs", "minutes"), default="epochs", metavar="NAME",
        help="epochs (default), or minutes of training and evaluation",
    )  # fmt: skip
    parser.add_argument(
        "--output", default="curves.png", metavar="FILE", help="PNG or SVG; default curves.png"
    )


def run(args: argparse.Namespace) -> int:
    """Reads, draws and writes; returns the exit code."""
    from ..plots import METRICS, plot_history

    histories = _read(args.histories, args.labels)
    metrics = tuple(METRICS) if args.metric == "both" else (args.metric,)
    figure = plot_history(histories, metrics, _range(args.epochs), args.split, args.against)
    kind = Path(args.output).suffix.lower()
    if kind not in (".png", ".svg"):
        raise ValueError(f"--output: got {args.output!r}, expected a name ending in .png or .svg")
    figure.savefig(args.output, dpi=150)
    print(_table(histories))
    print(f"picture: {args.output}")
    return 0


def _read(paths: list[str], labels: list[str] | None) -> dict[str, History]:
    """The histories by name.

    Raises:
        ValueError: not as many labels as histories, or a file that is no history.
        OSError: a file is missing.
    """
    from ..training import History

    if labels is not None and len(labels) != len(paths):
        raise ValueError(f"--labels: got {len(labels)}, expected {len(paths)}, one a training")
    found: dict[str, History] = {}
    for i, given in enumerate(paths):
        path = Path(given)
        file = path / "history.json" if path.is_dir() else path
        name = labels[i] if labels else (path if path.is_dir() else path.parent).resolve().name
        if name in found:
            name = given
        found[name] = History.from_json(file)
    return found


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise ValueError(f"--epochs: got {text!r}, expected A:B, for example 140:200")
    return int(first), int(last)


def _table(histories: dict[str, History]) -> str:
    """Epochs, last and best accuracy of each training, and where they differ of which images."""
    width = max(len(name) for name in histories)
    differ = len({history.held_out for history in histories.values()}) > 1
    lines = [f"{'training':<{width}}  epochs   last %   best %  at epoch" + "  of" * differ]
    for name, history in histories.items():
        column = f"{history.held_out}_top1"
        values = [(row[column], row["epoch"]) for row in history if row.get(column) is not None]
        if not values:
            lines.append(f"{name:<{width}}  {len(history):>6}")
            continue
        best, at = max(values, key=lambda pair: pair[0])
        last = values[-1][0]
        of = f"  {history.held_out}" if differ else ""
        lines.append(
            f"{name:<{width}}  {len(history):>6}  {last:>7.2f}  {best:>7.2f}  {at:>8}{of}"
        )
    return "\n".join(lines)
