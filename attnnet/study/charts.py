"""The figures of a study's report. Need matplotlib (attnnet[plots])."""

from __future__ import annotations

import io
import math
import re
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..markup import Html
from ..plots import COLOURS, MARKERS, new_figure
from .presets import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .plan import Family
    from .results import Results, Row

_INK, _SOFT = "#010203", "#040506"  # stand for the page's colours; see `svg`
_LINES = ("-", "--", "-.", ":")


def curves(results: Results, family: Family) -> Figure | None:
    """Validation accuracy against the epoch: the mean over the seeds, with a band from the lowest
    to the highest seed; None before the first epoch."""
    found = {row.name: _accuracies(results, row) for row in results.of(family)}
    found = {name: values for name, values in found.items() if values.size}
    if not found:
        return None
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    for i, (name, values) in enumerate(found.items()):
        colour, line = COLOURS[i % 6], _LINES[i // 6 % len(_LINES)]
        epochs = np.arange(1, values.shape[1] + 1)
        axes.plot(
            epochs, values.mean(0), line, color=colour, label=name, linewidth=1.6, markersize=4,
            marker=MARKERS[i % len(MARKERS)], markevery=max(1, len(epochs) // 12),
        )  # fmt: skip
        if len(values) > 1:
            axes.fill_between(
                epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0
            )
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_ylabel("validation accuracy, %")
    _plain(axes)
    axes.legend(frameon=False, fontsize=9, ncols=2, labelcolor=_INK)
    return figure


def effects(results: Results, family: Family) -> Figure | None:
    """Differences to the base: the mean with its interval over seeds, each seed, and what was
    published; None where nothing is compared."""
    rows = [row for row in results.of(family) if row.difference is not None]
    if not rows:
        return None
    published = PUBLISHED.get((family.arch, family.dataset), {})
    figure = new_figure(7.5, 0.42 * len(rows) + 1.3)
    axes = figure.subplots()
    for y, row in enumerate(rows):
        gap = row.difference
        colour = {"better": COLOURS[0], "worse": COLOURS[1]}.get(row.verdict, _SOFT)
        axes.plot(list(row.differences.values()), [y] * len(row.differences), "|", color=_SOFT)
        if not math.isnan(gap.low):  # type: ignore[union-attr]
            axes.plot([gap.low, gap.high], [y, y], color=colour, linewidth=2)  # type: ignore[union-attr]
        axes.plot(gap.mean, y, "o", color=colour, markersize=7)  # type: ignore[union-attr]
        if row.block in published and None in published:
            there = published[row.block][0] - published[None][0]
            axes.plot(there, y, "D", markerfacecolor="none", markeredgecolor=COLOURS[2])
    axes.axvline(0, color=_INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("test accuracy against the base on the same seeds, points")
    _plain(axes)
    return figure


def _accuracies(results: Results, row: Row) -> np.ndarray:
    """(seeds, epochs) validation accuracy of the runs that are done."""
    found = []
    for one in row.done.values():
        history = results.histories[one.run.name]
        if history is None:
            continue
        values = history.column(f"{history.held_out}_top1")
        found.append([math.nan if v is None else v for v in values])
    shortest = min(map(len, found), default=0)
    return np.array([values[:shortest] for values in found])


def _plain(axes: Axes) -> None:
    axes.grid(color=_SOFT, alpha=0.2)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.tick_params(colors=_SOFT, labelcolor=_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)


def svg(figure: Figure, alt: str) -> Html:
    """The figure as SVG for a page, in the page's own colours of text, light and dark.

    Args:
        figure: of this module. alt: what it shows, in words.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "attnnet"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(_SOFT, "var(--soft)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # As wide as its place, but never wider than drawn.
    text = re.sub(
        r'<svg [^>]*?width="([\d.]+)pt" height="[\d.]+pt"',
        lambda match: f'<svg role="img" aria-label="{escape(alt)}" xmlns="http://www.w3.org/2000/'
        f'svg" xmlns:xlink="http://www.w3.org/1999/xlink" style="width:100%;max-width:{match[1]}'
        'pt;height:auto"', text, count=1,
    )  # fmt: skip
    return Html(text)
