"""Pictures of where a network looks, as the commands infer, cam and compare make them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import need

if TYPE_CHECKING:
    from ..explain import CAM
    from ..models.predict import Prediction
    from ..nn import Module
    from .choice import Chosen

ENLARGED = 4  # times that small images are, so that they can be seen


@dataclass(frozen=True)
class Looks:
    """N images as one network sees them; pictures are uint8 (N, H, W, 3).

    Attributes:
        cam: the class activation maps, with classes and probabilities.
        overlays: the maps over the images. guided: guided backpropagation. product: the maps times
            it.
    """

    cam: CAM
    overlays: np.ndarray
    guided: np.ndarray
    product: np.ndarray

    def rows(self) -> dict[str, np.ndarray]:
        """The three kinds of pictures by their names."""
        return {"cam": self.overlays, "guided": self.guided, "product": self.product}


def add_look_arguments(parser: Any, weight: float) -> None:
    """Adds the options that say how to look; see :func:`look`."""
    parser.add_argument("--method", default="gradcam", metavar="NAME", help="default gradcam")
    parser.add_argument(
        "--layers", nargs="+", metavar="NAME", help="for example layer4, or layer1.0.attention (in "
        "state dicts layer1.0.image_module) for a ResNet's block; default: the last stage"
    )  # fmt: skip
    parser.add_argument(
        "--target", metavar="CLASS", help="a class, by its name, else its number; default: the "
        "predicted one"
    )  # fmt: skip
    parser.add_argument(
        "--weight", type=float, default=weight, metavar="X",
        help=f"of the image in overlays, 0 to 1; default {weight}",
    )  # fmt: skip
    parser.add_argument(
        "--colormap", default="viridis", metavar="NAME",
        help="viridis (default; Python's overlay() takes jet) or jet",
    )  # fmt: skip


def look(model: Module, chosen: Chosen, args: argparse.Namespace) -> Looks:
    """Looks at the chosen images through a network.

    Raises:
        ValueError: an unknown method, layer, class or colour map.
    """
    from .. import explain

    target, names = args.target, getattr(model, "class_names", None) or ()
    if target is not None and target.isdigit() and target not in names:
        target = int(target)
    cam = explain.cam(model, chosen.pixels, args.method, args.layers, target)
    guided = explain.guided_backprop(model, chosen.pixels, cam.target)
    return Looks(
        cam=cam,
        overlays=cam.overlay(args.weight, args.colormap),
        guided=explain.deprocess(guided),
        product=explain.guided_product(cam.maps, guided),
    )


def save(folder: Path, name: str, picture: np.ndarray) -> Path:
    """Writes a picture as PNG, small ones enlarged; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    scale = enlargement(picture)
    path = folder / f"{name}.png"
    need("PIL.Image").fromarray(picture.repeat(scale, 0).repeat(scale, 1)).save(path)
    return path


def enlargement(picture: np.ndarray) -> int:
    """How many times a picture is to be enlarged."""
    return ENLARGED if max(picture.shape[:2]) < 128 else 1


def is_right(chosen: Chosen, row: int, prediction: Prediction) -> bool | None:
    """Whether the first class of a prediction is the image's true one; None: not known."""
    if chosen.labels is None:
        return None
    return prediction.indices[0] == int(chosen.labels[row])


def true_name(chosen: Chosen, model: Module, row: int) -> str:
    """The image's true class; "" where it is not known."""
    if chosen.labels is None:
        return ""
    names = getattr(model, "class_names", None)
    label = int(chosen.labels[row])
    return names[label] if names else f"class {label}"
