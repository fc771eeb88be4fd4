"""One picture of a training: its curves, and test images with their true and predicted labels.

Drawn with Pillow alone. Charts are drawn at twice the size and brought down, which smooths their
lines. Right and wrong differ by a mark as well as by colour (blue and orange).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from ..data import Dataset
    from .evaluate import Evaluation
    from .history import History
    from .recipe import Recipe

_WIDTH, _MARGIN, _GAP = 1200, 36, 28
_CHART_HEIGHT = 300
_TILE, _COLUMNS = 96, 9
_INK, _SOFT, _GRID = (33, 37, 41), (108, 117, 125), (226, 230, 234)
_BLUE, _ORANGE = (31, 95, 168), (208, 84, 0)
_FINE = 2  # charts are drawn this many times larger


def draw_sheet(
    recipe: Recipe, history: History, dataset: Dataset, evaluation: Evaluation
) -> Image.Image:
    """The picture of a training.

    Args:
        recipe: for the title.
        history: the curves; at least one row.
        dataset: the images that were evaluated, 1 or 3 channels (further ones are not shown).
        evaluation: of those images, in the same order.

    Returns:
        An RGB image, 1200 pixels wide.
    """
    from PIL import Image, ImageDraw

    charts = _charts(history)
    chosen, wrong = _choose(dataset, evaluation)
    rows = [(title, picks) for title, picks in chosen if len(picks)]
    row_height = _TILE + 46
    blocks = sum(34 + row_height * -(-len(picks) // _COLUMNS) for _, picks in rows)
    height = 118 + _CHART_HEIGHT + _GAP + blocks + _MARGIN
    sheet = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(sheet)
    block = recipe.block or "no attention block"
    draw.text((_MARGIN, 30), f"{recipe.arch}, {block}, on {dataset.name}", _INK, _font(28))
    line = (
        f"{evaluation.top1:.2f} % of {evaluation.images:,} test images right, {wrong:,} wrong;  "
        f"{len(history)} epochs, seed {recipe.seed}"
    )
    draw.text((_MARGIN, 72), line, _SOFT, _font(17))
    width = (_WIDTH - 2 * _MARGIN - _GAP) // 2
    for i, (title, curves, unit) in enumerate(charts):
        chart = _chart(title, curves, unit, width, _CHART_HEIGHT)
        sheet.paste(chart, (_MARGIN + i * (width + _GAP), 112))
    y = 112 + _CHART_HEIGHT + _GAP
    for title, picks in rows:
        draw.text((_MARGIN, y), title, _INK, _font(17))
        y += 34
        for place, index in enumerate(picks):
            x = _MARGIN + (place % _COLUMNS) * (_WIDTH - 2 * _MARGIN + 24) // _COLUMNS
            top = y + place // _COLUMNS * row_height
            _tile(sheet, draw, (x, top), dataset, evaluation, int(index))
        y += row_height * -(-len(picks) // _COLUMNS)
    return sheet


def _font(size: int) -> Any:
    """Pillow's own font; the small fixed one where this Pillow was built without FreeType."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):
        return ImageFont.load_default()


def _charts(history: History) -> list[tuple[str, dict[str, list[Any]], str]]:
    """Title, named curves and unit of each chart."""
    split = "val" if any("val_top1" in row for row in history) else "test"
    name = "validation" if split == "val" else "test"
    out = []
    for title, key, unit in (("Accuracy", "top1", " %"), ("Loss", "loss", "")):
        curves = {
            "training": history.column(f"train_{key}"),
            name: history.column(f"{split}_{key}"),
        }
        out.append((title, curves, unit))
    return out


def _choose(
    dataset: Dataset, evaluation: Evaluation
) -> tuple[list[tuple[str, np.ndarray]], int]:
    """Two rows of any images, one of the most confident mistakes; and how many mistakes."""
    right = evaluation.predictions == dataset.labels
    mistakes = np.flatnonzero(~right)
    worst = mistakes[np.argsort(-evaluation.confidence[mistakes], kind="stable")][:_COLUMNS]
    count = min(2 * _COLUMNS, len(dataset.labels))
    # Spread over the set, with a stride that shares no factor with a usual number of classes.
    spread = np.arange(count) * 7919 % len(dataset.labels)
    return [("Test images", np.unique(spread)), ("Its surest mistakes", worst)], len(mistakes)


def _tile(
    sheet: Image.Image, draw: Any, at: tuple[int, int], dataset: Dataset, evaluation: Evaluation,
    index: int,
) -> None:  # fmt: skip
    """One test image, enlarged without blurring, over its predicted and its true label."""
    from PIL import Image

    pixels = dataset.images[index]
    planes = pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0)
    image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    if max(image.size) <= _TILE:
        image = image.resize((_TILE, _TILE), Image.Resampling.NEAREST)
    else:
        image = image.resize((_TILE, _TILE), Image.Resampling.LANCZOS)
    x, y = at
    sheet.paste(image, at)
    label, taken = int(dataset.labels[index]), int(evaluation.predictions[index])
    right = label == taken
    colour = _BLUE if right else _ORANGE
    draw.rectangle((x - 2, y - 2, x + _TILE + 1, y + _TILE + 1), outline=colour, width=2)
    names = dataset.classes
    small = _font(13)
    _mark(draw, (x, y + _TILE + 8), right, colour)
    draw.text((x + 15, y + _TILE + 5), _cut(names[taken], 15), colour, small)
    under = f"{100 * evaluation.confidence[index]:.0f} %" if right else f"is {names[label]}"
    draw.text((x + 15, y + _TILE + 21), _cut(under, 16), _SOFT, small)


def _mark(draw: Any, at: tuple[int, int], right: bool, colour: tuple[int, int, int]) -> None:
    """A tick or a cross, 9 pixels wide."""
    x, y = at
    if right:
        draw.line([(x, y + 5), (x + 3, y + 8), (x + 9, y + 1)], colour, width=2, joint="curve")
    else:
        draw.line([(x + 1, y + 1), (x + 8, y + 8)], colour, width=2)
        draw.line([(x + 8, y + 1), (x + 1, y + 8)], colour, width=2)


def _cut(text: str, most: int) -> str:
    """A label short enough for its tile."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _chart(
    title: str, curves: dict[str, list[Any]], unit: str, width: int, height: int
) -> Image.Image:
    """A line chart; curves are lists with one value an epoch, None or NaN where there is none."""
    from PIL import Image, ImageDraw

    scale = _FINE
    image = Image.new("RGB", (width * scale, height * scale), "white")
    draw = ImageDraw.Draw(image)
    values = [np.array([np.nan if v is None else v for v in c], float) for c in curves.values()]
    known = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.empty(0)
    low, high = _range(known, unit)
    epochs = max(len(v) for v in values)
    left, right, top, bottom = 58 * scale, (width - 10) * scale, 40 * scale, (height - 36) * scale
    font = _font(13 * scale)

    def place(epoch: float, value: float) -> tuple[float, float]:
        part = (epoch - 1) / (epochs - 1) if epochs > 1 else 0.5
        return left + part * (right - left), bottom - (value - low) / (high - low) * (bottom - top)

    for tick in _ticks(low, high, 5):
        _, y = place(1, tick)
        draw.line([(left, y), (right, y)], _GRID, scale)
        draw.text((left - 8 * scale, y), f"{tick:g}{unit}", _SOFT, font, anchor="rm")
    for tick in _ticks(1, epochs, 8, whole=True):
        x, _ = place(tick, low)
        draw.text((x, bottom + 8 * scale), f"{tick:g}", _SOFT, font, anchor="ma")
    draw.text((right, bottom + 22 * scale), "epoch", _SOFT, font, anchor="ra")
    draw.text((0, 6 * scale), title, _INK, _font(17 * scale))
    x = right
    for name, series, colour in reversed(list(zip(curves, values, (_SOFT, _BLUE), strict=True))):
        points = [place(i + 1, v) for i, v in enumerate(series) if np.isfinite(v)]
        if len(points) > 1:
            draw.line(points, colour, round(2.2 * scale), joint="curve")
        for px, py in points if len(points) <= 40 else []:
            r = 3 * scale
            draw.ellipse((px - r, py - r, px + r, py + r), fill=colour)
        draw.text((x, 8 * scale), name, colour, font, anchor="ra")
        x -= draw.textlength(name, font) + 8 * scale
        draw.line([(x - 22 * scale, 16 * scale), (x, 16 * scale)], colour, 3 * scale)
        x -= 46 * scale
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _range(known: np.ndarray, unit: str) -> tuple[float, float]:
    """The values a chart spans: round numbers around what is known."""
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    if unit:  # a percentage ends at 100, and starts at 0 unless all of it is near the top
        step = 10.0 if low < 80 else 5.0
        return (0.0 if low < 60 else np.floor(low / step) * step), 100.0
    ticks = _ticks(0.0, high * 1.05 or 1.0, 5)
    step = ticks[1] - ticks[0]
    return 0.0, float(np.ceil(high * 1.02 / step) * step) or step


def _ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """At most about ``most`` round numbers from low to high."""
    span = max(high - low, 1e-9)
    raw = span / most
    size = 10.0 ** np.floor(np.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * 0.999)
    step = max(1.0, step) if whole else step
    first = np.ceil(low / step) * step
    count = int(np.floor((high - first) / step + 1e-9)) + 1
    return [float(first + i * step) for i in range(count)]
