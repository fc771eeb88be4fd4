"""Classifier: what the image networks share beside their layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..markup import folded
from ..nn.layers import positive
from ..nn.module import Module
from ..nn.registry import make_block
from ..nn.summary import Summary, structure_html, summarise
from ..operands import as_pair
from .placement import Placement
from .predict import Prediction, Predictions, probabilities


class Classifier(Module):
    """Base of ResNet and VGG: (N, in_channels, H, W) -> logits (N, num_classes).

    Attributes:
        arch: ``"resnet18"``. block_name: canonical placement, ``"NEW_12"``, or the network's own
            name without a block. num_classes, in_channels: counts. image_size: (H, W).
        class_names: list of ``num_classes`` strings, or None where unknown.
        normalization: (mean, std), one number a channel for pixels scaled to 0..1, or None.
        source: what a file of another program said beside the weights (path, epoch, ...), or None.
    """

    class_names: list[str] | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    source: dict[str, Any] | None = None

    def __init__(
        self, arch: str, placement: Placement, num_classes: int, in_channels: int, image_size: Any
    ) -> None:
        super().__init__()
        self.arch = arch
        self.block_name = placement.name
        self.num_classes = positive(num_classes, "num_classes")
        self.in_channels = positive(in_channels, "in_channels")
        self.image_size = as_pair(image_size, "image_size", 1)

    @property
    def config(self) -> dict[str, Any]:
        """What ``create_model(**config)`` needs to make this network anew, JSON-ready."""
        return {
            "arch": self.arch,
            "block": self.block_name,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "image_size": list(self.image_size),
        }

    def attention_blocks(self) -> dict[str, Module]:
        """The attention blocks of the network with their dotted names, first stage first."""
        raise TypeError(f"{type(self).__name__} does not say where its attention blocks are")

    def predict(
        self, images: Any, top: int = 1, batch_size: int = 128, resize: bool = False
    ) -> Predictions:
        """Classes and probabilities of images, in evaluation mode, without gradients.

        Args:
            images: one image or many: arrays (N, C, H, W), (N, H, W, C), (C, H, W), (H, W, C) or,
                for one channel, (H, W); Pillow images; paths of image files; or a list of any of
                these. Integers count as 0..255, floats as 0..1; ``normalization`` is applied. An
                attnnet Tensor (N, C, H, W) is taken as it is, already normalised.
            top: how many classes an image gets, most probable first (default 1).
            batch_size: images a forward pass (default 128).
            resize: whether images of another size are brought to the network's as those of a
                folder are for training: scaled until they cover it, cut about their middle; by
                default an error.

        Returns:
            A list of one ``Prediction`` an image: iterates over (class, probability), class being
            a name where ``class_names`` is set, else an index.

        Raises:
            ValueError: for a wrong size, channel count, value range or top.
            DataError: for a file that is no image. FileNotFoundError: for a missing one.
        """
        if not 1 <= top <= self.num_classes:
            raise ValueError(f"top must be 1 to {self.num_classes} (the classes), got {top!r}")
        names = self.class_names
        if names is not None and len(names) != self.num_classes:
            raise ValueError(
                f"class_names holds {len(names)} names, the network has {self.num_classes} classes"
            )
        return Predictions(
            Prediction.of(row, top, names)
            for row in self.predict_probabilities(images, batch_size, resize)
        )

    def predict_probabilities(
        self, images: Any, batch_size: int = 128, resize: bool = False
    ) -> np.ndarray:
        """Softmax of the logits: (N, num_classes) float64. Arguments as for ``predict``."""
        return probabilities(self, images, positive(batch_size, "batch_size"), resize)

    def summary(self, input_shape: tuple[int, ...] | None = None) -> Summary:
        """Table of layers; see ``Module.summary``. input_shape: default the network's own."""
        shape = (self.in_channels, *self.image_size) if input_shape is None else input_shape
        return summarise(self, shape, self._title())

    def _title(self) -> str:
        return f"{self.arch}, block {self.block_name}, {self.num_classes} classes"

    def _repr_html_(self) -> str:
        layers = folded("every layer, with the shape of its output", self.summary()._repr_html_())
        return structure_html(self, self._title()) + layers


def place_block(
    arch: str, placement: Placement, stage: int, channels: int, height: int, width: int
) -> Module | None:
    """The attention block of a stage, or None where it has none.

    Raises:
        ValueError: where the block cannot work at that size; names network, block and stage.
    """
    name = placement.at(stage)
    if name is None:
        return None
    try:
        return make_block(name, channels, height, width)
    except ValueError as error:
        raise ValueError(
            f"{arch} with {placement.name}: {name} at stage {stage} ({channels} channels, "
            f"{height} x {width} pixels): {error}"
        ) from error
