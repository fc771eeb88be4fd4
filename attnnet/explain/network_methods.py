"""Methods whose weights come from the network itself: Score-CAM, Ablation-CAM and plain CAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..nn.layers import Linear
from ..nn.modes import evaluating
from ..nn.module import Module
from ..tensor import Tensor
from .maps import resize
from .methods import Method, add_method
from .record import score_batches
from .targets import Target


@dataclass(frozen=True)
class Question:
    """What a method may ask: the network, the images that it saw, and about which layer.

    Attributes:
        model: the network. images: (N, C, H, W) float32, its input. target: fixed.
        logits: (N, K). layer: the module whose output is A. batch_size: images a forward.
    """

    model: Module
    images: np.ndarray
    target: Target
    logits: np.ndarray
    layer: Module
    batch_size: int


def _method(name: str, title: str, paper: str) -> Callable:
    def add(asks: Callable[[Question, np.ndarray], np.ndarray]) -> Callable:
        add_method(Method(name, title, paper, asks=asks, gradients=False))
        return asks

    return add


@_method("scorecam", "Score-CAM", "Wang et al. 2020, arXiv:1910.01279")
def scorecam(question: Question, a: np.ndarray) -> np.ndarray:
    """Softmax over channels of the score of the image masked by each channel of A. (N, C).

    A mask is the channel, resized to the image (corners aligned), minus its minimum, divided by
    its range + 1e-8; it multiplies the normalised image. Costs C forwards an image.
    """
    weights = np.empty(a.shape[:2], np.float32)
    for i, image in enumerate(question.images):
        for start in range(0, a.shape[1], question.batch_size):
            part = slice(start, start + question.batch_size)
            masks = resize(a[i, part], question.images.shape[2:], align_corners=True)
            low = masks.min((1, 2), keepdims=True)
            masks = (masks - low) / (masks.max((1, 2), keepdims=True) - low + np.float32(1e-8))
            masked = image * masks[:, None]
            target = question.target.of(np.full(len(masked), i))
            weights[i, part] = score_batches(question.model, masked, target, len(masked))
    powers = np.exp(weights - weights.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@_method("ablationcam", "Ablation-CAM", "Desai & Ramaswamy 2020, WACV")
def ablationcam(question: Question, a: np.ndarray) -> np.ndarray:
    """(s - s_c) / s, s_c being the score without channel c of A. (N, C).

    "Without" is 0 where the least value of the image's A is 0, else that least value - 1e7.

    Raises:
        ValueError: where s is 0, or so near it that what a channel takes from it is no number.
    """
    weights = np.empty(a.shape[:2], np.float32)
    for i, (image, own) in enumerate(zip(question.images, a, strict=True)):
        own_score = _scores_from(question, i, image, own[None])[0]
        least = own.min()
        off = np.float32(0 if least == 0 else least - 1e7)
        for start in range(0, len(own), question.batch_size):
            channels = np.arange(start, min(start + question.batch_size, len(own)))
            ablated = np.repeat(own[None], len(channels), 0)
            ablated[np.arange(len(channels)), channels] = off
            scores = _scores_from(question, i, image, ablated)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                weights[i, channels] = (own_score - scores) / own_score
        if not np.isfinite(weights[i]).all():
            # The sign of what a score of nearly 0 falls by, as a share of it, is any.
            raise ValueError(
                f"method 'ablationcam' needs the share of the score that each channel gives: of "
                f"image {i} (of its batch), whose score is {own_score:g}, that is not finite"
            )
    return weights


def _scores_from(question: Question, i: int, image: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Scores of image i with the layer's output replaced by each of ``outputs`` (M, C, h, w).

    One image runs up to the layer and M from there on. Where a shortcut leads around the layer
    the two meet again and do not fit: then M copies run all the way.
    """
    target = question.target.of(np.full(len(outputs), i))
    replacement = Tensor(outputs)
    with question.layer.register_forward_hook(lambda *_: replacement), evaluating(question.model):
        try:
            logits = question.model(Tensor(image[None]))
        except ValueError:
            logits = question.model(Tensor(np.repeat(image[None], len(outputs), 0)))
        return target.scores(logits).numpy()


@_method("cam", "CAM", "Zhou et al. 2016, arXiv:1512.04150")
def cam(question: Question, a: np.ndarray) -> np.ndarray:
    """The last linear layer's weights of the target class. (N, C).

    Raises:
        ValueError: where the logits are not that layer applied to the means of A over its
            positions, or the target is a function of the logits.
    """
    if question.target.classes is None:
        raise ValueError("method 'cam' explains classes, not functions of the logits")
    linears = [part for part in question.model.modules() if isinstance(part, Linear)]
    if linears and linears[-1].in_features == a.shape[1]:
        weight = linears[-1].weight.detach().numpy()
        bias = 0 if linears[-1].bias is None else linears[-1].bias.detach().numpy()
        if np.allclose(
            a.mean((2, 3)) @ weight.T + bias,
            question.logits,
            rtol=1e-3,
            atol=1e-3 * np.abs(question.logits).max(),
        ):
            return weight[question.target.classes]
    raise ValueError(
        "method 'cam' needs a network whose logits are one linear layer applied to the mean over "
        "positions of the layer's output, as layer4 of a ResNet: this is not so here; 'gradcam' "
        "works for every network"
    )
