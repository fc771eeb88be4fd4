"""ResNet in its CIFAR form, with attention blocks at chosen stages.

He et al. 2016, "Deep Residual Learning for Image Recognition". The stem is one 3x3 convolution
without pooling; every residual block of a chosen stage has its own attention block, after the
addition and before the last ReLU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..nn.attention import AttentionBlock
from ..nn.containers import Sequential
from ..nn.fused import conv_bn
from ..nn.layers import BatchNorm2d, Conv2d, Flatten, Linear, ReLU
from ..nn.module import Module
from ..nn.pooling import AdaptiveAvgPool2d
from ..tensor import Tensor
from .classifier import Classifier, place_block
from .placement import read_placement

PLANES = (64, 128, 256, 512)


class _Residual(Module):
    """What both kinds of residual block share: the shortcut, the attention, the way out."""

    expansion = 1

    def _finish(
        self, in_channels: int, out_channels: int, stride: int, attention: Module | None
    ) -> None:
        self.shortcut = Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = Sequential(
                Conv2d(in_channels, out_channels, 1, stride, bias=False), BatchNorm2d(out_channels)
            )
        self.image_module = attention

    @property
    def attention(self) -> Module | None:
        """The attention block, or None; in state dicts ``image_module``, as in the study."""
        return self.image_module

    @attention.setter
    def attention(self, block: Module | None) -> None:
        self.image_module = block

    def _leave(self, out: Tensor, x: Tensor, conv: Module, bn: Module, relu: Module) -> Tensor:
        """relu(attention(bn(conv(out)) + shortcut(x)))."""
        residual = self.shortcut(x)
        if self.image_module is None:
            return conv_bn(out, conv, bn, residual, relu)
        out, attention = conv_bn(out, conv, bn, residual), self.image_module
        if isinstance(attention, AttentionBlock):
            return attention.then_relu(out, relu)
        return relu(attention(out))


class BasicBlock(_Residual):
    """conv3x3-BN-ReLU-conv3x3-BN, + shortcut, attention, ReLU.

    Args:
        in_channels, planes: channels before and after. stride: of the first convolution.
        attention: a module of ``planes`` channels, or None.
    """

    def __init__(
        self, in_channels: int, planes: int, stride: int = 1, attention: Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.relu1 = ReLU()
        self.conv2 = Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self._finish(in_channels, planes, stride, attention)
        self.relu2 = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = conv_bn(x, self.conv1, self.bn1, None, self.relu1, into=self.conv2)
        return self._leave(out, x, self.conv2, self.bn2, self.relu2)


class Bottleneck(_Residual):
    """1x1, 3x3 (stride here), 1x1 to 4 * planes, each with BN; + shortcut, attention, ReLU.

    Args:
        in_channels: before. planes: of the narrow part. stride: of the 3x3 convolution.
        attention: a module of ``4 * planes`` channels, or None.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, planes: int, stride: int = 1, attention: Module | None = None
    ) -> None:
        super().__init__()
        wide = self.expansion * planes
        self.conv1 = Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.relu1 = ReLU()
        self.conv2 = Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.relu2 = ReLU()
        self.conv3 = Conv2d(planes, wide, 1, bias=False)
        self.bn3 = BatchNorm2d(wide)
        self._finish(in_channels, wide, stride, attention)
        self.relu3 = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = conv_bn(x, self.conv1, self.bn1, None, self.relu1, into=self.conv2)
        out = conv_bn(out, self.conv2, self.bn2, None, self.relu2, into=self.conv3)
        return self._leave(out, x, self.conv3, self.bn3, self.relu3)


class ResNet(Classifier):
    """The network: (N, in_channels, H, W) -> logits (N, num_classes).

    Args:
        arch: its name. kind: BasicBlock or Bottleneck. counts: residual blocks of each stage.
        block: placement name such as ``"NEW_12"`` or ``"CBAM_1+SE_34"``, ``"RESNET"`` or None.
        num_classes: default 10. in_channels: default 3.
        image_size: int or (H, W), default 32; AA and NAB depend on it, the rest takes any size.

    Stages 1 to 4 have 64, 128, 256, 512 planes at 1, 1/2, 1/4, 1/8 of the image's size.
    Attention blocks are found as ``layer1.0.attention`` (in state dicts
    ``layer1.0.image_module``). Weights start from U(-b, b), b = 1 / sqrt(fan_in).

    Raises:
        ValueError: for a placement that does not exist or a size that a block cannot work at.
    """

    def __init__(
        self,
        arch: str,
        kind: type[BasicBlock] | type[Bottleneck],
        counts: tuple[int, int, int, int],
        block: str | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
    ) -> None:
        placement = read_placement(block, len(PLANES), "RESNET", [arch.upper()])
        super().__init__(arch, placement, num_classes, in_channels, image_size)
        self.conv1 = Conv2d(self.in_channels, PLANES[0], 3, 1, 1, bias=False)
        self.bn1 = BatchNorm2d(PLANES[0])
        self.relu1 = ReLU()
        channels, size = PLANES[0], self.image_size
        for stage, (planes, count) in enumerate(zip(PLANES, counts, strict=True), 1):
            layer = Sequential()
            for position in range(count):
                stride = 2 if stage > 1 and position == 0 else 1
                size = tuple((side - 1) // stride + 1 for side in size)
                wide = planes * kind.expansion
                attention = place_block(arch, placement, stage, wide, *size)
                layer.append(kind(channels, planes, stride, attention))
                channels = wide
            self.add_module(f"layer{stage}", layer)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.flatten = Flatten()
        self.linear = Linear(channels, self.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = conv_bn(x, self.conv1, self.bn1, None, self.relu1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(self.flatten(self.avgpool(x)))

    def attention_blocks(self) -> dict[str, Module]:
        return {
            f"{name}.attention": part.attention
            for name, part in self.named_modules()
            if isinstance(part, _Residual) and part.attention is not None
        }


# Each network's name, its kind of residual block and how many of them a stage has.
DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {}


def _network(depth: int, kind: Any, counts: tuple[int, int, int, int]) -> Callable[..., ResNet]:
    name = f"resnet{depth}"
    DEPTHS[name] = kind, counts

    def make(
        block: str | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
    ) -> ResNet:
        return ResNet(name, kind, counts, block, num_classes, in_channels, image_size)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"""ResNet{depth}, CIFAR form ({kind.__name__}, {"-".join(map(str, counts))}).

    Args:
        block: placement of attention blocks, such as "NEW_12" (stages 1 to 4); None for none.
        num_classes: default 10. in_channels: default 3. image_size: int or (H, W), default 32.

    Returns:
        A ``ResNet``; see there.
    """
    return make


resnet18 = _network(18, BasicBlock, (2, 2, 2, 2))
resnet34 = _network(34, BasicBlock, (3, 4, 6, 3))
resnet50 = _network(50, Bottleneck, (3, 4, 6, 3))
resnet101 = _network(101, Bottleneck, (3, 4, 23, 3))
resnet152 = _network(152, Bottleneck, (3, 8, 36, 3))
