"""The ready plans, and what the study published."""

from __future__ import annotations

from typing import Any

from ..errors import unknown_name

_STUDY_BLOCKS = ["SE_SA", "SEC_SA", "CBAM", "NEW"]
_RESNET: dict[str, Any] = {
    "networks": ["resnet18"], "datasets": ["cifar100"], "blocks": _STUDY_BLOCKS, "stages": ["12"],
}  # fmt: skip
_VGG: dict[str, Any] = {
    "networks": ["vgg19"], "datasets": ["cifar10"], "blocks": _STUDY_BLOCKS, "stages": ["1"],
}  # fmt: skip

# name: (one line about it, the keys of its table)
_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "shapes-quick": (
        "every block at stage 2 of ResNet18 on made-up shapes, two seeds: 22 short runs",
        {
            "networks": ["resnet18"],
            "datasets": ["shapes"],
            "blocks": ["SE", "SEC", "CA", "SA", "AA", "SE_SA", "SEC_SA", "CBAM", "NEW", "NAB"],
            "stages": ["2"],
            "seeds": 2,
            "recipe": {
                "epochs": 3,
                "batch_size": 16,
                "lr": 1e-3,
                "limit_train": 1500,
                "limit_test": 1000,
            },
        },
    ),
    "resnet18-cifar100": (
        "the study's rows for ResNet18 on CIFAR-100, at stages 1 and 2, three seeds",
        {**_RESNET, "seeds": 3},
    ),
    "vgg19-cifar10": (
        "the study's rows for VGG19 on CIFAR-10, at stage 1, three seeds",
        {**_VGG, "seeds": 3},
    ),
    "fast-resnet18-cifar100": (
        "the same rows of ResNet18 with the fast recipe, two seeds: ten runs of 10 epochs",
        {**_RESNET, "recipes": ["fast"], "seeds": 2},
    ),
    "fast-vgg19-cifar10": (
        "the same rows of VGG19 with the fast recipe, two seeds: ten runs of 12 epochs",
        {**_VGG, "recipes": ["fast"], "seeds": 2},
    ),
}

# (network, data set): placement (None: the base) to the accuracy after the last epoch and, where
# it was given, of the best one; in per cent, single runs.
PUBLISHED: dict[tuple[str, str], dict[str | None, tuple[float, float | None]]] = {
    ("vgg19", "cifar10"): {
        None: (93.47, 93.59), "SE_SA_1": (93.59, 93.73), "SEC_SA_1": (93.48, 93.52),
        "CBAM_1": (93.86, 94.00), "NEW_1": (94.15, 94.19),
    },
    ("resnet18", "cifar100"): {
        None: (77.4, None), "SE_SA_12": (77.8, None), "SEC_SA_12": (78.7, None),
        "CBAM_12": (77.8, None), "NEW_12": (78.05, None),
    },
}  # fmt: skip
PUBLISHED_NOTE = (
    "Published: single runs, whose best epoch the test images chose; ResNet18 on the first 8,100 "
    "of the 10,000 test images. It trained on all training images; here some are held out, to "
    "choose the epoch."
)


def list_plans() -> list[str]:
    """The names of the ready plans, for ``Plan.preset``."""
    return list(_PRESETS)


def preset_plan(name: str) -> dict[str, Any]:
    """The table of a ready plan.

    Raises:
        ValueError: no such plan; the message gives the nearest match.
    """
    if not isinstance(name, str) or name not in _PRESETS:
        raise unknown_name("preset of a study", name, _PRESETS)
    return dict(_PRESETS[name][1])


def plan_summary(name: str) -> str:
    """One line about a ready plan.

    Raises:
        ValueError: no such plan; the message gives the nearest match.
    """
    preset_plan(name)
    return _PRESETS[name][0]
