"""A network, data and recipe small enough that a whole training takes well under a second."""

import attnnet
from attnnet import nn
from attnnet.models import register_model
from attnnet.training import Callback, Recipe


class Tiny(nn.Module):
    """Convolution, batch norm, ReLU, pool, dropout, linear: all kinds of state that there are."""

    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.config = {
            "arch": "tiny",
            "block": None,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "image_size": list(image_size),
        }
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(8)
        self.dropout = nn.Dropout(0.2)
        side = image_size[0] // 8
        self.linear = nn.Linear(8 * side * side, num_classes)

    def forward(self, x):
        x = self.pool(self.relu(self.bn(self.conv(x))))
        return self.linear(self.dropout(x.flatten(1)))


@register_model("tiny")
def tiny(block=None, num_classes=10, in_channels=3, image_size=(32, 32)):
    return Tiny(num_classes, in_channels, image_size)


def recipe(**changes):
    """Seven steps an epoch, the last one with a smaller batch."""
    fields = {
        "arch": "tiny",
        "block": None,
        "epochs": 4,
        "batch_size": 16,
        "limit_train": 100,
        "limit_test": 60,
        "warmup_epochs": 1.0,
        "optimizer": "sgd",
        "lr": 0.05,
        "weight_decay": 5e-4,
        "nesterov": True,
    }
    return Recipe(**{**fields, **changes})


class StopAt(Callback):
    """Asks to stop after one step of one epoch, counted from 0."""

    def __init__(self, epoch, batch):
        self.place = (epoch, batch)

    def on_batch_end(self, trainer, result):
        if (result.epoch, result.batch) == self.place:
            trainer.stop()


class Messages(Callback):
    """Keeps what the trainer says."""

    def __init__(self):
        self.lines = []

    def on_message(self, trainer, text):
        self.lines.append(text)


def poison(parameter, value=float("nan")):
    """Puts a NaN into a parameter."""
    array = parameter.numpy().copy()
    array.flat[0] = value
    parameter.copy_(array)


__all__ = ["Messages", "StopAt", "Tiny", "attnnet", "poison", "recipe", "tiny"]
