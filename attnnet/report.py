"""One HTML page that needs no other file: tables and pictures inside it, light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from .markup import Html, as_html, numeric_columns

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --line: #d9dee3; --back: #fff;
        --good: #0061a8; --bad: #b84300; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaed; --soft: #9aa4af; --line: #353c44; --back: #14181c;
          --good: #6cb6ff; --bad: #ff9e5e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
       max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.note { color: var(--soft); }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin-bottom: 1.2rem; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
         vertical-align: top; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; image-rendering: pixelated; }
td img { max-width: none; display: block; }
.right { color: var(--good); } .wrong { color: var(--bad); }
td.long { white-space: normal; min-width: 16rem; }
@media (max-width: 600px) {
  th, td { padding-right: .4rem; }
  th { white-space: normal; }
  td img { width: auto; height: 48px; } }
code { background: color-mix(in srgb, var(--line) 50%, transparent); padding: .1rem .3rem; }
"""

_LONG = 60  # characters of a cell that is read as text, not at a glance


def picture(image: np.ndarray | bytes, alt: str) -> Html:
    """An image inside the page.

    Args:
        image: uint8 (H, W, 3), or the bytes of a PNG file. alt: what it shows, in words.
    """
    from .explain.image import html_image

    return Html(html_image(image, alt))


class Page:
    """A page that grows from the top.

    Args:
        title: its heading.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Begins a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str, note: bool = False) -> None:
        """A paragraph; a note stands back."""
        self._parts.append(f"<p{' class=note' if note else ''}>{as_html(text)}</p>")

    def items(self, texts: Sequence[str], kinds: Sequence[str] = ()) -> None:
        """A list; ``kinds``: of each item "right", "wrong", "note" or "", default: none."""
        marks = [f" class={kind}" if kind else "" for kind in kinds or [""] * len(texts)]
        lines = (f"<li{m}>{as_html(text)}</li>" for text, m in zip(texts, marks, strict=True))
        self._parts.append("<ul>" + "\n".join(lines) + "</ul>")

    def add(self, html: Html) -> None:
        """Anything that is HTML already, such as a picture."""
        self._parts.append(f"<div class=wide>{html}</div>")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table; columns of numbers stand to the right, and those of long text may wrap."""
        cells = list(rows)
        written = [[as_html(cell) for cell in row] for row in cells]
        long = {
            i for row in cells for i, cell in enumerate(row)
            if not isinstance(cell, Html) and len(str(cell)) > _LONG
        }  # fmt: skip
        kinds = [
            " class=long" if i in long else " class=number" if is_number else ""
            for i, is_number in enumerate(numeric_columns(written, len(head)))
        ]

        def line(tag: str, cells: Sequence[str]) -> str:
            parts = (f"<{tag}{k}>{c}</{tag}>" for c, k in zip(cells, kinds, strict=True))
            return f"<tr>{''.join(parts)}</tr>"

        top = line("th", [as_html(cell) for cell in head])
        body = "\n".join(line("td", row) for row in written)
        self.add(Html(f"<table><thead>{top}</thead>\n<tbody>{body}</tbody></table>"))

    def html(self) -> str:
        """The whole page."""
        body = "\n".join(self._parts)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_STYLE}</style></head>\n"
            f"<body>\n{body}\n</body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the page; a reader sees the old file or the new one, never half of it.

        Raises:
            OSError: it cannot be written.
        """
        from .training.files import write_atomically

        write_atomically(os.fspath(path), self.html().encode())


class Markdown:
    """The same for what has no colours and shows no pictures.

    Args:
        title: its heading.
    """

    def __init__(self, title: str) -> None:
        self._parts: list[str] = [f"# {title}"]

    def heading(self, text: str) -> None:
        """Begins a section."""
        self._parts.append(f"## {text}")

    def text(self, text: str, note: bool = False) -> None:
        """A paragraph."""
        self._parts.append(text)

    def items(self, texts: Sequence[str], kinds: Sequence[str] = ()) -> None:
        """A list."""
        self._parts.append("\n".join(f"- {text}" for text in texts))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table."""
        lines = (
            "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
            for row in [head, ["---"] * len(head), *rows]
        )
        self._parts.append("\n".join(lines))

    def __str__(self) -> str:
        """The whole of it."""
        return "\n\n".join(self._parts) + "\n"
