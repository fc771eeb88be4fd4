"""Figures: the curves of trainings, and the picture of one. Needs matplotlib (attnnet[plots]).

Colours are those of Okabe and Ito, which the colour-blind tell apart; curves differ in their
markers as well. Every function returns a matplotlib Figure, which a notebook shows and
``savefig("x.png")`` or ``savefig("x.svg")`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import unknown_name
from .extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .data import Dataset
    from .training import Callback, Evaluation, History, Recipe, Trainer

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vP*"
_INK, _SOFT = "#212529", "#6c757d"
METRICS = {"top1": ("accuracy", "%"), "loss": ("loss", "")}
AGAINST = ("epochs", "minutes")
_PITCH = (1.06, 1.32)  # from one image of a sheet to the next, along and down, in images


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which needs no screen and shows itself in a notebook.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to install it.
    """
    class Picture(need("matplotlib.figure").Figure):
        def _repr_png_(self) -> bytes:
            return png(self)

    return Picture(figsize=(width, height), layout="constrained")


def png(figure: Figure, dpi: float = 100) -> bytes:
    """The figure as the bytes of a PNG file."""
    import io

    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi)
    return out.getvalue()


def plot_history(
    histories: History | Mapping[str, History],
    metrics: Sequence[str] = ("top1", "loss"),
    epochs: tuple[int, int] | None = None,
    split: str | None = None,
    against: str = "epochs",
) -> Figure:
    """Accuracy and loss of one or many trainings against the epoch or the time.

    Args:
        histories: a history, or histories by the names that the legend shows.
        metrics: "top1" (%), "loss" or both (default), one chart each.
        epochs: the first and the last epoch to show; the other axis follows what is in sight
            (default: all).
        split: "train", or "test" for the held out images (those of the test or of the validation
            split, whichever was evaluated after each epoch). Default: both where there is one
            history, else "test". Where some histories have a test and others a validation
            split, the legend says which each curve is of, else the title.
        against: "epochs" (default), or "minutes" that training and evaluation took until then,
            without the pauses between a stop and going on.

    Raises:
        ValueError: no history, an unknown metric, split or ``against``, a range without an epoch,
            or a history without times where minutes are asked for.
        ModuleNotFoundError: matplotlib is not installed.
    """
    named = {"": histories} if isinstance(histories, list) else dict(histories)
    _check_choices(metrics, epochs, split)
    _check(named, epochs, against)
    shown = (split,) if split else ("train", "test") if len(named) == 1 else ("test",)
    splits = {_words(history, part) for history in named.values() for part in shown}
    figure = new_figure(5.2 * len(metrics), 3.6)
    for axes, metric in zip(np.ravel(figure.subplots(1, len(metrics))), metrics, strict=True):
        curves, minutes = {}, {}
        for name, history in named.items():
            for part in shown:
                label = " ".join(filter(None, (name, _words(history, part))))
                if len(splits) == 1 and "" not in named:  # the title says which split it is
                    label = name
                curves[label] = history.column(_column(history, part, metric))
                if against == "minutes":
                    minutes[label] = np.cumsum(history.column("seconds")) / 60
        title, unit = METRICS[metric]
        what = "" if len(splits) > 1 else f"{next(iter(splits))} "
        draw_curves(axes, curves, epochs, minutes or None)
        axes.set_title((what + title).capitalize() + (f" ({unit})" if unit else ""), loc="left")
    return figure


def draw_curves(
    axes: Axes,
    curves: Mapping[str, Sequence[Any]],
    epochs: tuple[int, int] | None = None,
    minutes: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Draws named curves of one value an epoch (None or NaN: no value there) with a legend.

    Args:
        minutes: where each curve's epochs end; None: the axis is that of epochs.
    """
    low, high = epochs or (1, max((len(values) for values in curves.values()), default=1))
    drawn: list[Any] = []
    for i, (name, values) in enumerate(curves.items()):
        x = np.arange(1, len(values) + 1)
        y = np.array([np.nan if value is None else value for value in values], float)
        inside = (x >= low) & (x <= high)
        drawn += axes.plot(
            (minutes[name] if minutes else x)[inside],
            y[inside],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markevery=max(1, int(inside.sum()) // 12),
            markersize=4,
            linewidth=1.6,
            label=name,
        )
    axes.set_xlabel("minutes" if minutes else "epoch")
    if minutes:
        axes.set_xlim(left=0)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if low == min(high, max(map(len, curves.values()), default=1)):
            axes.set_xlim(low - 0.5, low + 0.5)  # one epoch: a point, and no fractions of an epoch
    axes.grid(color="#e2e6ea")
    axes.spines[["top", "right"]].set_visible(False)
    # Names go in afterwards: a label that begins with "_" hides its curve from the legend.
    legend = axes.legend(drawn, list(map(str, range(len(drawn)))), frameon=False, fontsize=9)
    for text, name in zip(legend.get_texts(), curves, strict=True):
        text.set_text(name)


def draw_sheet(
    recipe: Recipe, history: History, dataset: Dataset, evaluation: Evaluation
) -> Figure:
    """The picture of a training: its curves, test images with their labels, its surest mistakes.

    Args:
        recipe: for the title.
        history: the curves; at least one row.
        dataset: the images that were evaluated, 1 or 3 channels (further ones are not shown).
        evaluation: of those images, in the same order.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    columns = 9
    right = evaluation.predictions == dataset.labels
    mistakes = np.flatnonzero(~right)
    surest = mistakes[np.argsort(-evaluation.confidence[mistakes], kind="stable")][:columns]
    some = dataset.spread(2 * columns)
    groups = [(title, indices) for title, indices in
              (("Test images", some), ("Surest mistakes", surest)) if len(indices)]  # fmt: skip
    rows = [-(-len(indices) // columns) for _, indices in groups]
    heights = [4, *(0.45 + 1.2 * _PITCH[1] * many for many in rows)]
    figure = new_figure(12, sum(heights))
    top, *below = figure.subfigures(1 + len(groups), 1, height_ratios=heights)
    block = recipe.block or "no attention block"
    top.suptitle(
        f"{recipe.arch}, {block}, on {dataset.name}: {evaluation.top1:.2f} % of "
        f"{evaluation.images:,} test images right, {len(mistakes):,} wrong "
        f"({len(history)} epochs, seed {recipe.seed})",
        x=0.01, ha="left", color=_INK,
    )  # fmt: skip
    for axes, metric in zip(top.subplots(1, 2), METRICS, strict=True):
        curves = {_words(history, part): history.column(_column(history, part, metric))
                  for part in ("train", "test")}  # fmt: skip
        draw_curves(axes, curves)
        name, unit = METRICS[metric]
        axes.set_title(name.capitalize() + (f" ({unit})" if unit else ""), loc="left")
    for part, many, (title, indices) in zip(below, rows, groups, strict=True):
        part.suptitle(title, x=0.01, ha="left", color=_INK, fontsize=11)
        # All in one chart: a chart for each takes matplotlib longer than a short training.
        axes = part.subplots()
        for place, index in enumerate(indices):
            down, along = divmod(place, columns)
            corner = (_PITCH[0] * along, _PITCH[1] * down)
            _tile(axes, corner, dataset, evaluation, int(index), bool(right[index]))
        axes.set_xlim(-0.04, _PITCH[0] * columns - 0.02)
        axes.set_ylim(_PITCH[1] * many - 0.16, -0.16)
        axes.set_aspect("equal")
        axes.set_axis_off()
    return figure


def _tile(
    axes: Axes,
    corner: tuple[float, float],
    dataset: Dataset,
    evaluation: Evaluation,
    index: int,
    right: bool,
) -> None:
    """A test image in the unit square below a corner, between its predicted label and how sure
    that is, or what it is instead."""
    pixels = dataset.images[index]
    planes = pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0)
    height, width = np.array(planes.shape[1:]) / max(planes.shape[1:])
    middle, centre = corner[0] + 0.5, corner[1] + 0.5
    left, top = middle - width / 2, centre - height / 2
    colour = COLOURS[0] if right else COLOURS[1]
    axes.imshow(
        planes.transpose(1, 2, 0), interpolation="nearest",
        extent=(left, left + width, top + height, top),
    )  # fmt: skip
    axes.add_patch(need("matplotlib.patches").Rectangle(
        (left, top), width, height, fill=False, edgecolor=colour, linewidth=2
    ))  # fmt: skip
    names, label = dataset.classes, int(dataset.labels[index])
    over = ("✓ " if right else "✗ ") + _cut(names[int(evaluation.predictions[index])])
    under = f"{100 * evaluation.confidence[index]:.0f} %" if right else f"is {_cut(names[label])}"
    # The axes leave room for them: measuring each for the layout takes as long as drawing them.
    options: dict[str, Any] = {"ha": "center", "in_layout": False}
    axes.text(middle, top - 0.03, over, fontsize=9, color=colour, va="bottom", **options)
    axes.text(middle, top + height + 0.03, under, fontsize=8, color=_SOFT, va="top", **options)


def _cut(text: str, most: int = 14) -> str:
    """A label short enough for its tile."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _column(history: History, part: str, metric: str) -> str:
    return f"{part if part == 'train' else history.held_out}_{metric}"


def _words(history: History, part: str) -> str:
    names = {"train": "training", "test": "test", "val": "validation"}
    return names[part if part == "train" else history.held_out]


def _check_choices(
    metrics: Sequence[str], epochs: tuple[int, int] | None, split: str | None
) -> None:
    """What can be said without a history."""
    if not metrics:
        raise ValueError("metrics: nothing to plot; give a metric")
    for metric in metrics:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
    if split not in (None, "train", "test"):
        raise unknown_name("split", str(split), ("train", "test"))
    if epochs is not None and not 1 <= epochs[0] <= epochs[1]:
        raise ValueError(f"epochs: got {epochs[0]} to {epochs[1]}, expected a range from 1 on")


def _check(
    named: Mapping[str, History], epochs: tuple[int, int] | None, against: str
) -> None:
    if not named:
        raise ValueError("plot_history: nothing to plot; give a history")
    if against not in AGAINST:
        raise unknown_name("against", against, AGAINST)
    timeless = [name for name, history in named.items() if None in history.column("seconds")]
    if against == "minutes" and timeless:
        raise ValueError(f"against: got 'minutes', but the history {timeless[0]!r} has no seconds")
    if epochs is not None:
        longest = max(len(history) for history in named.values())
        if epochs[0] > longest:
            raise ValueError(
                f"epochs: got {epochs[0]} to {epochs[1]}, expected a range that starts within "
                f"1 to {longest}"
            )


class LivePlot:
    """A plot in a notebook that grows while trainings run, a curve a training.

        >>> live = attnnet.plots.LivePlot()
        >>> for block in (None, "CBAM_12"):
        ...     attnnet.train(recipe.replace(block=block), f"runs/{block}",
        ...                   callbacks=[live.follow(block or "base")])

    Outside a notebook it draws nothing; ``figure`` gives the plot as it stands.

    Args:
        metrics, epochs, split: as for :func:`plot_history`. Nothing is drawn before a training
            reaches the first of ``epochs``.

    Raises:
        ValueError: an unknown metric or split, or a range without an epoch.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("top1", "loss"),
        epochs: tuple[int, int] | None = None,
        split: str = "test",
    ) -> None:
        _check_choices(metrics, epochs, split)
        self.histories: dict[str, History] = {}
        self._options: dict[str, Any] = {"metrics": metrics, "epochs": epochs, "split": split}
        self._handle: Any = None

    def follow(self, name: str) -> Callback:
        """A callback for the training that the legend calls so."""
        from .training.callbacks import Callback

        live = self

        class Follow(Callback):
            def on_train_begin(self, trainer: Trainer) -> None:
                live.histories[name] = trainer.history
                live._show()

            def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
                live._show()

        return Follow()

    def add(self, name: str, history: History) -> None:
        """Shows a history that is there already."""
        self.histories[name] = history
        self._show()

    @property
    def figure(self) -> Figure:
        """The plot of all histories that have an epoch.

        Raises:
            ValueError: none has, or none reaches the range of ``epochs``.
        """
        return plot_history({k: h for k, h in self.histories.items() if h}, **self._options)

    def _show(self) -> None:
        from .training.progress import in_notebook

        first = (self._options["epochs"] or (1,))[0]
        longest = max(map(len, self.histories.values()), default=0)
        if not in_notebook() or longest < first:
            return
        from IPython.display import Image, display

        picture = Image(png(self.figure))
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)
