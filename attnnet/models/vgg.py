"""VGG in its CIFAR form, with attention blocks at chosen groups.

Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition".
Five groups of 3x3 convolutions, each ended by a 2x2 max pool; the attention block of a chosen
group stands after its last ReLU and before its pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..nn import init
from ..nn.containers import Sequential
from ..nn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, ReLU
from ..nn.module import Module
from ..nn.pooling import MaxPool2d
from ..tensor import Tensor
from .classifier import Classifier, place_block
from .placement import Placement, read_placement

WIDTHS = (64, 128, 256, 512, 512)
HIDDEN = 512


class VGG(Classifier):
    """The network: (N, in_channels, H, W) -> logits (N, num_classes).

    Args:
        arch: its name. counts: convolutions of each group.
        block: placement name such as ``"NEW_1"`` (stages 1 to 5), ``"VGG19"`` or None.
        num_classes: default 10. in_channels: default 3.
        image_size: int or (H, W), default 32, at least 32: it sizes the first linear layer.
        batch_norm: whether each convolution has one (default yes).
        dropout: probability before the first two linear layers, default 0.5.

    Stages 1 to 5 have 64, 128, 256, 512, 512 channels at 1 to 1/16 of the image's size.
    ``features.N`` counts convolution, BN, ReLU, block and pool each as one. Convolutions start
    from N(0, 2 / (R * S * K)) with zero bias, linear layers from U(-b, b), b = 1 / sqrt(fan_in).

    Raises:
        ValueError: for a placement that does not exist, or a size that is too small.
    """

    def __init__(
        self,
        arch: str,
        counts: tuple[int, int, int, int, int],
        block: str | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        batch_norm: bool = True,
        dropout: float = 0.5,
    ) -> None:
        placement = read_placement(block, len(WIDTHS), arch.upper(), ["VGG", f"{arch.upper()}_BN"])
        super().__init__(arch, placement, num_classes, in_channels, image_size)
        if min(self.image_size) < 2 ** len(WIDTHS):
            raise ValueError(
                f"{arch} halves the image five times: image_size must be at least 32, "
                f"got {image_size!r}"
            )
        self.batch_norm = bool(batch_norm)
        self.features, size = self._features(counts, placement)
        self.flatten = Flatten()
        self.classifier = Sequential(
            Dropout(dropout),
            Linear(WIDTHS[-1] * size[0] * size[1], HIDDEN),
            ReLU(),
            Dropout(dropout),
            Linear(HIDDEN, HIDDEN),
            ReLU(),
            Linear(HIDDEN, self.num_classes),
        )
        self.dropout = float(dropout)
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.vgg_normal_(module.weight, module.bias)

    def _features(
        self, counts: tuple[int, ...], placement: Placement
    ) -> tuple[Sequential, tuple[int, int]]:
        """The convolutional part, and the image size behind it."""
        features, channels, size = Sequential(), self.in_channels, self.image_size
        for stage, (count, width) in enumerate(zip(counts, WIDTHS, strict=True), 1):
            for _ in range(count):
                features.append(Conv2d(channels, width, 3, padding=1))
                if self.batch_norm:
                    features.append(BatchNorm2d(width))
                features.append(ReLU())
                channels = width
            attention = place_block(self.arch, placement, stage, width, *size)
            if attention is not None:
                self.__dict__.setdefault("_attention_at", []).append(len(features))
                features.append(attention)
            features.append(MaxPool2d(2))
            size = (size[0] // 2, size[1] // 2)
        return features, size

    def forward(self, x: Tensor) -> Tensor:
        shrink = 2 ** len(WIDTHS)
        if any(
            a // shrink != b // shrink for a, b in zip(x.shape[2:], self.image_size, strict=False)
        ):
            raise ValueError(
                f"this {self.arch} was made for images of {self.image_size[0]} x "
                f"{self.image_size[1]} pixels, which size its first linear layer: got an input of "
                f"shape {tuple(x.shape)} (image_size is set when the model is made)"
            )
        return self.classifier(self.flatten(self.features(x)))

    def attention_blocks(self) -> dict[str, Module]:
        places = self.__dict__.get("_attention_at", ())
        return {f"features.{place}": self.features[place] for place in places}

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"batch_norm": self.batch_norm, "dropout": self.dropout}


# Each network's name and how many convolutions a group has.
DEPTHS: dict[str, tuple[int, int, int, int, int]] = {}


def _network(depth: int, counts: tuple[int, int, int, int, int]) -> Callable[..., VGG]:
    name = f"vgg{depth}"
    DEPTHS[name] = counts

    def make(
        block: str | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        batch_norm: bool = True,
        dropout: float = 0.5,
    ) -> VGG:
        return VGG(name, counts, block, num_classes, in_channels, image_size, batch_norm, dropout)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"""VGG{depth}, CIFAR form (convolutions: {"-".join(map(str, counts))}).

    Args:
        block: placement of attention blocks, such as "NEW_1" (stages 1 to 5); None for none.
        num_classes: default 10. in_channels: default 3.
        image_size: int or (H, W), default 32, at least 32.
        batch_norm: default True. dropout: default 0.5.

    Returns:
        A ``VGG``; see there.
    """
    return make


vgg11 = _network(11, (1, 1, 2, 2, 2))
vgg13 = _network(13, (2, 2, 2, 2, 2))
vgg16 = _network(16, (2, 2, 3, 3, 3))
vgg19 = _network(19, (2, 2, 4, 4, 4))
