"""Layers, attention blocks and the Module that they share."""

from . import init
from .attention import CA, CBAM, NAB, NEW, SA, SE, SE_SA, SEC, SEC_SA, AttentionBlock
from .attention_augmented import AA
from .containers import ModuleList, Sequential
from .fused import conv_bn
from .hooks import HookHandle
from .layers import (
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Identity,
    Linear,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from .module import Module
from .parameter import Parameter
from .pooling import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from .registry import list_blocks, make_block, register_block
from .state import IncompatibleKeys, StateDictError
from .summary import Summary

__all__ = [
    "AA",
    "CA",
    "CBAM",
    "NAB",
    "NEW",
    "SA",
    "SE",
    "SEC",
    "SEC_SA",
    "SE_SA",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AttentionBlock",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "HookHandle",
    "Identity",
    "IncompatibleKeys",
    "Linear",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "StateDictError",
    "Summary",
    "Tanh",
    "conv_bn",
    "init",
    "list_blocks",
    "make_block",
    "register_block",
]
