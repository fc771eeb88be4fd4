"""The networks in PyTorch: what speed is compared with, and the tests' oracle for numbers.

Needs PyTorch. State keys are attnnet's own:
``layer1.0.image_module.*`` holds a ResNet's attention, and ``features.N`` of a VGG counts
convolution, batch norm, ReLU, block and pool each as one.
"""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn import functional as F

from . import torch_blocks

RESNET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
VGG_CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def stages_of(placement: str | None) -> dict[int, str]:
    """'CBAM_1+SE_34' -> {1: 'CBAM', 3: 'SE', 4: 'SE'}."""
    stages = {}
    for part in placement.split("+") if placement else ():
        name, digits = re.fullmatch(r"(.+)_(\d+)", part).groups()
        stages.update({int(d): name for d in digits})
    return stages


def _sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)


class _Residual(nn.Module):
    def add_shortcut(self, c_in, c_out, stride):
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def finish(self, out, x):
        out = out + self.shortcut(x)
        if hasattr(self, "image_module"):
            out = self.image_module(out)
        return F.relu(out)


class BasicBlock(_Residual):
    expansion = 1

    def __init__(self, c_in, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.add_shortcut(c_in, planes, stride)

    def forward(self, x):
        return self.finish(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))), x)


class Bottleneck(_Residual):
    expansion = 4

    def __init__(self, c_in, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.add_shortcut(c_in, 4 * planes, stride)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return self.finish(self.bn3(self.conv3(out)), x)


class ResNet(nn.Module):
    def __init__(
        self, depth, placement=None, num_classes=10, in_channels=3, image_size=32, narrow=1
    ):
        super().__init__()
        kind = BasicBlock if depth < 50 else Bottleneck
        stages = stages_of(placement)
        channels, size = 64 // narrow, _sides(image_size)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for stage, count in enumerate(RESNET_BLOCKS[depth], 1):
            planes, layer = (64 << (stage - 1)) // narrow, []
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                size = tuple(-(-side // stride) for side in size)
                layer.append(kind(channels, planes, stride))
                channels = planes * kind.expansion
                if stage in stages:
                    layer[-1].image_module = torch_blocks.make(stages[stage], channels, size)
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.linear(x.mean((2, 3)))


class VGG(nn.Module):
    def __init__(
        self,
        depth,
        placement=None,
        num_classes=10,
        in_channels=3,
        image_size=32,
        batch_norm=True,
        dropout=0.5,
        narrow=1,
    ):
        super().__init__()
        stages, layers, channels = stages_of(placement), [], in_channels
        size = _sides(image_size)
        widths = [w // narrow for w in (64, 128, 256, 512, 512)]
        hidden = 512 // narrow
        for stage, (count, width) in enumerate(zip(VGG_CONVS[depth], widths, strict=True), 1):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU())
                channels = width
            if stage in stages:
                layers.append(torch_blocks.make(stages[stage], channels, size))
            layers.append(nn.MaxPool2d(2))
            size = tuple(side // 2 for side in size)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(hidden * size[0] * size[1], hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def create(arch: str, placement: str | None = None, dtype=torch.float32, **options) -> nn.Module:
    """``create("resnet18", "NEW_12", num_classes=100)``; dtype torch.float32 or torch.float64.

    ``narrow=2`` halves every width, so that tests of many steps are quick.
    """
    family, depth = re.fullmatch(r"(resnet|vgg)(\d+)", arch).groups()
    kind = ResNet if family == "resnet" else VGG
    return kind(int(depth), placement, **options).to(dtype)


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
