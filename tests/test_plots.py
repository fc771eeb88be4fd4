"""Curves of trainings, the picture of one, and the command that draws them."""

import math
import sys
import types

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from training.tiny import recipe

import attnnet
from attnnet.cli import main
from attnnet.data import from_arrays
from attnnet.plots import COLOURS, LivePlot, draw_sheet, plot_history, png
from attnnet.training import History, Recipe
from attnnet.training.evaluate import score


def history(epochs, split="test"):
    return History(
        {
            "epoch": i + 1, "train_loss": 2.0 / (i + 1), "train_top1": 50.0 + i,
            f"{split}_loss": 2.1 / (i + 1), f"{split}_top1": 49.0 + i, "seconds": 30.0 * (i + 1),
        }
        for i in range(epochs)
    )  # fmt: skip


def example(channels=3, size=32, count=50, classes=10, right=0.5):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, channels, size, size), np.uint8)
    labels = np.arange(count) % classes
    names = [f"class number {i}" for i in range(classes)]
    dataset = from_arrays(images, labels, names, layout="NCHW")
    logits = rng.standard_normal((count, classes))
    logits[np.arange(count), labels] += 8.0 * (rng.random(count) < right)
    return dataset, score(logits, labels, names)


def lines(axes):
    return {line.get_label(): line.get_ydata().tolist() for line in axes.lines}


def test_one_history_shows_both_splits():
    accuracy, loss = plot_history(history(3, "val")).axes
    assert lines(accuracy) == {"training": [50, 51, 52], "validation": [49, 50, 51]}
    assert lines(loss)["validation"] == pytest.approx([2.1, 1.05, 0.7])
    assert accuracy.get_title("left") == "Accuracy (%)" and loss.get_title("left") == "Loss"


def test_a_named_history_is_called_by_its_name_where_the_title_says_the_split():
    (axes,) = plot_history({"base": history(3)}, ["top1"], split="test").axes
    assert list(lines(axes)) == ["base"] and axes.get_title("left") == "Test accuracy (%)"


def test_one_epoch_is_a_point_over_a_whole_number():
    (axes,) = plot_history({"base": history(1)}, ["top1"], split="test").axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_many_histories_show_the_held_out_images():
    (axes,) = plot_history({"base": history(3), "NEW": history(2)}, ["top1"]).axes
    assert lines(axes) == {"base": [49, 50, 51], "NEW": [49, 50]}
    assert axes.get_title("left") == "Test accuracy (%)"
    assert len({line.get_color() for line in axes.lines}) == 2
    assert len({line.get_marker() for line in axes.lines}) == 2


def test_curves_of_two_splits_say_which_they_are_of():
    named = {"base": history(3), "NEW": history(2, "val")}
    (axes,) = plot_history(named, ["top1"]).axes
    assert lines(axes) == {"base test": [49, 50, 51], "NEW validation": [49, 50]}
    assert axes.get_title("left") == "Accuracy (%)"
    (axes,) = plot_history(named, ["top1"], split="train").axes
    assert list(lines(axes)) == ["base", "NEW"]
    assert axes.get_title("left") == "Training accuracy (%)"


def test_every_curve_is_in_the_legend():
    (axes,) = plot_history({"_base": history(3), "NEW": history(2), "": history(1)}, ["top1"],
                           split="test").axes  # fmt: skip
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == list(lines(axes)) and names[0].startswith("_base")
    colours = [line.get_color() for line in axes.get_legend().get_lines()]
    assert colours == [line.get_color() for line in axes.lines]


def test_a_range_of_epochs():
    (axes,) = plot_history({"a": history(10), "b": history(6)}, ["top1"], epochs=(5, 8)).axes
    assert lines(axes) == {"a": [53, 54, 55, 56], "b": [53, 54]}
    assert axes.get_ylim()[0] > 52


def test_against_the_minutes_that_the_epochs_took():
    named = {"a": history(4), "b": history(2)}
    axes, _ = plot_history(named, epochs=(2, 3), against="minutes").axes
    assert lines(axes) == {"a": [50, 51], "b": [50]} and axes.get_xlabel() == "minutes"
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1.5, 3.0], [1.5]]
    assert axes.get_xlim()[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["top5"]}, "top1"),
        ({"against": "hours"}, "minutes"),
        ({"split": "tset"}, "test"),
        ({"epochs": (11, 20)}, "1 to 10"),
        ({"epochs": (5, 4)}, "5 to 4"),
        ({"metrics": []}, "nothing to plot"),
    ],
)
def test_what_cannot_be_plotted_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plot_history(history(10), **options)


def test_a_history_without_times_is_refused_against_minutes():
    with pytest.raises(ValueError, match="'old' has no seconds"):
        plot_history({"old": History([{"epoch": 1, "test_top1": 1.0}])}, against="minutes")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 200])
def test_picture_of_images_of_every_kind(channels, size):
    dataset, evaluation = example(channels, size)
    assert png(draw_sheet(Recipe(), history(5), dataset, evaluation)).startswith(b"\x89PNG")


def test_picture_frames_right_and_wrong_images_differently():
    dataset, evaluation = example(count=9, right=0.5)
    figure = draw_sheet(Recipe(block=None), history(1, "val"), dataset, evaluation)
    from matplotlib.colors import to_rgba

    seen = []
    for part in figure.subfigs[1:]:
        (axes,) = part.axes
        titles = [text.get_text() for text in axes.texts if text.get_text()[0] in "✓✗"]
        frames = [patch.get_edgecolor() for patch in axes.patches]
        assert len(titles) == len(frames) == len(axes.images) > 0
        for title, colour in zip(titles, frames, strict=True):
            assert colour == to_rgba(COLOURS[0] if title[0] == "✓" else COLOURS[1])
        seen += [title[0] for title in titles]
    right = int((evaluation.predictions == dataset.labels).sum())
    assert (seen.count("✓"), seen.count("✗")) == (right, 2 * (9 - right))


def test_picture_without_mistakes_and_with_nan_losses():
    dataset, evaluation = example(count=3, classes=3, right=1.1)
    rows = history(3)
    rows[0]["train_loss"] = math.nan
    rows[1]["test_loss"] = None
    figure = draw_sheet(Recipe(), rows, dataset, evaluation)
    assert len(figure.subfigs) == 2  # the curves, the images, no mistakes
    assert png(figure)


@pytest.fixture
def notebook(monkeypatch):
    """What a notebook has shown: pairs of "new" or "update" and the bytes of a picture."""
    shown = []

    class Handle:
        def update(self, picture):
            shown.append(("update", picture.data))

    def display(picture, display_id):
        shown.append(("new", picture.data))
        return Handle()

    def image(data):
        return types.SimpleNamespace(data=data)

    png(plot_history(history(1)))  # the first picture of a process asks IPython for its version
    module = types.SimpleNamespace(display=display, Image=image)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=module))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("attnnet.training.progress.in_notebook", lambda: True)
    return shown


def test_live_plot_follows_trainings(notebook):
    shown = notebook
    live = LivePlot(metrics=("top1",))
    for name in ("base", "again"):
        attnnet.Trainer(recipe(epochs=2), False, [live.follow(name)], progress=False).fit()
    assert [kind for kind, _ in shown] == ["new", "update", "update", "update", "update"]
    assert all(data.startswith(b"\x89PNG") for _, data in shown)
    (axes,) = live.figure.axes
    assert list(lines(axes)) == ["base", "again"] and len(lines(axes)["base"]) == 2


def test_live_plot_of_a_range_waits_for_its_first_epoch(notebook):
    live = LivePlot(metrics=("top1",), epochs=(2, 9))
    attnnet.Trainer(recipe(epochs=3), False, [live.follow("base")], progress=False).fit()
    assert [kind for kind, _ in notebook] == ["new", "update"]
    assert len(lines(live.figure.axes[0])["base"]) == 2


def test_live_plot_refuses_at_once_what_no_history_could_show():
    for options in ({"metrics": ("top5",)}, {"split": "tset"}, {"epochs": (5, 4)}):
        with pytest.raises(ValueError):
            LivePlot(**options)


def test_history_shows_its_curves_in_a_notebook():
    assert "data:image/png" in history(2)._repr_html_()
    assert "data:image/png" not in history(1)._repr_html_()


@pytest.fixture
def trainings(tmp_path):
    for name, epochs in (("base", 4), ("new", 3)):
        (tmp_path / name).mkdir()
        history(epochs).to_json(tmp_path / name / "history.json")
    return [str(tmp_path / "base"), str(tmp_path / "new" / "history.json")]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_command(trainings, tmp_path, capsys, kind):
    target = tmp_path / f"out.{kind}"
    words = ["--epochs", "2:4", "--against", "minutes", "--output", str(target)]
    assert main(["plot", *trainings, *words]) == 0
    assert target.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == ["base", "4", "52.00", "52.00", "4"]
    assert table[2].split() == ["new", "3", "51.00", "51.00", "3"]


def test_command_says_of_which_images_where_they_differ(tmp_path, capsys):
    for split in ("test", "val"):
        history(2, split).to_json(tmp_path / f"{split}.json")
    files = [str(tmp_path / f"{split}.json") for split in ("test", "val")]
    words = ["--labels", "a", "b", "--output", str(tmp_path / "x.png")]
    assert main(["plot", *files, *words]) == 0
    table = capsys.readouterr().out.splitlines()[:3]
    assert [line.split()[-1] for line in table] == ["of", "test", "val"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "one"], "--labels: got 1, expected 2"),
        (["--epochs", "3"], "--epochs: got '3', expected A:B"),
        (["--output", "x.gif"], "ending in .png or .svg"),
        (["nothing.json"], "nothing.json"),
    ],
)
def test_command_refuses(trainings, capsys, words, message):
    assert main(["plot", *trainings, *words]) in (1, 2)
    assert message in capsys.readouterr().err
