"""``attnnet infer``: what a network says of images, and pictures of where it looks."""

from __future__ import annotations

import argparse
from pathlib import Path

from .choice import add_image_arguments, add_threads_argument, count, images_of, use_threads
from .looks import add_look_arguments, is_right, look, save, true_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("checkpoint", help="a checkpoint, or a training's folder (its best one)")
    add_image_arguments(parser)
    parser.add_argument(
        "--top", type=count, metavar="N", help="classes; default 3, or all where there are fewer"
    )
    parser.add_argument("--output", metavar="DIR", help="write the overlay of each image there")
    add_look_arguments(parser, weight=0.5)
    add_threads_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Predicts and prints; returns the exit code."""
    from ..interop import load

    use_threads(args)
    model = load(args.checkpoint)
    chosen = images_of(args, model)
    width = max(len(name) for name in chosen.names)
    top = min(3, model.num_classes) if args.top is None else args.top
    for row, prediction in enumerate(model.predict(chosen.pixels, top=top)):
        right, verdict = is_right(chosen, row, prediction), ""
        if right is not None:
            true = true_name(chosen, model, row)
            verdict = "   (right)" if right else f"   (wrong: it is {true})"
        print(f"{chosen.names[row]:>{width}}  {prediction}{verdict}")
    if args.output is not None:
        overlays = look(model, chosen, args).overlays
        for name, overlay in zip(chosen.names, overlays, strict=True):
            print(f"picture: {save(Path(args.output), f'{name}-{args.method}', overlay)}")
    return 0
