"""A network that trains in a blink and takes blocks, and plans of it."""

import sys

from attnnet import nn
from attnnet.models import register_model
from attnnet.models.classifier import Classifier, place_block
from attnnet.models.placement import read_placement
from attnnet.study import Plan

if "pytest" not in sys.modules:
    sys.modules["matplotlib"] = None  # workers draw no pictures, which takes longer than all else


class Small(Classifier):
    """Two stages of a convolution with its block, at 16 x 16 and 4 x 4."""

    def __init__(self, block, num_classes, in_channels, image_size):
        placement = read_placement(block, 2, "SMALL")
        super().__init__("small", placement, num_classes, in_channels, image_size)
        side = self.image_size[0]
        channels = in_channels
        layers = []
        for stage, shrink in ((1, 2), (2, 4)):
            side //= shrink
            layers += [
                nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                nn.MaxPool2d(shrink),
            ]  # fmt: skip
            attention = place_block("small", placement, stage, 16, side, side)
            if attention is not None:
                layers.append(attention)
            channels = 16
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(16 * side * side, num_classes)

    def attention_blocks(self):
        return {f"features.{i}": part for i, part in enumerate(self.features)
                if hasattr(part, "gates")}  # fmt: skip

    def forward(self, x):
        return self.linear(self.features(x).flatten(1))


@register_model("small")
def small(block=None, num_classes=10, in_channels=3, image_size=(32, 32)):
    return Small(block, num_classes, in_channels, image_size)


RECIPE = {
    "epochs": 2, "batch_size": 32, "limit_train": 200, "limit_test": 80, "warmup_epochs": 0.5,
}  # fmt: skip


def plan(**changes):
    """Four runs: base and SE_1, two seeds."""
    keys = {
        "name": "small", "networks": ["small"], "datasets": ["shapes"], "blocks": ["SE"],
        "stages": ["1"], "seeds": 2, "recipe": RECIPE, "imports": ["study.small"],
    }  # fmt: skip
    return Plan.from_dict({**keys, **changes})
