"""``attnnet study``: a plan of many trainings, run to its end, and what they say together."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

from .choice import add_threads_argument

if TYPE_CHECKING:
    from ..study import Plan

_EPILOG = """A plan is a ready one (--preset), a TOML or JSON file, or options; options change what
a preset or file says. Runs that are done are skipped, those begun go on to the bit, so
that Ctrl-C does no harm: the same command, or --resume DIR, goes on.

  attnnet study --preset shapes-quick
  attnnet study plan.toml --list
  attnnet study --networks resnet18 --datasets cifar100 --blocks SE CBAM --stages 12 --seeds 3"""

_LISTS = {
    "networks": "for example resnet18 vgg19",
    "datasets": "shapes, cifar10, cifar100 or folder:PATH",
    "blocks": "blocks, crossed with --stages, or placements such as CBAM_1+SE_34; "
    "the base network is always among the runs",
    "stages": "sets of stages, for example 1 12",
    "recipes": "presets of trainings; default: that of network and data set",
    "imports": "modules to import first, which register blocks of your own",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.epilog = _EPILOG
    start = parser.add_argument_group("the plan")
    start.add_argument("plan", nargs="?", metavar="FILE", help="a plan in a TOML or JSON file")
    start.add_argument("--preset", metavar="NAME", help="a ready plan: 'attnnet list studies'")
    start.add_argument("--resume", metavar="DIR", help="go on with the study in this folder")
    for name, help_text in _LISTS.items():
        start.add_argument(f"--{name}", nargs="+", metavar="NAME", help=help_text)
    start.add_argument("--seeds", nargs="+", type=int, metavar="N", help="how many seeds, or with "
                       "several numbers: which")  # fmt: skip
    start.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="fields of all "
                       "recipes to set differently, for example epochs=30 lr=0.05")  # fmt: skip
    start.add_argument("--data", metavar="PATH", help="folder of the data sets' files")
    work = parser.add_argument_group("running")
    work.add_argument("--list", action="store_true", help="only say which runs these are")
    work.add_argument("--report", metavar="DIR", help="only write the report of the study in this "
                      "folder, as far as it is done")  # fmt: skip
    work.add_argument("--output", metavar="DIR", help="the study's folder; default: studies/NAME")
    work.add_argument(
        "--workers", type=int, metavar="N", help="runs at once, each in a process of its own; "
        "default: one a core, as far as memory goes; 0: one after another in this process"
    )  # fmt: skip
    add_threads_argument(work)
    work.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, whose workers take "
                      "the runs; the folder must be on a file system that they share")  # fmt: skip
    work.add_argument("--no-progress", action="store_true", help="no table, only lines")


def run(args: argparse.Namespace) -> int:
    """Runs the study; returns the exit code."""
    from .. import study

    if args.report is not None:
        print(f"report: {study.write_report(args.report)}")
        return 0
    plan, folder = _plan(args)
    if args.list:
        _list(plan)
        return 0
    progress = study.run(
        plan, folder, args.workers, threads=args.threads, data=args.data,
        scheduler=args.scheduler, progress="lines" if args.no_progress else True,
        command=shlex.join(["attnnet", *args.words]),
    )  # fmt: skip
    if progress.interrupted:
        print(progress)
        print(f"to go on: {_again(args, progress.folder)}")
        return 128 + (progress.signal or 2)
    print(study.Results(progress.folder, plan, progress.states))
    print(f"report: {study.write_report(progress.folder)}")
    return 1 if progress.count("failed") else 0


def _again(args: argparse.Namespace, folder: str) -> str:
    words = ["attnnet", "study", "--resume", folder]
    for option in ("data", "scheduler"):
        if getattr(args, option) is not None:
            words += [f"--{option}", getattr(args, option)]
    return shlex.join(words)


def _plan(args: argparse.Namespace) -> tuple[Plan, str | None]:
    """The plan that the options describe, and the study's folder where that is said.

    Raises:
        ValueError: more than one place to start from, or a wrong value.
        OSError: the file cannot be read.
    """
    from ..study import Plan
    from ..study.folder import StudyFolder

    if sum(start is not None for start in (args.plan, args.preset, args.resume)) > 1:
        raise ValueError("give a plan's file, --preset or --resume, one of them.")
    keys = {name: getattr(args, name) for name in _LISTS if getattr(args, name) is not None}
    if args.seeds is not None:
        keys["seeds"] = args.seeds[0] if len(args.seeds) == 1 else args.seeds
    changes = dict(_field(text) for text in args.set)
    if changes:
        keys["recipe"] = changes
    if args.resume is not None:
        if keys:
            option = "set" if changes else next(iter(keys))
            raise ValueError(f"--resume goes on with the plan in the folder; --{option} would "
                             "change it.")  # fmt: skip
        if args.output is not None:
            raise ValueError("--resume goes on in the study's own folder; leave --output out.")
        return StudyFolder(args.resume).plan(), args.resume
    if args.plan is not None:
        return Plan.from_file(args.plan, **keys), args.output
    if args.preset is not None:
        return Plan.preset(args.preset, **keys), args.output
    if not keys:
        raise ValueError("which study? Give a plan's file, --preset NAME, --resume DIR or options.")
    return Plan.from_dict(keys), args.output


def _field(text: str) -> tuple[str, Any]:
    """A recipe's field and its value.

    Raises:
        ValueError: not FIELD=VALUE, or a field that does not exist (with the nearest match).
    """
    from ..errors import unknown_name
    from ..training.recipe import Recipe
    from .train import converter

    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--set: got {text!r}; expected FIELD=VALUE, for example epochs=30.")
    types = {field.name: str(field.type) for field in dataclasses.fields(Recipe)}
    if name not in types:
        raise unknown_name("field of a recipe (--set)", name, types)
    try:
        return name, converter(types[name])(value)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--set {name}: {error}.") from None


def _list(plan: Plan) -> None:
    """Prints the runs of a plan, family by family."""
    from ..study.sentences import training_text

    print(f"study {plan.name}: {len(plan.runs)} runs")
    for family in plan.families:
        rows = [placement or "base" for placement in plan.placements(family)]
        first = next(run.recipe for run in plan.runs if run.family == family)
        print(f"{family}: {training_text(first)}")
        print(f"  {', '.join(rows)}")
        print(f"  seeds {', '.join(map(str, plan.seeds))}")
