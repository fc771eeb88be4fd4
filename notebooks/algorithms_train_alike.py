#!/usr/bin/env python3
"""Does it matter for a training how its convolutions are computed?

    python notebooks/algorithms_train_alike.py        VGG19, two epochs of CIFAR-10: half an hour
    python notebooks/algorithms_train_alike.py --arch resnet18 --epochs 1

Trains one network with the same seed by each algorithm, and once more by the usual one with another
seed: the yardstick. Prints Markdown and draws the losses on top of each other.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import attnnet

USUAL = "usual"  # what the core chooses: Winograd's algorithms wherever they fit


class Losses(attnnet.training.Callback):
    """The loss of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_batch_end(self, trainer: attnnet.Trainer, result: attnnet.training.BatchResult) -> None:
        self.seen.append(result.loss)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vgg19")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--limit-train", type=int, help="training images; default: all")
    parser.add_argument("--algorithms", nargs="+", default=[USUAL, "implicit_gemm"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43],
                        help="the first is every algorithm's, all are the usual one's")
    parser.add_argument("--output", default="runs/algorithms", help="folder of all that is written")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # this process's file
    return parser.parse_args()


def train(args: argparse.Namespace) -> None:
    """What a process of its own does, whose environment names the algorithm."""
    recipe = attnnet.Recipe.preset(
        "vgg19-cifar10", arch=args.arch, dataset=args.dataset, block=None, epochs=args.epochs,
        seed=args.seeds[0], limit_train=args.limit_train,
    )  # fmt: skip
    losses = Losses()
    history = attnnet.Trainer(recipe, False, [losses], progress="lines").fit()
    np.savez(args.one, losses=losses.seen, top1=history[-1]["test_top1"])


def trained(args: argparse.Namespace, algorithm: str, seed: int) -> tuple[np.ndarray, float]:
    """The losses of the steps and the accuracy on the test images, %, from a file if there is
    one."""
    words = [args.arch, args.dataset, args.epochs, args.limit_train, algorithm, seed]
    file = Path(args.output) / f"{'-'.join(map(str, words))}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        print(f"{algorithm}, seed {seed}", flush=True)
        environment = {k: v for k, v in os.environ.items() if k != "ATTNNET_CONVOLUTION"}
        if algorithm != USUAL:
            environment["ATTNNET_CONVOLUTION"] = algorithm
        command = [sys.executable, __file__, "--one", str(file), "--seeds", str(seed)]
        command += ["--arch", args.arch, "--dataset", args.dataset, "--epochs", str(args.epochs)]
        if args.limit_train is not None:
            command += ["--limit-train", str(args.limit_train)]
        subprocess.run(command, env=environment, check=True)
    with np.load(file) as found:
        return found["losses"], float(found["top1"])


def smooth(losses: np.ndarray, steps: int) -> np.ndarray:
    """The mean of so many steps around each."""
    return np.convolve(losses, np.full(steps, 1 / steps), "valid")


def draw(curves: dict[str, np.ndarray], steps: int, file: Path) -> None:
    """The smoothed losses, one line each."""
    from attnnet.plots import new_figure, png

    figure = new_figure(8, 4)
    axes = figure.subplots()
    for name, losses in curves.items():
        axes.plot(np.arange(len(losses) - steps + 1) + steps / 2, smooth(losses, steps), label=name)
    axes.set(xlabel="step", ylabel=f"training loss, mean of {steps} steps")
    axes.legend()
    file.write_bytes(png(figure))


def main() -> int:
    args = arguments()
    if args.one:
        train(args)
        return 0
    first = args.seeds[0]
    runs = [(a, first) for a in args.algorithms] + [(USUAL, seed) for seed in args.seeds[1:]]
    found = {f"{a}, seed {seed}": trained(args, a, seed) for a, seed in runs}
    base = next(iter(found.values()))[0]
    steps = min(50, max(1, len(base) // 4))
    print(f"\n| algorithm | loss, last {steps} steps | distance to the first | accuracy, % |")
    print("| --- | --- | --- | --- |")
    for name, (losses, top1) in found.items():
        distance = np.abs(smooth(losses, steps) - smooth(base, steps)).mean()
        print(f"| {name} | {losses[-steps:].mean():.4f} | {distance:.4f} | {top1:.2f} |")
    print(f"\nDistance: of the losses' means over {steps} steps, on average over the training.")
    picture = Path(args.output) / "losses.png"
    draw({name: losses for name, (losses, _) in found.items()}, steps, picture)
    print(f"picture: {picture}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
