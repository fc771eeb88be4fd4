"""The picture of a training, on data of every kind; round ticks; odd histories."""

import math

import numpy as np
import pytest

from attnnet.data import from_arrays
from attnnet.training import History, Recipe
from attnnet.training.evaluate import score
from attnnet.training.sheet import _range, _ticks, draw_sheet


def example(channels=3, size=32, count=50, classes=10, right=0.5):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, channels, size, size), np.uint8)
    labels = np.arange(count) % classes
    names = [f"class number {i}" for i in range(classes)]
    dataset = from_arrays(images, labels, names, layout="NCHW")
    logits = rng.standard_normal((count, classes))
    logits[np.arange(count), labels] += 8.0 * (rng.random(count) < right)
    return dataset, score(logits, labels, names)


def history(epochs, split="test"):
    return History(
        {
            "epoch": i + 1, "train_loss": 2.0 / (i + 1), "train_top1": 50.0 + i,
            f"{split}_loss": 2.1 / (i + 1), f"{split}_top1": 49.0 + i,
        }
        for i in range(epochs)
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 32, 200])
def test_images_of_every_kind(channels, size):
    dataset, evaluation = example(channels, size)
    sheet = draw_sheet(Recipe(), history(5), dataset, evaluation)
    assert sheet.mode == "RGB" and sheet.width == 1200 and 700 < sheet.height < 1200


@pytest.mark.parametrize("epochs", [1, 2, 300])
@pytest.mark.parametrize("split", ["test", "val"])
def test_short_and_long_histories(epochs, split):
    dataset, evaluation = example()
    assert draw_sheet(Recipe(block=None), history(epochs, split), dataset, evaluation)


def test_few_images_no_mistakes_and_nan_losses():
    dataset, evaluation = example(count=3, classes=3, right=1.1)
    assert evaluation.top1 == 100.0
    rows = history(3)
    rows[0]["train_loss"] = math.nan
    rows[1]["test_loss"] = None
    all_right = draw_sheet(Recipe(), rows, dataset, evaluation)
    dataset, evaluation = example(count=3, classes=3, right=0.0)
    assert draw_sheet(Recipe(), rows, dataset, evaluation).height > all_right.height


def test_right_and_wrong_images_are_framed_in_different_colours():
    pixels = {}
    for right in (0.0, 1.1):
        dataset, evaluation = example(right=right)
        if right == 0.0:
            evaluation.predictions[:] = (dataset.labels + 1) % 10
        sheet = draw_sheet(Recipe(), history(3), dataset, evaluation)
        pixels[right] = {sheet.getpixel((35, y)) for y in range(400, 600)}
    blue, orange = (31, 95, 168), (208, 84, 0)
    assert blue in pixels[1.1] and orange not in pixels[1.1]
    assert orange in pixels[0.0] and blue not in pixels[0.0]


def test_ticks_are_round_and_in_range():
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = float(rng.uniform(-5, 5))
        high = low + float(10 ** rng.uniform(-3, 3))
        ticks = _ticks(low, high, 5)
        assert 1 <= len(ticks) <= 7 and low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-6
    assert _ticks(1, 4, 8, whole=True) == [1.0, 2.0, 3.0, 4.0]
    assert _range(np.array([96.0, 99.0]), " %") == (95.0, 100.0)
    assert _range(np.array([]), "") == (0.0, 1.0)
    low, high = _range(np.array([0.0, 0.0]), "")
    assert low < high
