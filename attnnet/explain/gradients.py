"""Attributions to pixels: guided backpropagation, saliency, SmoothGrad, integrated gradients,
and, without gradients, occlusion.

All take the images and targets that ``cam`` takes, run in evaluation mode, and leave the model as
it was. Gradients are those of the score (a logit) at the *normalised* image, (N, C, H, W) float32;
``attribution_map`` makes maps (N, H, W) of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import guided_relu
from ..nn.layers import positive
from ..nn.module import Module
from ..operands import as_pair
from .inputs import pictures
from .maps import scale
from .record import record, score_batches
from .targets import Target


def guided_backprop(
    model: Module, images: Any, target: Any = None, batch_size: int = 128
) -> np.ndarray:
    """Guided backpropagation: the gradient at the image, where each ReLU, of modules, functions
    and fused operations alike, passes it only where its input and the gradient are positive.

    Args:
        model, images, target, batch_size: as for :func:`attnnet.explain.cam`.

    Returns:
        (N, C, H, W) float32. ``deprocess`` shows it, ``guided_product`` with a CAM.

    Raises:
        ValueError, TypeError: as ``cam`` does.
        RuntimeError: for a network that calls one-operation blocks such as ``F.se`` itself.

    Paper: Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional Net".
    """
    with guided_relu():
        return _gradients(model, *_arguments(model, images, target, batch_size))


def saliency(
    model: Module, images: Any, target: Any = None, absolute: bool = True, batch_size: int = 128
) -> np.ndarray:
    """The gradient at the image, or its absolute value.

    Args:
        model, images, target, batch_size: as for :func:`attnnet.explain.cam`.
        absolute: whether signs are dropped (default).

    Returns:
        (N, C, H, W) float32.

    Raises:
        ValueError, TypeError: as ``cam`` does.

    Paper: Simonyan et al. 2014, "Deep Inside Convolutional Networks", arXiv:1312.6034.
    """
    gradients = _gradients(model, *_arguments(model, images, target, batch_size))
    return np.abs(gradients) if absolute else gradients


def smoothgrad(
    model: Module,
    images: Any,
    target: Any = None,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = 128,
) -> np.ndarray:
    """SmoothGrad: the mean gradient over copies of the image with Gaussian noise.

    Args:
        model, images, target, batch_size: as for :func:`attnnet.explain.cam`; a predicted class is
            that of the image without noise.
        samples: copies an image, default 25.
        noise: standard deviation as a share of each image's range of values, default 0.15.
        seed: of the noise.

    Returns:
        (N, C, H, W) float32, with signs.

    Raises:
        ValueError: for a negative noise or samples below 1, and as ``cam`` does.

    Paper: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise", arXiv:1706.03825.
    """
    if not noise >= 0:
        raise ValueError(f"noise must be 0 or more, got {noise!r}")
    x, chosen, batch_size = _arguments(model, images, target, batch_size)
    chosen = _predicted(model, x, chosen, batch_size)
    generator = np.random.default_rng(seed)

    def noisy(part: np.ndarray) -> np.ndarray:
        spread = noise * (part.max((1, 2, 3)) - part.min((1, 2, 3)))[:, None, None, None, None]
        shape = (len(part), samples, *part.shape[1:])
        return part[:, None] + spread * generator.standard_normal(shape, np.float32)

    weights = np.full(positive(samples, "samples"), 1 / samples)
    return _mean_gradients(model, x, chosen, noisy, weights, batch_size)


def integrated_gradients(
    model: Module,
    images: Any,
    target: Any = None,
    baseline: Any = None,
    steps: int = 50,
    batch_size: int = 128,
) -> np.ndarray:
    """Integrated gradients: (x - baseline) times the mean gradient on the straight way between.

    They add up to the score of the image minus that of the baseline, but for the error of the
    integral, a Gauss-Legendre rule of ``steps`` points.

    Args:
        model, images, target, batch_size: as for :func:`attnnet.explain.cam`.
        baseline: a normalised array that broadcasts to (N, C, H, W); default 0, which is an image
            of the data set's mean colour.
        steps: points of the integral, default 50.

    Returns:
        (N, C, H, W) float32.

    Raises:
        ValueError: for a baseline that does not broadcast or steps below 1, and as ``cam`` does.

    Paper: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", arXiv:1703.01365.
    """
    x, chosen, batch_size = _arguments(model, images, target, batch_size)
    chosen = _predicted(model, x, chosen, batch_size)
    start = np.broadcast_to(np.asarray(0 if baseline is None else baseline, np.float32), x.shape)
    places, weights = np.polynomial.legendre.leggauss(positive(steps, "steps"))
    shares = ((places + 1) / 2).astype(np.float32)[:, None, None, None]
    way = np.stack([start, x], 1)  # both ends, so that a batch takes its own

    def between(part: np.ndarray) -> np.ndarray:
        return part[:, :1] + shares * (part[:, 1:] - part[:, :1])

    return (x - start) * _mean_gradients(model, way, chosen, between, weights / 2, batch_size)


def occlusion(
    model: Module,
    images: Any,
    target: Any = None,
    window: Any = 8,
    stride: Any = 4,
    value: float = 0.0,
    batch_size: int = 128,
) -> np.ndarray:
    """Occlusion: how much the score falls where a window covers the image.

    Args:
        model, images, target, batch_size: as for :func:`attnnet.explain.cam`.
        window: pixels, an int or (rows, columns), default 8.
        stride: step between windows, default 4; the last window ends at the image's border.
        value: what covers, in normalised units; default 0, the data set's mean colour.

    Returns:
        (N, H, W) float32: the mean fall over the windows that cover a pixel; negative where
        covering helps, 0 where no window comes.

    Raises:
        ValueError: for a window larger than the image, and as ``cam`` does.

    Paper: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks".
    """
    x, chosen, batch_size = _arguments(model, images, target, batch_size)
    chosen = _predicted(model, x, chosen, batch_size)
    height, width = as_pair(window, "window", 1)
    down, across = as_pair(stride, "stride", 1)
    if height > x.shape[2] or width > x.shape[3]:
        raise ValueError(f"window {(height, width)} is larger than the images, {x.shape[2:]}")
    whole = score_batches(model, x, chosen, batch_size)
    fall = np.zeros((len(x), *x.shape[2:]))
    covered = np.zeros(x.shape[2:])
    for top in _starts(x.shape[2], height, down):
        for left in _starts(x.shape[3], width, across):
            place = np.s_[..., top : top + height, left : left + width]
            hidden = x.copy()
            hidden[place] = value
            scores = score_batches(model, hidden, chosen, batch_size)
            fall[place] += (whole - scores)[:, None, None]
            covered[place] += 1
    return (fall / np.maximum(covered, 1)).astype(np.float32)


def attribution_map(attributions: Any) -> np.ndarray:
    """Maps of attributions to pixels: the largest absolute value over channels, scaled to 0..1.

    Args:
        attributions: (N, C, H, W).

    Returns:
        (N, H, W) float32.
    """
    return scale(np.abs(np.asarray(attributions)).max(1)).astype(np.float32)


def _arguments(
    model: Module, images: Any, target: Any, batch_size: int
) -> tuple[np.ndarray, Target, int]:
    x = pictures(model, images)
    chosen = Target(target, len(x), getattr(model, "class_names", None))
    return x, chosen, positive(batch_size, "batch_size")


def _gradients(model: Module, x: np.ndarray, target: Target, batch_size: int) -> np.ndarray:
    """The score's gradient at the images, (N, C, H, W)."""
    parts = []
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        seen = record(model, {}, x[rows], target.of(rows), gradients=False, at_input=True)
        parts.append(seen.input_gradient)
    return np.concatenate(parts)


def _mean_gradients(
    model: Module,
    x: np.ndarray,
    target: Target,
    copies: Callable[[np.ndarray], np.ndarray],
    weights: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    """Weighted mean of the gradients at M copies of each image, as many at once as a batch takes.

    Args:
        copies: from some of the images to their copies, (n, M, C, H, W). weights: (M,).
    """
    count = max(1, batch_size // len(weights))
    parts = []
    for start in range(0, len(x), count):
        made = copies(x[start : start + count]).astype(np.float32)
        n, m = made.shape[:2]
        rows = np.repeat(np.arange(start, start + n), m)
        flat = made.reshape(n * m, *made.shape[2:])
        gradients = _gradients(model, flat, target.of(rows), batch_size)
        parts.append(np.einsum("nm...,m->n...", gradients.reshape(made.shape), weights))
    return np.concatenate(parts).astype(np.float32)


def _predicted(model: Module, x: np.ndarray, target: Target, batch_size: int) -> Target:
    """The target with predicted classes written down for all images."""
    if target.function is not None or target.classes is not None:
        return target
    logits = [
        record(model, {}, x[start : start + batch_size], target, gradients=False).logits
        for start in range(0, len(x), batch_size)
    ]
    return target.fixed(np.concatenate(logits))


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin: every ``stride`` pixels, and one that ends at the border."""
    last = size - window
    return sorted({*range(0, last, stride), last})
