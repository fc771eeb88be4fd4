"""What a training is made of: one dataclass, its presets, and its files.

Every field is checked when it is set, so a recipe that exists is a recipe that makes sense; names
that depend on what is registered (models, blocks, data) are checked by ``check_names``, which the
trainer calls before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import unknown_name

_LARGEST_FILE = 1 << 16  # a recipe is a few hundred bytes; refuse to read a disk image
# Names inside names inside names: reading them takes time and memory that grow with their square.
_DEEP_NAME = re.compile(r"(?:\.[^.,=\n]+){50}")


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, lists nested without end
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _finite(value: Any) -> bool:
    """Whether this is a finite number; a whole number too large for a float is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
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
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise _wrong(name, value, expected)
        if value > most:
            raise _wrong(name, value, f"at most {most:,}")
        return value

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
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and isinstance(value, int) and value >= 1:
        return value
    if number and 0.0 < value < 1.0:
        return float(value)
    raise _wrong(name, value, "a fraction between 0 and 1, a count of images, or None")


SCHEDULES = ("constant", "step", "multistep", "cosine", "linear", "onecycle")
FLIP_MODES = ("random", "alternating")

# One line a field: the check, and what the field means (shown by `attnnet train --help`).
_FIELDS: dict[str, tuple[Callable[[str, Any], Any], str]] = {
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


@dataclass
class Recipe:
    """What to train, on what, and how. The defaults suit small images of ones own.

    Attributes:
        arch: network, a name that ``attnnet.list_models()`` gives.
        block: attention placement such as ``"NEW_12"`` or ``"CBAM_1+SE_34"``; None: base network.
        dataset: ``"shapes"``, ``"cifar10"``, ``"cifar100"`` or ``"folder:PATH"``.
        image_size: side in pixels that the images of ``folder:PATH`` are brought to; None: 32.
        epochs: passes over the training images.
        batch_size: images a step; the last, smaller batch of an epoch is used too.
        optimizer: ``"sgd"`` or ``"adamw"``.
        lr: the schedule's highest learning rate.
        momentum: of SGD, in [0, 1).
        weight_decay: on every parameter, or all but norms and biases: see ``decay_norms``.
        decay_norms: whether the norms' gains and shifts and all biases decay, too, as in the study;
            False: only what has two dimensions or more.
        nesterov: Nesterov's form of the momentum.
        schedule: ``"constant"``, ``"step"`` (times ``gamma`` every ``step_size`` epochs),
            ``"multistep"`` (times ``gamma`` at each of ``milestones``), ``"cosine"`` (to
            ``final_lr`` at ``schedule_epochs``, stepped each epoch), ``"linear"`` (in a straight
            line to ``final_lr``, stepped each batch), or ``"onecycle"`` (up over
            ``warmup_epochs``, down to ``final_lr``, stepped each batch).
        schedule_epochs: length of the schedule; None follows ``epochs``.
        warmup_epochs: linear warm-up before the schedule, in epochs (fractions are fine).
        step_size, gamma, milestones, final_lr: see ``schedule``.
        dropout: in [0, 1), before the first two linear layers of a VGG; None: the network's own.
        label_smoothing: in [0, 1), of the training loss alone.
        clip_norm: the gradients' largest norm; None: not clipped.
        average: what is evaluated, kept as the best and loaded later is not the weights of the
            last step, but their exponential moving average with this decay a step, in (0, 1)
            (``optim.AveragedModel``): over about the last 1 / (1 - average) steps. None: it is.
        crop_padding, padding_mode, flip, cutout: augmentation of the training images (pixels,
            ``"zeros"`` or ``"reflect"``, a probability, pixels).
        flip_mode: ``"random"``: the flip is drawn anew in every epoch; ``"alternating"``: in the
            first, and from then on each image is mirrored in every other epoch.
        train_sizes: the side in pixels (of oblong images the shorter one) that the training images
            are shrunk to in the first epochs, one number an epoch, for networks that take images
            of any size: a ResNet without AA, no VGG. Evaluation sees all pixels. (): so does
            training.
        mean, std: normalisation, one number a channel, for pixels in 0..1; None: the data's own.
        validation: a fraction in (0, 1) or a count of training images held out to choose the best
            epoch by; None: the test images choose it, and the log says so.
        limit_train, limit_test: use only that many images, of every class its share; None: all.
        test_flip: average the logits over each test image and its mirror image.
        nan: ``"stop"`` raises ``NaNLossError`` at a NaN or infinite loss or gradient,
            ``"continue"`` skips that step and counts it.
        seed: of the weights, the order, the augmentation, dropout and the validation split.

    Raises:
        ValueError: a field has a wrong value or does not exist (the nearest name is given), when
            the recipe is made and whenever a field is set.

    The study's recipes: section "Recipes of the study" in ``docs/results.md``.
    """

    arch: str = "resnet18"
    block: str | None = "NEW_12"
    dataset: str = "shapes"
    image_size: int | None = None
    epochs: int = 10
    batch_size: int = 32
    optimizer: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    decay_norms: bool = True
    nesterov: bool = False
    schedule: str = "onecycle"
    schedule_epochs: int | None = None
    warmup_epochs: float = 0.75
    step_size: int = 30
    gamma: float = 0.5
    milestones: tuple[int, ...] = ()
    final_lr: float = 0.0
    dropout: float | None = None
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    average: float | None = None
    crop_padding: int = 2
    padding_mode: str = "reflect"
    flip: float = 0.5
    flip_mode: str = "random"
    cutout: int = 0
    train_sizes: tuple[int, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    validation: float | int | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    test_flip: bool = False
    nan: str = "stop"
    seed: int = 42

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, check_field(name, value))

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Checks the fields against one another.

        Raises:
            ValueError: two fields contradict each other.
        """
        if (self.mean is None) != (self.std is None):
            raise ValueError("recipe: mean and std go together; only one of the two is set.")
        if self.mean is not None and len(self.mean) != len(self.std):
            raise ValueError(
                f"recipe: mean has {len(self.mean)} numbers and std {len(self.std)}; "
                "expected one a channel in both."
            )
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0.0:
            raise ValueError("recipe: nesterov needs a momentum above 0; momentum is 0.")
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("recipe: the multistep schedule needs milestones; there are none.")
        if self.schedule_epochs is not None and self.schedule_epochs < self.epochs:
            raise ValueError(
                f"recipe: schedule_epochs is {self.schedule_epochs}, less than the "
                f"{self.epochs} epochs to train; expected at least as many."
            )
        if self.warmup_epochs >= self.total_epochs and self.schedule in ("linear", "onecycle"):
            raise ValueError(
                f"recipe: warmup_epochs is {self.warmup_epochs:g}, as long as the whole schedule "
                f"of {self.total_epochs} epochs; expected less."
            )
        if self.final_lr > self.lr:
            raise ValueError(
                f"recipe: final_lr {self.final_lr:g} is above lr {self.lr:g}; expected at most lr."
            )

    def check_names(self, own_data: bool = False, own_model: bool = False) -> None:
        """Checks that the model, block and dataset exist, before anything is loaded.

        Args:
            own_data, own_model: do not check the name of what the user brings along.

        Raises:
            ValueError: a name does not exist; the message lists what does, and the nearest match.
        """
        from .names import check_names

        check_names(self, own_data, own_model)

    @property
    def total_epochs(self) -> int:
        """The schedule's length in epochs: ``schedule_epochs``, or ``epochs`` where it is None."""
        return self.epochs if self.schedule_epochs is None else self.schedule_epochs

    @property
    def name(self) -> str:
        """A short name for folders and titles, for example ``resnet18-NEW_12-shapes``."""
        data = self.dataset
        if data.startswith("folder:"):
            data = os.path.basename(os.path.normpath(data[len("folder:") :])) or "folder"
        text = "-".join(part for part in (self.arch, self.block or "base", data) if part)
        return "".join(c if c.isalnum() or c in "-_+." else "_" for c in text)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed.

        Raises:
            ValueError: as for the constructor.
        """
        return Recipe.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values that JSON and TOML can hold (tuples become lists)."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Recipe:
        """The recipe that ``to_dict`` wrote; fields left out have their defaults.

        Args:
            fields: field names and values; ``preset`` may name the preset to start from.

        Raises:
            ValueError: a field does not exist (with the nearest match) or has a wrong value.
        """
        if not isinstance(fields, Mapping):
            raise ValueError(
                f"recipe: got {type(fields).__name__}; expected a table of fields and values."
            )
        values = dict(fields)
        start = values.pop("preset", None)
        for name in values:
            if name not in _FIELDS:
                raise unknown_name("field of a recipe", name, _FIELDS)
        if start is None:
            return cls(**values)
        from .presets import preset_fields

        of_preset = preset_fields(start, values.get("arch"), values.get("dataset"))
        return cls(**{**of_preset, **values})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Recipe:
        """A ready recipe: ``shapes``, the study's ``resnet18-cifar100`` and ``vgg19-cifar10``, or
        ``fast``, which takes minutes instead of days.

        Args:
            name: the preset's name (``attnnet list presets``).
            **changes: fields to set differently; ``fast`` fits itself to ``arch`` (default
                ``resnet18``) and ``dataset`` (default ``cifar10``).

        Raises:
            ValueError: no such preset (with the nearest match), or a wrong field.
        """
        return cls.from_dict({**changes, "preset": name})

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Recipe:
        """Reads a recipe from a JSON or TOML file (TOML needs Python 3.11 or newer).

        Args:
            path: a ``.json`` or ``.toml`` file with one flat table of fields; ``preset = "NAME"``
                starts from that preset.

        Raises:
            ValueError: not a recipe, or a wrong field; the message names the file.
            OSError: the file cannot be read.
        """
        try:
            return cls.from_dict(read_table(os.fspath(path)))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe as JSON that ``from_file`` reads.

        Raises:
            OSError: the file cannot be written.
        """
        from .files import write_atomically

        write_atomically(os.fspath(path), (json.dumps(self.to_dict(), indent=2) + "\n").encode())


def check_field(name: str, value: Any) -> Any:
    """A field's value as a recipe holds it.

    Raises:
        ValueError: no such field (with the nearest match), or a wrong value.
    """
    if name not in _FIELDS:
        raise unknown_name("field of a recipe", name, _FIELDS)
    return _FIELDS[name][0](name, value)


def field_help(name: str) -> str:
    """What a field means, in one line."""
    return _FIELDS[name][1]


def read_table(path: str, what: str = "recipe") -> Any:
    """The table in a JSON or TOML file.

    Args:
        path: ends in ``.toml`` for TOML. what: what the file should hold, for messages.

    Raises:
        ValueError: it holds no table. OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        raw = file.read(_LARGEST_FILE + 1)
    if len(raw) > _LARGEST_FILE:
        raise ValueError(f"larger than {_LARGEST_FILE} bytes; this is no {what}.")
    try:
        text = raw.decode("utf-8")
        if not path.lower().endswith(".toml"):
            return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON {what}: {error}.") from None
    try:
        import tomllib
    except ModuleNotFoundError:
        raise ValueError(f"TOML needs Python 3.11 or newer; write the {what} as JSON.") from None
    if _DEEP_NAME.search(text):
        raise ValueError(f"not a TOML {what}: names inside names without end.")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a TOML {what}: {error}.") from None
