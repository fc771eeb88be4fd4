#!/usr/bin/env python3
"""Does one block look at the object more than another? Several seeds of each, and intervals.

    python notebooks/where_they_look.py                       five networks, three seeds: 15 minutes
    python notebooks/where_they_look.py --blocks CBAM_12 NEW_12 --seeds 42 43

Trains what is not trained yet with the lesson's short recipe on `shapes`, then asks Grad-CAM of the
true class, layer by layer, on test images that chose nothing in the training. Prints Markdown.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import attnnet
from attnnet import explain

TRAINED_ON = 500  # test images that chose the best epoch


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", nargs="+", default=["none", "SE_SA_12", "SEC_SA_12", "CBAM_12",
                        "NEW_12"], help="placements; the last is compared with the others")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--layers", nargs="+", default=["layer2", "layer3", "layer4"])
    parser.add_argument("--images", type=int, default=1000, help="test images to look at")
    parser.add_argument("--train", type=int, default=1500, help="training images")
    parser.add_argument("--output", default="runs/where", help="folder of the trainings")
    return parser.parse_args()


def measured(args: argparse.Namespace, block: str, seed: int) -> tuple[float, explain.Measures]:
    """Accuracy in % and measures by layer of one network, on the images asked about."""
    recipe = attnnet.Recipe.preset(
        "shapes", block=None if block == "none" else block, seed=seed, epochs=3, batch_size=16,
        lr=1e-3, limit_train=args.train, limit_test=TRAINED_ON,
    )  # fmt: skip
    folder = Path(args.output) / f"{block}-{args.train}-{seed}"
    history = attnnet.train(recipe, folder, progress="lines")
    if history.interrupted:
        raise KeyboardInterrupt
    model = attnnet.load(history.checkpoint)
    _, test = attnnet.data.load("shapes", train_count=1, test_count=TRAINED_ON + args.images)
    rows = slice(TRAINED_ON, None)
    images, masks, labels = test.images[rows], test.masks[rows], test.labels[rows]
    found = explain.measure_localisation(
        model, images, masks, "gradcam", args.layers, target=labels
    )
    right = explain.cam(model, images, "eigencam", args.layers[-1]).predicted == labels
    return 100 * float(np.mean(right)), found


def covered(args: argparse.Namespace) -> float:
    """The share of an image that its object covers: the energy inside of a map that knows nothing.
    """
    _, test = attnnet.data.load("shapes", train_count=1, test_count=TRAINED_ON + args.images)
    return float(test.masks[TRAINED_ON:].mean())


def spread(values: list[float], digits: int) -> str:
    """Mean over seeds, and the least and largest."""
    low, mean, high = (f"{f(values):.{digits}f}" for f in (np.min, np.mean, np.max))
    return f"{mean} ({low} to {high})"


def main() -> int:
    args = arguments()
    found = {b: [measured(args, b, seed) for seed in args.seeds] for b in args.blocks}
    columns = next(iter(found.values()))[0][1].columns()
    print("\n| block | accuracy, % | layer |", " | ".join(columns), "|")
    print("| --- | --- | --- |", " | ".join("---" for _ in columns), "|")
    for block, runs in found.items():
        for layer in args.layers:
            accuracy = spread([top1 for top1, _ in runs], 1)
            cells = [spread([m[layer][c].mean for _, m in runs], 3) for c in columns]
            print(f"| {block} | {accuracy} | {layer} |", " | ".join(cells), "|")
    print(f"\nMean over {len(args.seeds)} seeds (least to largest). Objects cover "
          f"{covered(args):.3f} of an image.")
    *others, last = args.blocks
    print("\n| difference | layer |", " | ".join(f"seed {seed}" for seed in args.seeds), "|")
    print("| --- | --- |", " | ".join("---" for _ in args.seeds), "|")
    for other in others:
        pairs = [a - b for (_, a), (_, b) in zip(found[last], found[other], strict=True)]
        for layer in args.layers:
            cells = [str(pair[layer]["energy inside"]) for pair in pairs]
            print(f"| {last} - {other} | {layer} |", " | ".join(cells), "|")
    print("\nEnergy inside, image by image, with 95 % bootstrap intervals over the images.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
