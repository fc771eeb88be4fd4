"""What is not installed is named, with the command that installs it, and the rest works."""

import sys

import numpy as np
import pytest

import attnnet
from attnnet import explain

IMAGE = np.zeros((32, 32, 3), np.uint8)


def open_folder(tmp_path):
    attnnet.data.read_image(tmp_path / "a.png", 32)


def predict_file(tmp_path):
    attnnet.resnet18(num_classes=2).predict(tmp_path / "a.png")


def show_picture(tmp_path):
    explain.image.html_image(IMAGE)


def draw_curves(tmp_path):
    attnnet.plots.new_figure(3, 2)


@pytest.mark.parametrize(
    "package, extra, use",
    [
        ("PIL", "images", open_folder),
        ("PIL", "images", predict_file),
        ("PIL", "images", show_picture),
        ("matplotlib", "plots", draw_curves),
    ],
)
def test_an_extra_that_is_missing(package, extra, use, tmp_path, monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install attnnet\[{extra}\]"):
        use(tmp_path)
    assert attnnet.resnet18(num_classes=2).predict(IMAGE)[0].indices[0] in (0, 1)
