"""Blocks that do something to a process that trains them, never to one that makes them only."""

import errno
import os
import sys

import attnnet
from attnnet import nn


class Marks(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gain = nn.Parameter([1.0] * channels)

    def forward(self, x):
        if self.training:
            self.strike()
        return x * self.gain.reshape(1, -1, 1, 1)


@attnnet.register_block("DIES")
class Dies(Marks):
    def strike(self):
        if "pytest" not in sys.modules:
            os._exit(3)


@attnnet.register_block("FULL")
class Full(Marks):
    def strike(self):
        raise OSError(errno.ENOSPC, "No space left on device")


@attnnet.register_block("NANS")
class Nans(Marks):
    def forward(self, x):
        return x * (float("nan") if self.training else 1.0)
