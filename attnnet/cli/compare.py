"""``attnnet compare``: the same images through several networks, side by side."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .choice import (
    Bar,
    Chosen,
    add_image_arguments,
    add_threads_argument,
    dataset_of,
    flips,
    images_of,
    use_threads,
)
from .looks import Looks, add_look_arguments, enlargement, is_right, look, save, true_name

if TYPE_CHECKING:
    from ..markup import Html
    from ..nn import Module
    from ..report import Page
    from ..training import Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.epilog = (
        "Writes compare.html (all of it in one file), accuracy.csv, predictions.csv, and for each "
        "image a picture with a row a network: map, guided backpropagation, their product."
    )
    parser.add_argument(
        "checkpoints", nargs="+", metavar="CHECKPOINT", help="checkpoints or training folders"
    )
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one a checkpoint; default: "
                        "network and block")  # fmt: skip
    add_image_arguments(parser, positional=False)
    add_look_arguments(parser, weight=0.6)
    parser.add_argument(
        "--evaluate", type=int, metavar="N", help="images for the accuracy table; 0: no table; "
        "default: as many as the trainings tested on"
    )  # fmt: skip
    parser.add_argument("--output", default="comparison", metavar="DIR", help="default: comparison")
    add_threads_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Compares, prints and writes; returns the exit code."""
    from ..interop import load

    use_threads(args)
    models = _named([load(path) for path in args.checkpoints], args.labels)
    first = next(iter(models.values()))
    for name, model in models.items():
        for what in ("class_names", "image_size"):
            its, expected = getattr(model, what), getattr(first, what)
            if its != expected:
                raise ValueError(
                    f"{name}: {what} is {its}; expected {expected}, as of the first network."
                )
    chosen = images_of(args, first)
    looks = {name: look(model, chosen, args) for name, model in models.items()}
    found = {name: _evaluate(args, name, model) for name, model in models.items()}
    folder = Path(args.output)
    for row in range(len(chosen.names)):
        _save_strips(folder, chosen, row, looks)
    accuracy = _accuracy(models, found)
    said = [model.predict(chosen.pixels) for model in models.values()]
    predictions = [["image", "true", *models]] + [
        [name, true_name(chosen, first, row), *(str(one[row]) for one in said)]
        for row, name in enumerate(chosen.names)
    ]
    for name, table in (("accuracy", accuracy), ("predictions", predictions)):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(table)
        print("\n".join("  ".join(f"{c:<14}" for c in row).rstrip() for row in table) + "\n")
    marked = [
        [name, true, *(_marked(text, is_right(chosen, row, one[row]))
                       for text, one in zip(texts, said, strict=True))]
        for row, (name, true, *texts) in enumerate(predictions[1:])
    ]  # fmt: skip
    page = _page(args, chosen, accuracy, [predictions[0], *marked], looks)
    page.write(folder / "compare.html")
    print(f"page: {folder / 'compare.html'}")
    return 0


def _named(models: list[Module], labels: list[str] | None) -> dict[str, Module]:
    """The models by label: given, or network and block, numbered where two are alike."""
    if labels is None:
        labels = [f"{model.arch} {model.block_name}" for model in models]
        seen: dict[str, int] = {}
        for i, label in enumerate(labels):
            seen[label] = seen.get(label, 0) + 1
            if seen[label] > 1:
                labels[i] = f"{label} ({seen[label]})"
    if len(labels) != len(models):
        raise ValueError(f"--labels: got {len(labels)}, expected {len(models)}, one a checkpoint.")
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"--labels: {label!r} is there twice; expected each once.")
    return dict(zip(labels, models, strict=True))


def _evaluate(args: argparse.Namespace, name: str, model: Module) -> Evaluation | None:
    """The model on the data set's images; None where none is asked for or known."""
    from ..training.evaluate import evaluate

    unknown = args.dataset is None and getattr(model, "recipe", None) is None
    if args.evaluate == 0 or (unknown and args.images):
        return None
    dataset = dataset_of(args, model, args.evaluate)
    with Bar(len(dataset.labels)) as bar:
        return evaluate(model, dataset, test_flip=flips(model), on_batch=bar.update)


def _accuracy(models: dict[str, Module], found: dict[str, Any]) -> list[list[str]]:
    """A head and a row a network."""
    table = [["network", "parameters", "images", "top-1 %", "top-5 %", "loss"]]
    for name, model in models.items():
        parameters = f"{sum(p.numel() for p in model.parameters()):,}"
        result = found[name]
        figures = ["", "", "", ""]
        if result is not None:
            figures = [f"{result.images:,}", f"{result.top1:.2f}", f"{result.top5:.2f}",
                       f"{result.loss:.4f}"]  # fmt: skip
        table.append([name, parameters, *figures])
    return table


def _save_strips(folder: Path, chosen: Chosen, row: int, looks: dict[str, Looks]) -> None:
    """Writes one image's picture: a row a network, of map, guided backpropagation, product."""
    from .. import explain

    image = chosen.pictures[row]
    tiles, titles = [], []
    for name, seen in looks.items():
        tiles += [image, *(rows[row] for rows in seen.rows().values())]
        titles += [name, seen.cam.titles()[row], "guided", "product"]
    sheet = explain.grid(tiles, columns=4, titles=titles, scale=enlargement(image))
    save(folder, f"{chosen.names[row]}-strips", sheet)


def _page(
    args: argparse.Namespace,
    chosen: Chosen,
    accuracy: list[list[str]],
    predictions: list[list[Html | str]],
    looks: dict[str, Looks],
) -> Page:
    from ..report import Page

    page = Page(f"{len(looks)} networks on the same images")
    page.heading("Accuracy")
    page.table(accuracy[0], accuracy[1:])
    page.heading("Predictions")
    page.table(predictions[0], predictions[1:])
    page.heading("Where they look")
    where = f" of {', '.join(args.layers)}" if args.layers else ""
    page.text(
        f"The image, {args.method}{where} over it for the class named under each "
        "network, guided backpropagation, and the product of the two.", note=True,
    )  # fmt: skip
    for row, name in enumerate(chosen.names):
        true = predictions[1 + row][1]
        page.text(f"Image {name}" + (f": {true}" if true else ""))
        rows = [_cells(chosen, row, network, seen) for network, seen in looks.items()]
        page.table(["network", "image", args.method, "guided", "product"], rows)
    return page


def _cells(chosen: Chosen, row: int, network: str, seen: Looks) -> list[Html]:
    """The network with the class that was looked for, and the pictures of one image."""
    from ..markup import Html, as_html
    from ..report import picture

    parts = {"image": chosen.pictures[row]} | {k: rows[row] for k, rows in seen.rows().items()}
    scale = enlargement(chosen.pictures[row])
    return [
        Html(f"{as_html(network)}<br>{as_html(seen.cam.titles()[row])}"),
        *(picture(part.repeat(scale, 0).repeat(scale, 1), kind) for kind, part in parts.items()),
    ]


def _marked(said: str, right: bool | None) -> Html | str:
    """A prediction with a mark and colour where it is known whether it is right."""
    from ..markup import Html, as_html

    if right is None:
        return said
    kind, mark = ("right", "✓") if right else ("wrong", "✗")
    return Html(f"<span class={kind}>{mark} {as_html(said)}</span>")
