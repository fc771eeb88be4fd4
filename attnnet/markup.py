"""HTML that notebooks show: tables whose columns stand as they read, text left, numbers right.

JupyterLab sets every cell to the right and colours the rows itself; so only the alignment is said
here, and no colour, which keeps both of its themes readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is HTML already; all other text is escaped."""


def as_html(cell: object) -> str:
    """A cell as HTML."""
    return cell if isinstance(cell, Html) else escape(str(cell))


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number, with or without a sign or %, or as none."""
    return cell.strip("%+-~ ").replace(",", "").replace(".", "", 1).isdigit() or cell in ("", "-")


def numeric_columns(rows: Sequence[Sequence[str]], columns: int) -> list[bool]:
    """For each column whether all its cells are numbers."""
    return [bool(rows) and all(is_number(row[i]) for row in rows) for i in range(columns)]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table for a notebook.

    Args:
        head: the columns' names; empty: none, and each row's first cell is its name.
        rows: the cells.
    """
    cells = [[as_html(cell) for cell in row] for row in rows]
    columns = len(head) or max((len(row) for row in cells), default=0)
    sides = ["right" if number else "left" for number in numeric_columns(cells, columns)]

    def line(row: Sequence[str], tags: Sequence[str]) -> str:
        return "<tr>" + "".join(
            f'<{tag} style="text-align:{side}">{cell}</{tag}>'
            for cell, tag, side in zip(row, tags, sides, strict=True)
        ) + "</tr>"  # fmt: skip

    tags = ["td"] * columns if head else ["th", *["td"] * (columns - 1)]
    body = "".join(line(row, tags) for row in cells)
    top = ""
    if head:
        names = line([as_html(name) for name in head], ["th"] * columns)
        top = f"<thead>{names}</thead>"
    return Html(f"<table>{top}<tbody>{body}</tbody></table>")


def folded(title: str, inside: str, is_open: bool = False) -> Html:
    """Something under a title that opens it."""
    state = " open" if is_open else ""
    return Html(f"<details{state}><summary>{as_html(title)}</summary>{inside}</details>")
