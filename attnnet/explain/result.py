"""What ``cam`` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .image import deprocess, html_image, overlay, stacked
from .maps import layer_alone
from .methods import Method

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_SHOWN = 16  # images of a batch that a notebook shows


@dataclass(frozen=True, repr=False, eq=False)
class CAM:
    """Class activation maps of N images. ``np.asarray(result)`` is ``maps``.

    Attributes:
        maps: (N, H, W) float32 in 0..1.
        layer_maps: by layer, its maps (N, h, w) before anything was cut, scaled or resized; with
            ``aug_smooth`` those of the images themselves. Empty for FullGrad.
        method: the ``Method``; its ``title`` is the name in papers.
        logits: (N, K) float32. target: (N,) the classes explained, None for a function.
        images: (N, C, H, W) float32, normalised, as the network saw them.
        class_names: the model's, or None.
        smoothed: with ``aug_smooth``, by layer, what :meth:`of_layer` gives; else empty.
    """

    maps: np.ndarray
    layer_maps: dict[str, np.ndarray]
    method: Method
    logits: np.ndarray
    target: np.ndarray | None
    images: np.ndarray
    class_names: list[str] | None = None
    smoothed: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """Names of the layers looked at."""
        return list(self.layer_maps)

    @property
    def predicted(self) -> np.ndarray:
        """(N,) the class of each image's largest logit."""
        return self.logits.argmax(1)

    @property
    def probabilities(self) -> np.ndarray:
        """(N, K) float64, softmax of the logits."""
        powers = np.exp(self.logits.astype(np.float64) - self.logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def of_layer(self, name: str) -> np.ndarray:
        """(N, H, W) in 0..1: the maps of one of several layers, as if it had been asked alone, with
        the same options.

        Raises:
            ValueError: for a layer that was not looked at.
        """
        if name not in self.layer_maps:
            raise ValueError(f"layer {name!r} was not looked at, only {', '.join(self.layers)}")
        if name in self.smoothed:
            return self.smoothed[name]
        return layer_alone(self.layer_maps[name], self.maps.shape[1:])

    def overlay(self, weight: float = 0.5, colormap: str = "jet") -> np.ndarray:
        """The maps over their images: uint8 (N, H, W, 3).

        Args:
            weight: of the image, 0 to 1, default 0.5.
            colormap: "jet" (default, as in most papers) or, safe for colour-blind readers,
                "viridis". Notebooks, ``attnnet infer`` and ``attnnet cam`` draw viridis, and
                ``attnnet compare`` does so with a weight of 0.6.

        Raises:
            ValueError: for maps that were not resized, or images of other than 1 or 3 channels.
        """
        if self.maps.shape[1:] != self.images.shape[2:]:
            raise ValueError(
                f"the maps are {self.maps.shape[1:]}, the images {self.images.shape[2:]}: "
                "overlays need resize=True"
            )
        return overlay(deprocess(self.images), self.maps, weight, colormap)

    def titles(self) -> list[str]:
        """One line an image: the class explained and its probability; of a function, which explains
        none, the predicted class, after "predicted: "."""
        kind = "predicted: " if self.target is None else ""
        classes = self.predicted if self.target is None else self.target
        chances = self.probabilities[np.arange(len(classes)), classes]
        names = [self.class_names[c] if self.class_names else f"class {c}" for c in classes]
        return [f"{kind}{name} {100 * p:.0f} %" for name, p in zip(names, chances, strict=True)]

    def __len__(self) -> int:
        return len(self.maps)

    def __array__(self, dtype: DTypeLike | None = None,
                  copy: bool | None = None) -> np.ndarray:
        return np.array(self.maps, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        where = f" of {', '.join(self.layers)}" if self.layers else ""
        n, height, width = self.maps.shape
        return f"CAM({self.method.title}{where}: {n} maps of {height} x {width})"

    def _repr_html_(self) -> str:
        """Images over their overlays, with their titles."""
        text = f"<p>{escape(repr(self))}</p>"
        size = self.images.shape[2:]
        if not len(self) or self.images.shape[1] not in (1, 3) or self.maps.shape[1:] != size:
            return text
        first = slice(_SHOWN)
        pictures, titles = deprocess(self.images[first]), self.titles()[first]
        covered = self.overlay(colormap="viridis")[first]
        more = f"<p>and {len(self) - _SHOWN} more</p>" if len(self) > _SHOWN else ""
        return text + html_image(stacked([pictures, covered], titles), ", ".join(titles)) + more
