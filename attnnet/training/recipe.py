"""What a training is made of: one dataclass, its presets, and its files.

Every field is checked when it is set, so a recipe that exists is a recipe that makes sense; names
that depend on what is registered (models, blocks, data) are checked by ``check_names``, which the
trainer calls before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import unknown_name
from .fields import FIELDS, check_field
from .files import plain_file_name, write_atomically
from .table import read_table


@dataclass
class Recipe:
    """What to train, on what, and how. The defaults suit small images of one's own.

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
        average: decay a step, in (0, 1), of the exponential moving average of the weights
            (``optim.AveragedModel``), which spans about the last 1 / (1 - average) steps. The
            average is what is evaluated, kept as the best and loaded later. None: the weights of
            the last step are.
        crop_padding, padding_mode, flip, cutout: augmentation of the training images (pixels,
            ``"zeros"`` or ``"reflect"``, a probability, pixels).
        flip_mode: ``"random"``: whether an image is mirrored is drawn anew in every epoch;
            ``"alternating"``: it is drawn in the first epoch, and from then on the image is
            mirrored in every other one.
        train_sizes: the side in pixels (of oblong images the shorter one) that the training images
            are shrunk to in the first epochs, one number an epoch, for networks that take images
            of any size: a ResNet without AA, no VGG. Later epochs and every evaluation see the
            images at their own size. (): all epochs do.
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
        return plain_file_name(text)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed.

        Raises:
            ValueError: as for the constructor; or a preset, which sets nearly all of them.
        """
        if "preset" in changes:
            raise ValueError(
                f"recipe: replace changes single fields; Recipe.preset({changes['preset']!r}, ...) "
                "starts from a preset."
            )
        return Recipe.from_dict({**self.to_dict(), **changes})

    def differences(self, there: Recipe) -> dict[str, str]:
        """The fields in which another recipe differs: ``{"lr": "lr is 0.1 there, 0.2 here"}``."""
        mine, its = self.to_dict(), there.to_dict()
        return {k: f"{k} is {its[k]!r} there, {mine[k]!r} here" for k in mine if mine[k] != its[k]}

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
            if name not in FIELDS:
                raise unknown_name("field of a recipe", name, FIELDS)
        if start is None:
            return cls(**values)
        from .presets import preset_fields

        of_preset = preset_fields(start, values.get("arch"))
        return cls(**{**of_preset, **values})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Recipe:
        """A ready recipe: ``shapes``, the study's ``resnet18-cifar100`` and ``vgg19-cifar10``, or
        ``fast``, a short one for any network.

        Args:
            name: the preset's name (``attnnet list presets``).
            **changes: fields to set differently; ``fast`` fits itself to ``arch``.

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
        write_atomically(os.fspath(path), (json.dumps(self.to_dict(), indent=2) + "\n").encode())
