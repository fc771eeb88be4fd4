"""Studies whose results are made up, so that the right answer is known."""

import json
import os

import numpy as np

from attnnet.study.folder import StudyFolder
from attnnet.study.predictions import Predictions
from attnnet.training import History
from attnnet.training.files import write_atomically


def make(folder, plan, skill, images=1000, spread=0.0, noise=0, of_images=None, leave=()):
    """Writes a study's folder as if its runs were done.

    Args:
        skill: block (None: the base) to the share of images that it gets right.
        spread: standard deviation of that share over seeds, the same for all blocks of a seed or
            not, as ``noise`` seeds it.
        of_images: seed to what says which images these are.
        leave: names of runs that are left undone.
    """
    home = StudyFolder(folder)
    home.open(plan)
    home.book(plan, "made up")
    home.close()
    for place, run in enumerate(plan.runs):
        if run.name in leave:
            continue
        random = np.random.default_rng((noise, place))
        share = skill[run.block] + random.normal(0, spread)
        right = np.random.default_rng((noise, run.seed, 7)).permutation(images) < share * images
        write_run(home, run, right, of_images[run.seed] if of_images else "the images")
    return home


def write_run(home, run, right, images="the images"):
    """Writes the files of one run that is done."""
    labels = np.arange(len(right)) % 10
    top1 = 100 * float(right.mean())
    rows = [
        {"epoch": e, "train_loss": 2 / e, "train_top1": top1 * e / 3, "val_loss": 2 / e,
         "val_top1": top1 * e / 3, "lr": 0.1, "images_per_second": 100.0, "seconds": 1.0,
         "skipped": 0} for e in (1, 2, 3)
    ]  # fmt: skip
    history = History(rows)
    history.summary = {"test_top1": top1, "test_top5": 99.0, "test_loss": 1.0, "best_epoch": 3,
                       "best_top1": top1, "last_top1": top1, "chosen_on": "validation",
                       "epochs": 3, "seconds": 3.0}  # fmt: skip
    os.makedirs(home.of(run), exist_ok=True)
    history.to_json(home.of(run, "history.json"))
    taken = np.where(right, labels, (labels + 1) % 10)
    Predictions(labels, taken, np.full(len(right), 0.8), images).write(home.of(run))
    result = {
        "recipe": run.recipe.to_dict(), "summary": history.summary, "ece": 5.0, "parameters": 5402,
        "multiply_adds": 10_000, "step_ms": 12.5, "skipped": 0, "threads": 1, "attnnet": "0.1.0",
        "localisation": {"pointing game": 60.0, "energy inside": 40.0, "IoU": 30.0},
        "machine": {"processor": "made up", "attnnet": "0.1.0"},
    }  # fmt: skip
    write_atomically(home.of(run, "result.json"), json.dumps(result).encode())
