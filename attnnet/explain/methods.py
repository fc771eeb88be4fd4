"""The methods, as formulas: what each weights the activations with, channel by channel.

A formula takes a layer's output A and the score's gradient G there, both (N, C, h, w), and gives
the weighted activations (N, C, h, w); the map is their sum over the channels. Those that ask the
network itself take a ``Question`` instead and are in ``network_methods.py``; FullGrad, which has
no target layer, is in ``fullgrad.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import unknown_name

Formula = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """One way to make a map.

    Attributes:
        name: as ``cam`` takes it, ``"gradcam"``. title: as papers write it. paper: where.
        formula: from A and G to weighted activations, or None.
        asks: from a Question and A to weights (N, C), or None.
        gradients: whether G is needed.
        principal: whether the map is the first principal component rather than the sum.
    """

    name: str
    title: str
    paper: str
    formula: Formula | None = None
    asks: Callable[[Any, np.ndarray], np.ndarray] | None = None
    gradients: bool = True
    principal: bool = False


METHODS: dict[str, Method] = {}
_ALIASES = {"gradcamplusplus": "gradcam++", "gradcamelementwise": "elementwise"}


def register_method(
    name: str, title: str | None = None, paper: str = "", **options: Any
) -> Callable[[Formula], Formula]:
    """Decorator that adds a formula on A and G under a name that ``cam`` then takes.

    Args:
        name: small letters. title: for pictures, default the name. paper: source.
        options: ``gradients`` (default True) and ``principal`` (default False), see ``Method``.

    Raises:
        ValueError: for a name that is taken.
    """

    def add(formula: Formula) -> Formula:
        add_method(Method(name, title or name, paper, formula, **options))
        return formula

    return add


def add_method(method: Method) -> None:
    """Put a method into the registry; ValueError where its name is taken."""
    if method.name in METHODS:
        raise ValueError(f"there is a method {method.name!r} already")
    METHODS[method.name] = method


def list_methods() -> list[str]:
    """Names of all methods."""
    return list(METHODS)


def find_method(name: str) -> Method:
    """The method of a name; case, spaces, ``-`` and ``_`` do not matter.

    Raises:
        ValueError: for an unknown name; lists what exists and the nearest match.
    """
    if name in METHODS:
        return METHODS[name]
    plain = str(name).lower().translate(str.maketrans("", "", " -_"))
    plain = _ALIASES.get(plain, plain)
    if plain not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[plain]


@register_method("gradcam", "Grad-CAM", "Selvaraju et al. 2017, arXiv:1610.02391")
def gradcam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """mean of G over positions, times A."""
    return g.mean((2, 3), keepdims=True) * a


@register_method("hirescam", "HiResCAM", "Draelos & Carin 2020, arXiv:2011.08891")
def hirescam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """G A, element by element."""
    return g * a


@register_method("elementwise", "Grad-CAM element-wise", "Gildenblat 2021, pytorch-grad-cam")
def elementwise(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The positive part of G A."""
    return np.maximum(g * a, 0)


@register_method("gradcam++", "Grad-CAM++", "Chattopadhyay et al. 2018, arXiv:1710.11063")
def gradcam_plus_plus(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """alpha = G^2 / (2 G^2 + sum(A) G^3 + 1e-6), 0 where G is 0; sum of alpha relu(G), times A.

    The denominator can pass zero where A is negative, so it is computed in float64.
    """
    wide = g.astype(np.float64)
    total = a.sum((2, 3), dtype=np.float64, keepdims=True)
    alpha = wide**2 / (2 * wide**2 + total * wide**3 + 1e-6)  # 0 where G is 0
    weights = (np.maximum(wide, 0) * alpha).sum((2, 3), keepdims=True)
    return weights.astype(np.float32) * a


@register_method("xgradcam", "XGrad-CAM", "Fu et al. 2020, arXiv:2008.02312")
def xgradcam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """sum of G A over sum of A, over positions, times A."""
    product = (g * a).sum((2, 3), dtype=np.float64, keepdims=True)
    total = a.sum((2, 3), dtype=np.float64, keepdims=True)
    return (product / (total + 1e-7)).astype(np.float32) * a


@register_method("layercam", "LayerCAM", "Jiang et al. 2021, IEEE TIP 30, 5875-5888")
def layercam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The positive part of G, times A as it is."""
    return np.maximum(g, 0) * a


@register_method(
    "eigencam", "Eigen-CAM", "Muhammad & Yeasin 2020, arXiv:2008.00299",
    gradients=False, principal=True,
)  # fmt: skip
def eigencam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """A itself; its first principal component is the map, whatever the class."""
    return a


@register_method("eigengradcam", "Eigen-Grad-CAM", "Gildenblat 2021, pytorch-grad-cam",
                 principal=True)  # fmt: skip
def eigengradcam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """G A; its first principal component is the map."""
    return g * a
