"""``attnnet cam``: where a network looks: overlays, guided backpropagation, their product."""

from __future__ import annotations

import argparse
from pathlib import Path

from .choice import add_image_arguments, add_threads_argument, images_of, use_threads
from .looks import add_look_arguments, enlargement, look, save, true_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    from ..explain import list_methods

    parser.epilog = (
        f"methods: {', '.join(list_methods())}. For each image four files are written: the "
        "overlay, guided backpropagation, the product of the map with it, and a strip of all."
    )
    parser.add_argument("checkpoint", help="a checkpoint, or a training's folder (its best one)")
    add_image_arguments(parser)
    add_look_arguments(parser, weight=0.5)
    parser.add_argument("--output", default="cam", metavar="DIR", help="default: cam")
    add_threads_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Looks and writes; returns the exit code."""
    from .. import explain
    from ..interop import load

    use_threads(args)
    model = load(args.checkpoint)
    chosen = images_of(args, model)
    looks = look(model, chosen, args)
    folder = Path(args.output)
    for row, (name, title) in enumerate(zip(chosen.names, looks.cam.titles(), strict=True)):
        parts = {kind: rows[row] for kind, rows in looks.rows().items()}
        for kind, picture in parts.items():
            save(folder, f"{name}-{kind if kind != 'cam' else args.method}", picture)
        strip = explain.strip(
            [chosen.pictures[row], *parts.values()],
            titles=[true_name(chosen, model, row) or name, args.method, "guided", "product"],
            scale=enlargement(chosen.pictures[row]),
        )
        path = save(folder, f"{name}-strip", strip)
        print(f"{name}: {title}; {path}")
    return 0
