"""What happened in a training: one row an epoch, as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..markup import table
from .files import write_atomically

# The order of the columns; a row may have further ones, which follow.
COLUMNS = (
    "epoch", "train_loss", "train_top1", "val_loss", "val_top1", "test_loss", "test_top1",
    "lr", "images_per_second", "seconds", "skipped",
)  # fmt: skip

_MOST_COLUMNS = 200


def _plain_number(value: Any) -> Any:
    """NaN and infinity as None: strict JSON has no word for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class History(list):
    """The rows of a training, one dict an epoch, with what came of it.

    Row keys: ``epoch`` (from 1), ``train_loss``, ``train_top1`` (%, while training, with
    augmentation), ``val_loss``/``val_top1`` where a validation split was asked for, else
    ``test_loss``/``test_top1`` (%), ``lr`` (at the epoch's end), ``images_per_second``,
    ``seconds`` (training and evaluation), ``skipped`` (steps skipped for a NaN loss).

    Attributes:
        interrupted: somebody stopped the training before its last epoch, or asked to when that was
            just over (then it is False in the file).
        summary: the result as a dict: ``best_epoch``, ``best_top1``, ``chosen_on`` (``"test"`` or
            ``"validation"``), ``test_top1``, ``test_top5``, ``test_loss``, ``last_top1``,
            ``epochs``, ``seconds``.
        folder: where files were written; None: nowhere.
        checkpoint: path of the best checkpoint; None: none was written.
        picture: path of the picture; None: none was made (matplotlib is not installed).
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        super().__init__(dict(row) for row in rows)
        self.interrupted = False
        self.summary: dict[str, Any] = {}
        self.folder: str | None = None
        self.checkpoint: str | None = None
        self.picture: str | None = None

    def columns(self) -> list[str]:
        """The names of the columns that occur, in their usual order."""
        there = {name: None for row in self for name in row}
        known = [name for name in COLUMNS if name in there]
        return known + [name for name in there if name not in COLUMNS]

    def column(self, name: str) -> list[Any]:
        """One value a row; None where a row lacks it."""
        return [row.get(name) for row in self]

    @property
    def held_out(self) -> str:
        """The prefix of the columns that an epoch's evaluation fills: "val" or "test"."""
        return "val" if any("val_top1" in row for row in self) else "test"

    def csv_text(self) -> str:
        """The rows as CSV with a header line; missing values are empty."""
        out = io.StringIO()
        names = self.columns() or ["epoch"]
        writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in self)
        return out.getvalue()

    def json_text(self) -> str:
        """The rows and the summary as strict JSON (NaN and infinity become null)."""
        plain = {
            "interrupted": self.interrupted,
            "summary": {k: _plain_number(v) for k, v in self.summary.items()},
            "epochs": self.plain_rows(),
        }
        return json.dumps(plain, indent=1, allow_nan=False) + "\n"

    def plain_rows(self) -> list[dict[str, Any]]:
        """The rows for strict JSON: NaN and infinity become None."""
        return [{k: _plain_number(v) for k, v in row.items()} for row in self]

    @classmethod
    def from_plain_rows(cls, rows: Any) -> History:
        """The history of such rows; a missing number becomes NaN.

        Raises:
            ValueError: these are no rows of a history.
        """
        if not _are_rows(rows):
            raise ValueError("not the rows of a history")
        return cls({k: math.nan if v is None else v for k, v in row.items()} for row in rows)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes ``csv_text``; a reader sees the old file or the new one, never half of it.

        Raises:
            OSError: the file cannot be written; an earlier one is unchanged.
        """
        write_atomically(os.fspath(path), self.csv_text().encode())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes ``json_text``; a reader sees the old file or the new one, never half of it.

        Raises:
            OSError: the file cannot be written; an earlier one is unchanged.
        """
        write_atomically(os.fspath(path), self.json_text().encode())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> History:
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: the file is no history; the message names it.
            OSError: the file cannot be read.
        """
        with open(path, encoding="utf-8") as file:
            try:
                plain = json.load(file)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{os.fspath(path)}: not a JSON history: {error}.") from None
        rows = plain.get("epochs") if isinstance(plain, dict) else None
        summary = plain.get("summary", {}) if isinstance(plain, dict) else None
        if not isinstance(summary, dict) or not _are_rows(rows):
            raise ValueError(f"{os.fspath(path)}: not a history of attnnet.")
        history = cls.from_plain_rows(rows)
        history.summary = dict(summary)
        history.interrupted = bool(plain.get("interrupted", False))
        return history

    def __repr__(self) -> str:
        if not self:
            return "History(no epoch yet)"
        last = ", ".join(f"{k}={_shown(v)}" for k, v in self[-1].items())
        stopped = ", interrupted" if self.interrupted else ""
        return f"History({len(self)} epochs{stopped}; last: {last})"

    def _repr_html_(self) -> str:
        """For notebooks: a table, under its curves where matplotlib is installed."""
        names = self.columns()
        rows = [[_cell(name, row.get(name)) for name in names] for row in self]
        return _curves(self) + table(names, rows)


def _curves(history: History) -> str:
    """The curves as an HTML image; "" for fewer than two epochs or without matplotlib."""
    from importlib.util import find_spec

    if len(history) < 2 or find_spec("matplotlib") is None:
        return ""
    from ..plots import plot_history, png
    from ..report import picture

    return picture(png(plot_history(history), dpi=72), "accuracy and loss against the epoch")


def _are_rows(rows: Any) -> bool:
    """Whether this is a list of flat rows of numbers and text, numbers in the usual columns."""
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        return False
    # A table has as many cells as rows times columns, however few of them a file names.
    if len({name for row in rows for name in row}) > _MOST_COLUMNS:
        return False
    return all(
        value is None or _is_number(value) or (isinstance(value, str) and name not in COLUMNS)
        for row in rows
        for name, value in row.items()
    )


def _is_number(value: Any) -> bool:
    """Whether a float can hold this."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _shown(value: Any) -> str:
    """A value in one line."""
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _cell(name: str, value: Any) -> str:
    """A value of a column, with as many digits as it is worth, the same in every row."""
    digits = {"loss": 4, "top1": 2, "top5": 2, "second": 0, "seconds": 1}
    places = digits.get(name.rpartition("_")[2])
    if not isinstance(value, float):
        return _shown(value)
    return f"{value:.3g}" if places is None else f"{value:.{places}f}"
