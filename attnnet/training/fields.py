"""The fields of a recipe: what values each takes, and what it means."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from ..errors import unknown_name


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, lists nested without end
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _finite(value: Any) -> bool:
    """Whether this is a finite number; a whole number too large for a float is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _wrong(name: str, value: object, expected: str) -> ValueError:
    return ValueError(f"recipe: {name} is {_shown(value)}; expected {expected}.")


def _whole(
    low: int, optional: bool = False, most: int = 2**31 - 1
) -> Callable[[str, Any], int | None]:
    """A checker of whole numbers from ``low`` to ``most`` (or None where optional)."""
    expected = f"a whole number of at least {low}" + (" or None" if optional else "")

    def check(name: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
            raise _wrong(name, value, expected)
        if value > most:
            raise _wrong(name, value, f"at most {most:,}")
        return int(value)

    return check


def _real(
    low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False,
    optional: bool = False,
) -> Callable[[str, Any], float | None]:  # fmt: skip
    """A checker of finite numbers between two bounds (or None where optional)."""
    expected = f"a number {'above' if open_low else 'of at least'} {low:g}"
    if high < math.inf:
        expected += f" and {'below' if open_high else 'at most'} {high:g}"
    expected += " or None" if optional else ""

    def check(name: str, value: Any) -> float | None:
        if value is None and optional:
            return None
        if not _finite(value):
            raise _wrong(name, value, expected)
        number = float(value)
        fits = low < number if open_low else low <= number
        if not (fits and (number < high if open_high else number <= high)):
            raise _wrong(name, value, expected)
        return number

    return check


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong(name, value, f"one of {', '.join(choices)}")
        if value not in choices:
            raise unknown_name(f"{name} in the recipe", value, choices)
        return value

    return check


def _text(optional: bool = False) -> Callable[[str, Any], str | None]:
    expected = "a name (text)" + (" or None" if optional else "")

    def check(name: str, value: Any) -> str | None:
        if value is None and optional:
            return None
        if not isinstance(value, str) or not value.strip():
            raise _wrong(name, value, expected)
        return value

    return check


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _numbers(name: str, value: Any, expected: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, in a list or tuple."""
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise _wrong(name, value, expected)
    return tuple(_whole(1)(name, item) for item in value)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    return _numbers(name, value, "numbers of pixels, one an epoch, for example (16, 16, 24)")


def _milestones(name: str, value: Any) -> tuple[int, ...]:
    expected = "rising epoch numbers of at least 1, for example (60, 120, 160)"
    numbers = _numbers(name, value, expected)
    if any(b <= a for a, b in itertools.pairwise(numbers)):
        raise _wrong(name, value, expected)
    return numbers


def _per_channel(positive: bool) -> Callable[[str, Any], tuple[float, ...] | None]:
    expected = ("numbers above 0" if positive else "numbers") + ", one a channel, or None"

    def check(name: str, value: Any) -> tuple[float, ...] | None:
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, (list, tuple)) or not value:
            raise _wrong(name, value, expected)
        for item in value:
            if not _finite(item) or (positive and item <= 0):
                raise _wrong(name, value, expected)
        return tuple(float(item) for item in value)

    return check


def _validation(name: str, value: Any) -> float | int | None:
    if value is None:
        return None
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number and isinstance(value, Integral) and value >= 1:
        return int(value)
    if number and 0.0 < value < 1.0:
        return float(value)
    raise _wrong(name, value, "a fraction between 0 and 1, a count of images, or None")


SCHEDULES = ("constant", "step", "multistep", "cosine", "linear", "onecycle")
FLIP_MODES = ("random", "alternating")

# One line a field: the check, and what the field means (shown by `attnnet train --help`).
FIELDS: dict[str, tuple[Callable[[str, Any], Any], str]] = {
    "arch": (_text(), "network, for example resnet18 or vgg19"),
    "block": (_text(True), "attention placement, for example NEW_12 or CBAM_1+SE_34; none: base"),
    "dataset": (_text(), "shapes, cifar10, cifar100 or folder:PATH"),
    "image_size": (_whole(1, True), "pixels that images of folder:PATH are brought to; default 32"),
    "epochs": (_whole(1), "passes over the training images"),
    "batch_size": (_whole(1), "images a step"),
    "optimizer": (_one_of("sgd", "adamw"), "sgd or adamw"),
    "lr": (_real(0.0, open_low=True), "learning rate (its highest value)"),
    "momentum": (_real(0.0, 1.0, open_high=True), "momentum of sgd"),
    "weight_decay": (_real(0.0), "weight decay"),
    "decay_norms": (_flag, "weight decay of norms and biases, too"),
    "nesterov": (_flag, "Nesterov momentum"),
    "schedule": (_one_of(*SCHEDULES), "learning rate schedule"),
    "schedule_epochs": (_whole(1, True), "length of the schedule; default: as many as epochs"),
    "warmup_epochs": (_real(0.0), "epochs of linear warm-up (onecycle: its rising part)"),
    "step_size": (_whole(1), "epochs between the drops of the step schedule"),
    "gamma": (_real(0.0, 1.0, open_low=True), "factor of a drop (step, multistep)"),
    "milestones": (_milestones, "epochs of the drops of the multistep schedule"),
    "final_lr": (_real(0.0), "learning rate at the end (cosine, linear, onecycle)"),
    "dropout": (
        _real(0.0, 1.0, open_high=True, optional=True),
        "dropout of a VGG's linear layers; default: the network's own",
    ),
    "label_smoothing": (_real(0.0, 1.0, open_high=True), "label smoothing of the training loss"),
    "clip_norm": (_real(0.0, open_low=True, optional=True), "largest norm of the gradients"),
    "average": (
        _real(0.0, 1.0, open_low=True, open_high=True, optional=True),
        "evaluate and keep averaged weights: decay a step, for example 0.99; default: none",
    ),
    "crop_padding": (_whole(0), "random crop: pixels of padding on each side; 0: none"),
    "padding_mode": (_one_of("zeros", "reflect"), "what the padding holds: zeros or reflect"),
    "flip": (_real(0.0, 1.0), "probability of a horizontal flip"),
    "flip_mode": (
        _one_of(*FLIP_MODES),
        "random: drawn each epoch; alternating: drawn once, then every other epoch",
    ),
    "cutout": (_whole(0), "side of the square that cutout blanks, in pixels; 0: none"),
    "train_sizes": (
        _sizes,
        "pixels of a training image's side in each of the first epochs; default: its own",
    ),
    "mean": (_per_channel(False), "normalisation, one number a channel; default: the data's own"),
    "std": (_per_channel(True), "normalisation, one number a channel; default: the data's own"),
    "validation": (_validation, "held out of the training images: a fraction or a count"),
    "limit_train": (_whole(1, True), "use only this many training images"),
    "limit_test": (_whole(1, True), "use only this many test images"),
    "test_flip": (_flag, "average the logits over each test image and its mirror image"),
    "nan": (_one_of("stop", "continue"), "at a NaN or infinite loss: stop, or skip the step"),
    "seed": (_whole(0, most=2**64 - 1), "seed of weights, order and augmentation"),
}


def check_field(name: str, value: Any) -> Any:
    """A field's value as a recipe holds it.

    Raises:
        ValueError: no such field (with the nearest match), or a wrong value.
    """
    if name not in FIELDS:
        raise unknown_name("field of a recipe", name, FIELDS)
    return FIELDS[name][0](name, value)


def field_help(name: str) -> str:
    """What a field means, in one line."""
    return FIELDS[name][1]
