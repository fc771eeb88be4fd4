"""What a training shows: a bar while it works, one line an epoch, and nothing that floods a log.

In a terminal the bar is tqdm's, on stderr, and vanishes with its epoch; in a notebook it is a
widget where ipywidgets is installed; anywhere else (a log file, a pipe) there are only the lines.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .callbacks import BatchResult, Callback

if TYPE_CHECKING:
    from .history import History
    from .trainer import Trainer


def duration(seconds: float) -> str:
    """Seconds as people say them: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def epoch_line(row: dict[str, Any], epochs: int, remaining: float | None) -> str:
    """One epoch in one line.

    Args:
        row: a row of the history.
        epochs: epochs in all.
        remaining: seconds still to go; None or 0: not shown.
    """
    width = len(str(epochs))
    parts = [
        f"epoch {row['epoch']:>{width}}/{epochs}",
        f"loss {row['train_loss']:.4f}",
        f"acc {row['train_top1']:5.2f} %",
    ]
    for split in ("val", "test"):
        if f"{split}_loss" in row:
            parts.append(f"{split} loss {row[f'{split}_loss']:.4f}")
            parts.append(f"{split} acc {row[f'{split}_top1']:5.2f} %")
    parts.append(f"lr {row['lr']:.3g}")
    parts.append(f"{row['images_per_second']:.0f} images/s")
    if row.get("skipped"):
        parts.append(f"{row['skipped']} steps skipped (NaN)")
    if remaining:
        parts.append(f"ETA {duration(remaining)}")
    return "  ".join(parts)


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def bar_class() -> Any | None:
    """tqdm's class for this place; None where a bar would only fill a log."""
    if in_notebook():
        try:
            import ipywidgets  # noqa: F401
            from tqdm.notebook import tqdm
        except ImportError:
            return None
        return tqdm
    if not (hasattr(sys.stderr, "isatty") and sys.stderr.isatty()):
        return None
    from tqdm import tqdm

    return tqdm


def check_progress(progress: object) -> None:
    """Refuses what says neither how much to show nor that nothing is to be shown.

    Raises:
        ValueError: it is not True, False or "lines".
    """
    if not isinstance(progress, bool) and progress != "lines":
        raise ValueError(f"progress is {progress!r}; expected True, False or 'lines'.")


class BarAndLines(Callback):
    """The bar and the lines of a training.

    Args:
        bar: show the bar where the place has room for one; False: only the lines.
    """

    def __init__(self, bar: bool = True) -> None:
        self._bar_of = bar_class() if bar else None
        self._bar: Any = None
        self._title = ""

    def _say(self, text: str) -> None:
        self._close()
        print(text, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self._close()
        self._title = title
        if self._bar_of is not None:
            self._bar = self._bar_of(
                total=total, initial=done, desc=title, unit=unit, leave=False, dynamic_ncols=True
            )

    def on_train_begin(self, trainer: Trainer) -> None:
        for line in trainer.describe():
            self._say(line)

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        title = f"epoch {epoch + 1}/{trainer.recipe.epochs}"
        size = trainer.recipe.batch_size
        done = min(trainer.batch * size, trainer.train_images)
        self._open(title, trainer.train_images, "img", done)

    def on_batch_end(self, trainer: Trainer, result: BatchResult) -> None:
        if self._bar is not None:
            figures = f"loss {result.epoch_loss:.3f}, acc {result.epoch_top1:.1f} %"
            self._bar.set_postfix_str(figures, refresh=False)
            self._bar.update(result.images)

    def on_evaluate(self, trainer: Trainer, done: int, total: int) -> None:
        if self._bar_of is None:
            return
        if self._bar is None or self._title != "evaluation":
            self._open("evaluation", total, "img")
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done >= total:
                self._close()

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self._say(epoch_line(row, trainer.recipe.epochs, trainer.remaining_seconds()))

    def on_message(self, trainer: Trainer, text: str) -> None:
        self._say(text)

    def on_train_end(self, trainer: Trainer, history: History) -> None:
        self._close()
