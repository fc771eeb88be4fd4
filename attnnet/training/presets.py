"""The ready recipes: what they are for, and what they set."""

from __future__ import annotations

from typing import Any

from ..errors import unknown_name

# What a real photograph data set needs and the study's two recipes share.
_STUDY: dict[str, Any] = {
    "block": None,
    "batch_size": 128,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "nesterov": False,
    "warmup_epochs": 0.0,
    "crop_padding": 4,
    "padding_mode": "zeros",
    "flip": 0.5,
    "limit_train": None,
    "limit_test": None,
    "seed": 42,
}

# In few epochs there is time for one rise and fall of the rate. K. Jordan, "94% on CIFAR-10 in 3.29
# seconds on a single GPU", 2024: alternating flips, reflected translation, label smoothing, mirror
# images at the test; but by his 2 pixels instead of 4, networks learned their images by heart. D.
# Page, "How to train your ResNet", 2018/19: a rate that falls in a line, averaged weights. T. He et
# al., "Bag of tricks for image classification", 2019: no decay of norms and biases.
_FAST: dict[str, Any] = {
    "arch": "resnet18",
    "block": None,
    "dataset": "cifar10",
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "decay_norms": False,
    "schedule": "linear",
    "epochs": 10,
    "warmup_epochs": 2.0,
    "final_lr": 0.0,
    "average": 0.99,
    "label_smoothing": 0.1,
    "crop_padding": 4,
    "padding_mode": "reflect",
    "flip": 0.5,
    "flip_mode": "alternating",
    "test_flip": True,
    "seed": 42,
}
_FAST_VGG: dict[str, Any] = {"epochs": 12, "dropout": 0.0}  # it has less to compute a step

# name: (one line about it, the fields it sets)
_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "shapes": (
        "ResNet18 with NEW at stages 1 and 2 on 4,000 made-up shapes: 3 epochs, no download",
        {"dataset": "shapes", "epochs": 3, "limit_train": 4000, "limit_test": 1000},
    ),
    "resnet18-cifar100": (
        "the study's recipe for ResNet18 on CIFAR-100: 200 epochs, cosine from 0.1 to 0",
        {
            **_STUDY,
            "arch": "resnet18",
            "dataset": "cifar100",
            "epochs": 200,
            "lr": 0.1,
            "schedule": "cosine",
            "mean": (0.4914, 0.4822, 0.4465),
            "std": (0.2023, 0.1994, 0.2010),
        },
    ),
    "vgg19-cifar10": (
        "the study's recipe for VGG19 on CIFAR-10: 300 epochs, 0.05 halved every 30",
        {
            **_STUDY,
            "arch": "vgg19",
            "dataset": "cifar10",
            "epochs": 300,
            "lr": 0.05,
            "schedule": "step",
            "step_size": 30,
            "gamma": 0.5,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        },
    ),
    "fast": (
        "a short recipe for any network: 10 epochs (VGG: 12), up to 0.1 and down to 0",
        _FAST,
    ),
}


def list_presets() -> list[str]:
    """The names of the presets, for ``Recipe.preset``."""
    return list(_PRESETS)


def preset_fields(name: str, arch: str | None = None) -> dict[str, Any]:
    """The fields that a preset sets.

    Args:
        name: the preset's name.
        arch: the network that it is for, to which ``fast`` fits itself; default: its own.

    Raises:
        ValueError: no such preset; the message gives the nearest match.
    """
    if not isinstance(name, str) or name not in _PRESETS:
        raise unknown_name("preset", name, _PRESETS)
    fields = dict(_PRESETS[name][1])
    if name == "fast" and str(arch).lower().startswith("vgg"):
        fields |= _FAST_VGG
    return fields


def preset_summary(name: str) -> str:
    """One line about a preset.

    Raises:
        ValueError: no such preset; the message gives the nearest match.
    """
    preset_fields(name)
    return _PRESETS[name][0]


def preset_for(arch: str | None, dataset: str | None) -> str | None:
    """The preset that a network and a dataset start from where none is named.

    CIFAR starts from the study's recipe of the network's family; images of one's own from the
    defaults of ``Recipe`` (None), whose block is NEW_12.
    """
    if dataset is None or dataset.lower() == "shapes":
        return "shapes"
    if not dataset.lower().startswith("cifar"):
        return None
    return "vgg19-cifar10" if (arch or "").lower().startswith("vgg") else "resnet18-cifar100"
