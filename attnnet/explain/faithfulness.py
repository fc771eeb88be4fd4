"""Whether a map tells what the network used: what happens when the pixels it names change.

All look at the probability of one class an image (default: the predicted one), take the images
and models that ``cam`` takes, and return a ``Measure`` with one value an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..nn.layers import positive
from ..nn.modes import evaluating
from ..nn.module import Module
from ..tensor import Tensor
from .inputs import pictures
from .measure import Measure, Measures
from .targets import Target

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class _Asked:
    """A network, images, maps and classes that fit each other."""

    def __init__(self, model: Module, images: Any, maps: Any, target: Any, batch_size: int) -> None:
        self.model, self.batch_size = model, positive(batch_size, "batch_size")
        self.x = pictures(model, images)
        self.maps = np.asarray(maps, np.float32)
        if self.maps.shape != (len(self.x), *self.x.shape[2:]):
            raise ValueError(
                f"maps must be {(len(self.x), *self.x.shape[2:])} for these images, got "
                f"{self.maps.shape}"
            )
        if not np.isfinite(self.maps).all():
            raise ValueError("maps must be finite")
        logits = self.logits(self.x)
        chosen = Target(target, len(self.x), getattr(model, "class_names", None)).fixed(logits)
        if chosen.classes is None:
            raise ValueError("target must be classes here: probabilities are compared")
        self.classes = chosen.classes
        self.before = self._of_class(logits)

    def logits(self, x: np.ndarray) -> np.ndarray:
        with evaluating(self.model):
            return np.concatenate([
                self.model(Tensor(x[start : start + self.batch_size])).numpy()
                for start in range(0, len(x), self.batch_size)
            ])

    def _of_class(self, logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        return powers[np.arange(len(logits)), self.classes] / powers.sum(1)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(N,) of each image's class."""
        return self._of_class(self.logits(x.astype(np.float32)))

    def order(self, seed: int) -> np.ndarray:
        """(N, HW) pixels, the map's largest value first; ties in random order."""
        flat = self.maps.reshape(len(self.x), -1)
        ties = np.random.default_rng(seed).permuted(
            np.tile(np.arange(flat.shape[1]), (len(flat), 1)), axis=1
        )
        return np.take_along_axis(
            ties, np.argsort(-np.take_along_axis(flat, ties, 1), 1, kind="stable"), 1
        )

    def first(self, order: np.ndarray, share: float) -> np.ndarray:
        """bool (N, H, W): the first pixels of an order, as many as the share says."""
        chosen = np.zeros(order.shape, bool)
        count = round(share * order.shape[1])
        np.put_along_axis(chosen, order[:, :count], True, 1)
        return chosen.reshape(self.maps.shape)


def deletion(
    model: Module, images: Any, maps: Any, target: Any = None, steps: int = 32,
    value: float = 0.0, seed: int = 0, batch_size: int = 128,
) -> Measure:  # fmt: skip
    """Area under the class's probability while pixels are deleted, most important first. Low is
    good.

    Args:
        model, images, target, batch_size: as for :func:`attnnet.explain.cam`; target: classes.
        maps: (N, H, W), of the images' size; a ``CAM`` too.
        steps: equal portions that the pixels go in, default 32.
        value: what deleted pixels become, normalised; default 0, the data set's mean colour.
        seed: of the order among equal values.

    Returns:
        Values in 0..1, by the trapezoid rule over the share deleted.

    Raises:
        ValueError: for maps that do not fit, a target function, and as ``cam`` does.

    Paper: Petsiuk et al. 2018, "RISE", arXiv:1806.07421.
    """
    asked = _Asked(model, images, maps, target, batch_size)
    return Measure("deletion AUC", _area(asked, asked.x, np.float32(value), steps, seed))


def insertion(
    model: Module, images: Any, maps: Any, target: Any = None, steps: int = 32,
    blur: float = 5.0, seed: int = 0, batch_size: int = 128,
) -> Measure:  # fmt: skip
    """Area under the class's probability while a blurred image gets its pixels back, most
    important first. High is good.

    Args:
        model, images, maps, target, steps, seed, batch_size: as for :func:`deletion`.
        blur: standard deviation in pixels of the Gaussian blur, default 5.

    Returns, Raises: as :func:`deletion`. Paper: as there.
    """
    asked = _Asked(model, images, maps, target, batch_size)
    rows, columns = (_gaussian(side, float(blur)) for side in asked.x.shape[2:])
    blurred = rows @ asked.x @ columns.T
    return Measure("insertion AUC", _area(asked, blurred, asked.x, steps, seed))


def _area(
    asked: _Asked, start: np.ndarray, end: np.ndarray | np.float32, steps: int, seed: int
) -> np.ndarray:
    """Area under the probability on the way from ``start`` to ``end``, pixel after pixel."""
    order = asked.order(seed)
    curve = [
        asked.probabilities(
            np.where(asked.first(order, step / steps)[:, None], end, start)
        )
        for step in range(positive(steps, "steps") + 1)
    ]
    return np.trapezoid(curve, dx=1 / steps, axis=0)


def average_drop(
    model: Module, images: Any, maps: Any, target: Any = None, batch_size: int = 128
) -> Measure:
    """By how many percent the class's probability falls, if it falls, when the normalised image is
    multiplied by the map. Low is good.

    Args, Raises: as for :func:`deletion`.

    Returns:
        100 max(0, before - after) / before, an image.

    Paper: Chattopadhyay et al. 2018, "Grad-CAM++", arXiv:1710.11063.
    """
    asked = _Asked(model, images, maps, target, batch_size)
    after = asked.probabilities(asked.x * asked.maps[:, None])
    fall = np.maximum(asked.before - after, 0)
    return Measure("average drop %", 100 * fall / np.maximum(asked.before, 1e-300))


def increase_in_confidence(
    model: Module, images: Any, maps: Any, target: Any = None, batch_size: int = 128
) -> Measure:
    """100 where the class's probability rises when the normalised image is multiplied by the map,
    else 0: the mean is the percentage of such images. High is good.

    Args, Raises, Paper: as for :func:`average_drop`.
    """
    asked = _Asked(model, images, maps, target, batch_size)
    after = asked.probabilities(asked.x * asked.maps[:, None])
    return Measure("increase in confidence %", 100.0 * (after > asked.before))


def road(
    model: Module, images: Any, maps: Any, target: Any = None, order: str = "combined",
    shares: Sequence[float] = SHARES, noise: float = 0.01, seed: int = 0, batch_size: int = 128,
) -> Measure:  # fmt: skip
    """Remove and debias: pixels are removed by noisy linear imputation, which leaves no trace of
    which ones went, and the class's probability is averaged over several shares.

    Args:
        model, images, maps, target, batch_size: as for :func:`deletion`.
        order: "morf", most relevant first: low is good; "lerf", least relevant first: high is
            good; "combined" (default), half of lerf minus morf: high is good.
        shares: of the pixels that are removed, each above 0 and below 1.
        noise: standard deviation added to what is filled in, normalised units, default 0.01.
        seed: of the noise, and of the order among equal values.

    Raises:
        ValueError: for another order or share, and as :func:`deletion` does.

    Paper: Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution
    Methods", arXiv:2202.00449.
    """
    if order not in ("morf", "lerf", "combined"):
        raise ValueError(f"order must be 'morf', 'lerf' or 'combined', got {order!r}")
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares must be above 0 and below 1, got {shares!r}")
    asked = _Asked(model, images, maps, target, batch_size)
    most = asked.order(seed)
    generator = np.random.default_rng(seed)

    def mean_after(pixels: np.ndarray) -> np.ndarray:
        after = [
            asked.probabilities(impute(asked.x, asked.first(pixels, share), noise, generator))
            for share in shares
        ]
        return np.mean(after, 0)

    if order == "combined":
        values = (mean_after(most[:, ::-1]) - mean_after(most)) / 2
    else:
        values = mean_after(most if order == "morf" else most[:, ::-1])
    return Measure(f"ROAD {order}", values)


def impute(
    images: np.ndarray, missing: np.ndarray, noise: float, generator: np.random.Generator
) -> np.ndarray:
    """Images with missing pixels filled in: each is the weighted mean of its eight neighbours
    (1/6 beside, 1/12 across corners), all of them solved for at once, plus Gaussian noise.

    Args:
        images: (N, C, H, W). missing: bool (N, H, W), not all of any image. noise: standard
            deviation. generator: where it comes from.
    """
    n, channels, height, width = images.shape
    weights = _neighbours(height, width)
    laplacian = np.diag(weights.sum(1)) - weights
    filled = images.reshape(n, channels, -1).astype(np.float64)
    for flat, gone in zip(filled, missing.reshape(n, -1), strict=True):
        known = weights[np.ix_(gone, ~gone)] @ flat[:, ~gone].T
        solved = np.linalg.solve(laplacian[np.ix_(gone, gone)], known).T
        flat[:, gone] = solved + noise * generator.standard_normal(solved.shape)
    return filled.reshape(images.shape)


@lru_cache(8)
def _neighbours(height: int, width: int) -> np.ndarray:
    """(HW, HW): the weight of each pixel's neighbours."""
    y, x = (place.ravel() for place in np.mgrid[:height, :width])
    down, across = np.abs(y[:, None] - y), np.abs(x[:, None] - x)
    return np.where(np.maximum(down, across) == 1, np.where(down + across == 1, 1 / 6, 1 / 12), 0)


def _gaussian(side: int, deviation: float) -> np.ndarray:
    """(side, side) float32: blurs an axis; at the borders the weights that are left add up to 1."""
    if not deviation > 0:
        raise ValueError(f"blur must be above 0, got {deviation!r}")
    place = np.arange(side)
    weights = np.exp(-((place[:, None] - place) ** 2) / (2 * deviation**2))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def measure_faithfulness(
    model: Module, images: Any, maps: Any, target: Any = None, batch_size: int = 128
) -> Measures:
    """Deletion, insertion, average drop, increase in confidence and ROAD, at their defaults.

    Costs 91 forward passes an image and map: 33, 33, 1, 1 and 18, and one before each.

    Args:
        model, images, target, batch_size: as for :func:`deletion`; target: classes, by default
            each image's predicted one; batch_size: default 128.
        maps: (N, H, W), of the images' size, finite; a ``CAM`` too; or a dict of several by name, a
            row each. One alone gets the row "map".

    Returns:
        :class:`Measures`, the columns "deletion AUC" (0..1, low is good), "insertion AUC" (0..1,
        high is good), "average drop %" (low is good), "increase in confidence %" (high is good) and
        "ROAD combined" (-0.5..0.5, high is good).

    Raises:
        ValueError: for maps that do not fit the images or are not finite, a target function, and as
            ``cam`` does.

    Papers: at the single functions.
    """
    rows = maps if isinstance(maps, dict) else {"map": maps}
    functions = (deletion, insertion, average_drop, increase_in_confidence, road)
    return Measures({
        name: {
            measure.name: measure
            for measure in (
                f(model, images, one, target, batch_size=batch_size) for f in functions
            )
        }
        for name, one in rows.items()
    })
