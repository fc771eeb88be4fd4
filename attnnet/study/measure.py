"""What is measured of a run that is trained: size, work, speed, calibration, localisation."""

from __future__ import annotations

import json
import os
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, explain
from ..config import get_num_threads, machine
from ..training.checkpoint import load_model
from ..training.files import write_atomically
from ..training.history import History
from ..training.recipe import Recipe
from ..training.setup import at_most, load_data
from .folder import RESULT
from .predictions import Predictions

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import Module

LOOKED_AT = 500  # images that localisation is measured on, at most
BINS = 15


def write_result(folder: str, recipe: Recipe, source: str | None) -> None:
    """Measures a run that is trained, and writes its figures: from then on it is done.

    Raises:
        CheckpointError: the best checkpoint or the predictions cannot be read. DataError: the
            images cannot. OSError: the figures cannot be written.
    """
    history = History.from_json(os.path.join(folder, "history.json"))
    said = Predictions.read(folder)
    model, test = load_model(folder), load_data(recipe, source).test
    summary = model.summary(test.images.shape[1:])
    pace = statistics.median(row["images_per_second"] for row in history)
    result = {
        "recipe": recipe.to_dict(),
        "summary": history.summary,
        "ece": ece(said.confidence, said.right),
        "parameters": summary.total_parameters,
        "multiply_adds": summary.total_multiply_adds,
        "step_ms": 1000 * recipe.batch_size / pace if pace > 0 else None,
        "skipped": sum(row.get("skipped") or 0 for row in history),
        "localisation": _localisation(model, test),
        "attnnet": __version__,
        "threads": get_num_threads(),
        "machine": machine(),
    }
    text = json.dumps(_plain(result), indent=1, allow_nan=False) + "\n"
    write_atomically(os.path.join(folder, RESULT), text.encode())


def ece(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error in per cent: how far confidence is from accuracy.

    Images are put into bins of equal width by the probability of the class taken; the error is the
    mean over the images of |accuracy - mean confidence| of their bin. 0: of the images that the
    network is 80 % sure of, 80 % are right.

    Args:
        confidence: (N,) in 0..1. right: (N,) bool. bins: how many (default 15); a confidence on an
            edge belongs to the bin below.

    Paper: Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(100 * np.abs(gap).sum() / len(right))


def _localisation(model: Module, test: Dataset) -> dict[str, float] | None:
    """How much of Grad-CAM is on the object, for the true classes; None without masks."""
    if test.masks is None:
        return None
    try:
        explain.last_layer(model)
    except ValueError:  # a network of one's own that does not say which layer to look at
        return None
    some = at_most(test, LOOKED_AT, seed=0)
    seen = some.subset(np.flatnonzero(np.any(some.masks, axis=(1, 2))))
    if not len(seen):
        return None
    found = explain.measure_localisation(model, seen.images, seen.masks, target=seen.labels)
    (measures,) = found.values()
    return {name: 100 * measure.mean for name, measure in measures.items()}


def _plain(value: Any) -> Any:
    """For strict JSON: NaN and infinity as None, NumPy's numbers as Python's."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
