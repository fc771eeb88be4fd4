"""``attnnet train``: train a network, or go on with a training."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..training.fields import FLIP_MODES, SCHEDULES, field_help
from ..training.recipe import Recipe
from .choice import add_threads_argument, count, use_threads

if TYPE_CHECKING:
    from ..training.ranks import Ranks

_EPILOG = """Without options this trains ResNet18 NEW_12 on shapes, made on the spot. With a CIFAR
data set the recipe is the study's one for the network's family, without a block; with
folder:PATH it is ResNet18 NEW_12 for 10 epochs ('--block none': no block). A preset or
recipe file comes first, single options change it. Ctrl-C ends the running step, writes
a checkpoint and says how to go on; a second one stops at once."""

# Every field of a recipe is an option; these are the groups that --help shows them in.
_GROUPS: dict[str, tuple[str, ...]] = {
    "network and data": (
        "arch", "block", "dataset", "image_size", "limit_train", "limit_test", "validation", "mean",
        "std",
    ),
    "training": (
        "epochs", "batch_size", "optimizer", "lr", "momentum", "nesterov", "weight_decay",
        "decay_norms", "dropout", "label_smoothing", "clip_norm", "average", "nan", "seed",
        "test_flip",
    ),
    "schedule": (
        "schedule", "schedule_epochs", "warmup_epochs", "step_size", "gamma", "milestones",
        "final_lr",
    ),
    "augmentation": ("crop_padding", "padding_mode", "flip", "flip_mode", "cutout", "train_sizes"),
}  # fmt: skip
_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": SCHEDULES,
    "flip_mode": FLIP_MODES,
    "padding_mode": ("zeros", "reflect"),
    "nan": ("stop", "continue"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s [OPTION ...]"
    start = parser.add_argument_group("where to start")
    one = start.add_mutually_exclusive_group()
    one.add_argument("--preset", metavar="NAME", help="a ready recipe: 'attnnet list presets'")
    one.add_argument("--recipe", metavar="FILE", help="a recipe in a JSON or TOML file")
    one.add_argument(
        "--resume", metavar="PATH", help="go on with a training: its folder or a checkpoint"
    )
    types = {field.name: str(field.type) for field in dataclasses.fields(Recipe)}
    for title, names in _GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add_field(group, name, types[name])
            if name == "dataset":
                group.add_argument("--data", metavar="PATH", help="folder of the data set's files")
    run = parser.add_argument_group("running")
    run.add_argument(
        "--stop-after", type=count, metavar="N",
        help="stop after so many epochs; the schedule still spans all, and --resume goes on",
    )  # fmt: skip
    run.add_argument("--output", metavar="DIR", help="where to write; default: a new one in runs/")
    run.add_argument(
        "--overwrite", action="store_true", help="write over another training that stands there"
    )
    run.add_argument(
        "--checkpoint-every", type=count, metavar="N", help="a checkpoint each N steps, too"
    )
    add_threads_argument(run)
    run.add_argument(
        "--mpi", action=argparse.BooleanOptionalAction,
        help="train one network in all processes that mpiexec, mpirun or srun started together, "
        "each on a part of every batch; --no-mpi: a network of its own in each; default: --mpi "
        "where several were started",
    )  # fmt: skip
    run.add_argument("--no-progress", action="store_true", help="no bar, only a line an epoch")
    run.add_argument("--tensorboard", action="store_true", help="write TensorBoard event files")
    run.add_argument(
        "--wandb", nargs="?", const="online", choices=("online", "offline"), metavar="MODE",
        help="Weights & Biases, online (default) or offline",
    )  # fmt: skip


def _add_field(group: Any, name: str, annotation: str) -> None:
    """The option of one field of the recipe; left out, it is not in the parsed arguments."""
    option = "--" + name.replace("_", "-")
    common = {"dest": name, "default": argparse.SUPPRESS, "help": field_help(name)}
    if annotation == "bool":
        group.add_argument(option, action=argparse.BooleanOptionalAction, **common)
        return
    metavar = "NAME" if annotation.startswith("str") else "N" if "int" in annotation else "X"
    if name in _CHOICES:
        metavar = None  # argparse shows the choices
    if annotation.startswith("tuple"):
        common.update(nargs="+", action=_Joined)
    group.add_argument(
        option, type=converter(annotation), metavar=metavar, choices=_CHOICES.get(name), **common
    )


class _Joined(argparse.Action):
    """Several numbers, with spaces or commas between them."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        joined = None if values == [None] else tuple(n for part in values for n in part or ())
        setattr(namespace, self.dest, joined)


def converter(annotation: str) -> Callable[[str], Any]:
    """From an option's text to a value; the recipe checks what it means."""
    kinds = annotation.split(" | ")

    def convert(text: str) -> Any:
        if "None" in kinds and text.lower() in ("none", ""):
            return None
        if kinds[0] == "str":
            return text
        if kinds[0] == "bool":
            if text.lower() not in ("true", "false"):
                raise argparse.ArgumentTypeError(f"got {text!r}; expected true or false")
            return text.lower() == "true"
        try:
            if kinds[0].startswith("tuple"):
                part = int if "int" in kinds[0] else float
                return tuple(part(item) for item in text.replace(",", " ").split())
            if "int" in kinds and ("float" not in kinds or text.strip().isdigit()):
                return int(text)
            return float(text)
        except ValueError:
            expected = "numbers" if kinds[0].startswith("tuple") else "a number"
            if "float" not in annotation:
                expected = expected.replace("number", "whole number")
            raise argparse.ArgumentTypeError(f"got {text!r}; expected {expected}") from None

    return convert


def read_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that the options describe.

    Raises:
        ValueError: an unknown name, or a wrong value.
        OSError: the recipe file cannot be read.
    """
    from ..training.presets import preset_for

    given = _given(args)
    if args.recipe is not None:
        return Recipe.from_file(args.recipe).replace(**given)
    preset = args.preset or preset_for(given.get("arch"), given.get("dataset"))
    return Recipe(**given) if preset is None else Recipe.preset(preset, **given)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of the recipe that options set."""
    names = {field.name for field in dataclasses.fields(Recipe)}
    return {name: value for name, value in vars(args).items() if name in names}


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit code."""
    from ..training.ranks import find_ranks

    ranks = find_ranks(args.mpi)
    try:
        with ranks.guard():
            return _train(args, ranks)
    except Exception:
        if ranks.is_first:
            raise
        return 0  # the first says it for all: launchers mix the codes of several


def _train(args: argparse.Namespace, ranks: Ranks) -> int:
    from ..training.trainer import Trainer

    with ranks.all_or_none():
        recipe = read_recipe(args) if args.resume is None else None
        epochs = None if args.resume is None else _resumed_epochs(args)
        callbacks = _callbacks(args) if ranks.is_first else []
    options = {
        "overwrite": args.overwrite,
        "callbacks": callbacks,
        "progress": "lines" if args.no_progress else True,
        "data": args.data,
        "checkpoint_every": args.checkpoint_every,
        "distributed": args.mpi,
    }
    if args.resume is not None:
        trainer = Trainer.resume(args.resume, args.output, epochs=epochs, **options)
    else:
        trainer = Trainer(recipe, args.output, **options)
    use_threads(args)
    history = trainer.fit(stop_after=args.stop_after)
    if history.interrupted:
        return 128 + (trainer.stop_signal or 2)
    return 0


def _resumed_epochs(args: argparse.Namespace) -> int | None:
    """The number of epochs for a resumed training, the one field that may change then.

    Raises:
        ValueError: another field was given.
    """
    given = _given(args)
    epochs = given.pop("epochs", None)
    if given:
        option = "--" + next(iter(given)).replace("_", "-")
        raise ValueError(
            f"--resume goes on with the recipe in the checkpoint; {option} would change it (only "
            "--epochs may be given)."
        )
    return epochs


def _callbacks(args: argparse.Namespace) -> list[Any]:
    from ..training.callbacks import TensorBoard, WandB

    chosen: list[Any] = []
    if args.tensorboard:
        chosen.append(TensorBoard())
    if args.wandb is not None:
        chosen.append(WandB(mode=args.wandb))
    return chosen
