"""``attnnet bench``: how fast it is here, and beside other systems."""

from __future__ import annotations

import argparse

from .choice import add_threads_argument, count, use_threads

_ABOUT = """Sections: operations, algorithms, blocks, training, inference, cams, scaling, memory,
import, size; default: all but scaling. Systems to compare with must be installed: torch,
onnxruntime, openvino, mnn (the last three need onnx as well, and infer only), grad-cam (class
activation maps only). The outputs are compared before anything is timed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.epilog = _ABOUT
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="what to run")
    parser.add_argument(
        "--vs", nargs="+", default=[], metavar="SYSTEM", help="systems to compare with"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ARCH[:BLOCK]",
        help="networks of the sections training, inference and memory; default: all",
    )  # fmt: skip
    parser.add_argument("--batch", type=count, default=128, metavar="N", help="batch of "
                        "operations, algorithms, blocks and --profile; default 128")  # fmt: skip
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="rounds; default 5")
    add_threads_argument(parser)
    parser.add_argument("--output", metavar="DIR", help="write bench.json and bench.png there")
    parser.add_argument(
        "--profile", metavar="ARCH[:BLOCK]",
        help="only show where the time of this network's training step goes, for example "
        "resnet18:NEW_12; with --output a trace for viewers as well",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs and prints; returns the exit code."""
    from ..bench import SECTIONS
    from ..bench import run as run_benchmarks

    use_threads(args)
    if args.profile is not None:
        return _profile(args)
    sections = args.sections or [section for section in SECTIONS if section != "scaling"]
    run_benchmarks(
        sections, args.vs, only=args.only, batch=args.batch, rounds=args.rounds, output=args.output
    )  # fmt: skip
    return 0


def _profile(args: argparse.Namespace) -> int:
    from pathlib import Path

    from .. import Profile
    from ..bench.engine import Attnnet, Job

    arch, _, block = args.profile.partition(":")
    runner = Attnnet().train(Job(arch, block or None, args.batch))
    for _ in range(2):  # the first steps find memory
        runner.step()
    with Profile() as profile:
        runner.step()
    print(profile.table(shapes=True, limit=None))
    if args.output is not None:
        Path(args.output).mkdir(parents=True, exist_ok=True)
        profile.save_trace(Path(args.output) / "trace.json")
    return 0
