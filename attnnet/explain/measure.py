"""Numbers one an image, with their mean, its bootstrap interval, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..markup import table

LEVEL, RESAMPLES = 0.95, 2000


@dataclass(frozen=True, repr=False, eq=False)
class Measure:
    """One measure over N images.

    Attributes:
        name: what was measured. values: (N,) float64, one an image.

    ``a - b`` is the paired difference of two measures on the same images: its interval says
    whether the one is larger, far more sharply than two intervals side by side.

    Raises:
        ValueError: for no values, or values that are not finite.
    """

    name: str
    values: np.ndarray

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float64)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise ValueError(f"{self.name}: needs one finite value an image, got {values!r}")
        object.__setattr__(self, "values", values)

    @property
    def mean(self) -> float:
        """Mean over the images."""
        return float(self.values.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The mean's 95 % confidence interval; see :meth:`bootstrap`. NaN for one image."""
        return self.bootstrap()

    def bootstrap(
        self, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
    ) -> tuple[float, float]:
        """Percentile bootstrap interval of the mean: images are drawn anew with repetition.

        Args:
            level: share of resampled means inside. resamples: how many. seed: of the draws.

        Returns:
            The interval's ends; NaN both where there is one image, which says nothing of others.

        Paper: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
        """
        generator, n = np.random.default_rng(seed), len(self.values)
        if n == 1:
            return np.nan, np.nan
        means = [self.values[generator.integers(0, n, n)].mean() for _ in range(resamples)]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def __sub__(self, other: Measure) -> Measure:
        if not isinstance(other, Measure):
            return NotImplemented
        if len(self) != len(other):
            raise ValueError(
                f"paired differences need the same images: {len(self)} and {len(other)} values"
            )
        return Measure(f"{self.name}, difference", self.values - other.values)

    def __len__(self) -> int:
        return len(self.values)

    def __str__(self) -> str:
        if len(self) == 1:
            return f"{self.mean:.3f}"
        low, high = self.interval
        return f"{self.mean:.3f} ({low:.3f} to {high:.3f})"

    def __repr__(self) -> str:
        if len(self) == 1:
            return f"{self.name}: {self}, 1 image"
        return f"{self.name}: {self}, {LEVEL:.0%} interval, {len(self)} images"


class Measures(dict[str, dict[str, Measure]]):
    """A table of measures: a row a layer (or map), a column a measure.

    A dict of dicts: ``measures["layer4"]["IoU"]`` is a :class:`Measure` with one value an image, so
    that ``.mean``, ``.interval`` and ``.values`` are there. ``print`` shows each mean with its 95 %
    bootstrap interval over the images, one image's value alone; a notebook the same as a table.

    ``a - b`` is the table of paired differences of the rows and columns that both have, rows of
    another name being paired in order where no name is shared: "does the one network look at the
    object more than the other?" Both must be of the same images in the same order.

    Units are those of the measures: shares in 0..1 for localisation, deletion and insertion, per
    cent where the name ends in %.

    Raises:
        ValueError: in a difference, for measures of other numbers of images.
    """

    def __sub__(self, other: Mapping[str, Mapping[str, Measure]]) -> Measures:
        shared = [row for row in self if row in other]
        pairs = [(row, row) for row in shared] or list(zip(self, other, strict=False))
        return Measures({
            mine if mine == theirs else f"{mine} - {theirs}": {
                name: self[mine][name] - other[theirs][name]
                for name in self[mine] if name in other[theirs]
            }
            for mine, theirs in pairs
        })

    def columns(self) -> list[str]:
        """Names of the measures, in the order in which the rows have them."""
        return list(dict.fromkeys(name for row in self.values() for name in row))

    def _cells(self) -> list[list[str]]:
        names = self.columns()
        return [["", *names]] + [
            [row, *(str(found[name]) if name in found else "" for name in names)]
            for row, found in self.items()
        ]

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *rows = self._cells()
        note = f"Means over images, {LEVEL:.0%} bootstrap intervals."
        return f"{table(head, rows)}<p>{note}</p>"
