"""``attnnet evaluate``: how good a checkpoint is."""

from __future__ import annotations

import argparse
import json

from .choice import (
    Bar,
    add_data_arguments,
    add_threads_argument,
    count,
    dataset_of,
    flips,
    use_threads,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "checkpoint", help="a checkpoint, the study's too, or a training's folder (its best one)"
    )
    add_data_arguments(parser)
    parser.add_argument("--limit", type=count, metavar="N", help="use only so many images")
    parser.add_argument("--batch-size", type=count, default=256, metavar="N", help="default 256")
    parser.add_argument(
        "--test-flip", action="store_true", help="average over each image and its mirror image"
    )
    add_threads_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints; returns the exit code."""
    from ..interop import load
    from ..training.evaluate import evaluate

    use_threads(args)
    model = load(args.checkpoint)
    dataset = dataset_of(args, model, args.limit)
    flip = args.test_flip or flips(model)
    with Bar(len(dataset.labels)) as bar:
        result = evaluate(model, dataset, args.batch_size, test_flip=flip, on_batch=bar.update)
    if args.json:
        print(json.dumps({"dataset": dataset.name, "split": args.split, **result.to_dict()}))
    else:
        print(f"{args.checkpoint} on the {args.split} images of {dataset.name}\n")
        print(result.table())
    return 0

