"""The networks of the study and what finds, places and asks them."""

from .classifier import Classifier
from .placement import Placement, read_placement
from .predict import Prediction, Predictions
from .registry import create_model, find_model, has_option, list_models, register_model
from .resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from .vgg import VGG, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "VGG",
    "BasicBlock",
    "Bottleneck",
    "Classifier",
    "Placement",
    "Prediction",
    "Predictions",
    "ResNet",
    "create_model",
    "find_model",
    "has_option",
    "list_models",
    "read_placement",
    "register_model",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
]
