"""Optimisers, schedules, clipping and averages of weights; names and formulas are PyTorch's."""

from .adamw import AdamW
from .average import AveragedModel
from .clip import clip_grad_norm_, clip_grad_value_
from .optimizer import Optimizer
from .schedules import (
    CosineAnnealingLR,
    LinearLR,
    LinearWarmup,
    MultiStepLR,
    OneCycleLR,
    Schedule,
    StepLR,
)
from .sgd import SGD

__all__ = [
    "SGD",
    "AdamW",
    "AveragedModel",
    "CosineAnnealingLR",
    "LinearLR",
    "LinearWarmup",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "Schedule",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
]
