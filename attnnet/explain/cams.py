"""``cam``: class activation maps of any network, by any method, for whole batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..nn.layers import positive
from ..nn.module import Module
from .fullgrad import biased, fullgrad, images_at_once
from .inputs import pictures
from .layers import Layers, find_layers
from .maps import join_layers, layer_alone, principal_component, scale, scaled_layer
from .methods import Method, find_method
from .network_methods import Question
from .record import Record, record
from .result import CAM
from .targets import Target

_FACTORS = (0.9, 1.0, 1.1)  # of aug_smooth


def cam(
    model: Module,
    images: Any,
    method: str = "gradcam",
    layers: Layers = None,
    target: Any = None,
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    resize: bool = True,
    batch_size: int = 128,
) -> CAM:
    """Class activation maps: where in an image a network found what it says.

    One forward and one backward a batch, for all layers together; before the first of the layers
    nothing is recorded. The model's mode, gradients and statistics are left as they were.

    Args:
        model: a network that gives logits (N, K); evaluation mode is used.
        images: as for ``model.predict``: uint8 or other integers count as 0..255 and float arrays
            as 0..1, both are normalised with ``model.normalization``; Pillow images and paths of
            files too; one or many. An attnnet Tensor (N, C, H, W) is taken as it is, already
            normalised. For a network without ``image_size`` only the Tensor.
        method: one of ``list_methods()``, default "gradcam".
        layers: whose output to look at: names such as "layer4", "layer1.0.attention",
            "features.49", modules of the model, or several of these. Default: ``layer4`` of a
            ResNet, what stands before the last pool of a VGG.
        target: what to explain: None for each image's predicted class; a class (index or name) for
            all; a sequence of one an image; or a function of the logits Tensor (n, K) of a batch
            that returns a Tensor (n,), such as ``lambda logits: logits[:, 3] - logits[:, 5]``.
        aug_smooth: mean of the maps of the image and its mirror image (mirrored back), each times
            0.9, 1 and 1.1 after normalisation; without another scaling. Each of the six explains
            its own predicted class unless ``target`` is given.
        eigen_smooth: the first principal component of the weighted activations takes the place of
            their sum; its sign is the one that agrees with that sum.
        resize: whether the maps are resized (bilinear) to the images; else they stay at the
            layer's size, which all layers must then share.
        batch_size: images a forward, default 128; fewer where a layer inside of AA is looked at, as
            FullGrad does, since whole attention maps are stored then.

    Each layer's map has its negative part cut, is scaled to 0..1 by its own minimum and maximum
    and resized; then, for one layer too, the mean over layers is scaled again.

    Returns:
        A :class:`CAM`: ``maps`` (N, H, W) float32 in 0..1, raw maps by layer, classes, overlays.

    Raises:
        ValueError: for an unknown method or layer (with the nearest name), a target that does not
            exist, a layer whose output is no picture, images of a wrong size, or none.
        TypeError: for arguments of a wrong kind.
    """
    x = pictures(model, images)
    names = getattr(model, "class_names", None)
    chosen = Target(target, len(x), names)
    how = find_method(method)
    if how.name != "fullgrad":
        modules = find_layers(model, layers)
    elif layers is None and resize:
        modules = {}
    else:
        raise ValueError("fullgrad adds up all layers, at the image's size: leave out layers and "
                         "resize")
    batch_size = positive(batch_size, "batch_size")
    batch_size = min(batch_size, images_at_once(model, modules or biased(model)))
    look = _Look(model, how, modules, eigen_smooth, resize, batch_size)
    parts = []
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        parts.append(look.at(x[rows], chosen.of(rows), aug_smooth))
    classes = None if chosen.function else [part.seen.target.classes for part in parts]
    return CAM(
        maps=np.concatenate([part.maps for part in parts]),
        layer_maps={name: np.concatenate([part.raw[name] for part in parts]) for name in modules},
        method=how,
        logits=np.concatenate([part.seen.logits for part in parts]),
        target=None if classes is None else np.concatenate(classes),
        images=x,
        class_names=names,
        smoothed={
            name: np.concatenate([part.smoothed[name] for part in parts])
            for name in parts[0].smoothed
        },
    )


@dataclass
class _Part:
    """Maps of one batch; ``smoothed`` has, by layer, those of aug_smooth, else nothing."""

    maps: np.ndarray
    raw: dict[str, np.ndarray]
    seen: Record
    smoothed: dict[str, np.ndarray] = field(default_factory=dict)

    def each(self) -> dict[str, np.ndarray]:
        """What there is a mean of: the maps, under "", and each layer's as if it were alone."""
        size = self.maps.shape[1:]
        return {"": self.maps} | {n: layer_alone(raw, size) for n, raw in self.raw.items()}


@dataclass(frozen=True)
class _Look:
    """The settings of one call."""

    model: Module
    method: Method
    layers: dict[str, Module]
    eigen_smooth: bool
    resize: bool
    batch_size: int

    def at(self, x: np.ndarray, target: Target, aug_smooth: bool) -> _Part:
        """One batch; what is kept beside the smoothed maps is that of the images themselves."""
        part = self.once(x, target)
        if aug_smooth:
            mirrored = x[..., ::-1]
            total = {name: np.zeros_like(maps) for name, maps in part.each().items()}
            for factor in _FACTORS:
                factor = np.float32(factor)
                seen = part if factor == 1 else self.once(x * factor, target)
                turned = self.once(mirrored * factor, target).each()
                for name, maps in seen.each().items():
                    total[name] += maps
                    total[name] += turned[name][..., ::-1]
            smoothed = {name: maps / (2 * len(_FACTORS)) for name, maps in total.items()}
            part.maps, part.smoothed = smoothed.pop(""), smoothed
        return part

    def once(self, x: np.ndarray, target: Target) -> _Part:
        if not self.layers:
            maps, seen = fullgrad(self.model, x, target, self.eigen_smooth)
            return _Part(scale(maps).astype(np.float32), {}, seen)
        seen = record(self.model, self.layers, x, target, self.method.gradients)
        for name, a in seen.activations.items():
            _check_picture(name, a)
        raw = {name: self.raw(name, x, seen) for name in self.layers}
        sizes = {maps.shape[1:] for maps in raw.values()}
        if not self.resize and len(sizes) > 1:
            raise ValueError(f"resize=False needs layers of one size, these have {sorted(sizes)}")
        size = x.shape[2:] if self.resize else None
        return _Part(join_layers([scaled_layer(maps, size) for maps in raw.values()]), raw, seen)

    def raw(self, name: str, x: np.ndarray, seen: Record) -> np.ndarray:
        """One layer's map (N, h, w), unscaled."""
        a = seen.activations[name]
        if self.method.asks is not None:
            question = Question(
                self.model, x, seen.target, seen.logits, self.layers[name], self.batch_size
            )
            weighted = self.method.asks(question, a)[:, :, None, None] * a
        else:
            weighted = self.method.formula(a, seen.gradients.get(name))
        if self.method.principal or self.eigen_smooth:
            return principal_component(weighted)
        return weighted.sum(1)


def _check_picture(name: str, a: np.ndarray) -> None:
    if a.ndim != 4 or a.shape[2] * a.shape[3] < 2:
        what = f"shape {a.shape}" if a.ndim != 4 else "one position only"
        raise ValueError(
            f"layer {name!r} has an output of {what}: a map needs a layer that gives "
            "(N, C, h, w) with several positions"
        )
