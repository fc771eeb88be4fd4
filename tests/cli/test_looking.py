"""infer, cam and compare: predictions, pictures, the page; and what they refuse."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

import attnnet
from attnnet.cli import main

QUICK = {"epochs": 1, "limit_train": 16, "limit_test": 8, "batch_size": 8, "warmup_epochs": 0.5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of two trainings of a few steps."""
    root = tmp_path_factory.mktemp("trained")
    for arch, block in (("resnet18", "NEW_1"), ("vgg11", None)):
        recipe = attnnet.Recipe.preset("shapes", arch=arch, block=block, **QUICK)
        attnnet.Trainer(recipe, output=root / arch, progress=False).fit()
    return root


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_infer_says_the_classes_of_test_images(trained, capsys):
    assert main(["infer", str(trained / "vgg11"), "--indices", "3", "0", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("3 ") and lines[1].startswith("0 ")
    model = attnnet.load(trained / "vgg11")
    assert all(re.search(r"\w+ \d+\.\d %, \w+ \d+\.\d %   \((right|wrong: it is \w+)\)", line)
               for line in lines)  # fmt: skip
    assert any(name in lines[0] for name in model.class_names)


def test_infer_reads_files_of_any_size_and_mode(trained, tmp_path, capsys):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save("colour.png")
    Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save("gray.png")
    Image.fromarray(rng.integers(0, 256, (20, 20, 4), np.uint8)).save("with-alpha.png")
    words = ["infer", str(trained / "resnet18"), "colour.png", "gray.png", "with-alpha.png"]
    assert main([*words, "--output", "out"]) == 0
    assert "right" not in capsys.readouterr().out
    assert files(tmp_path / "out") == [
        f"{name}-gradcam.png" for name in ("colour", "gray", "with-alpha")
    ]


def test_cam_writes_four_pictures_an_image(trained, tmp_path, capsys):
    words = ["cam", str(trained / "resnet18"), "--method", "layercam", "--target", "star"]
    assert main([*words, "--layers", "layer1.0.image_module", "layer3", "--indices", "5"]) == 0
    assert files(tmp_path / "cam") == [
        "5-guided.png", "5-layercam.png", "5-product.png", "5-strip.png",
    ]  # fmt: skip
    assert Image.open(tmp_path / "cam" / "5-layercam.png").size == (128, 128)
    assert "5: star" in capsys.readouterr().out


def test_files_of_one_name_get_pictures_each(trained, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(f"{folder}/x.png")
    assert main(["infer", str(trained / "vgg11"), "a/x.png", "b/x.png", "--output", "out"]) == 0
    assert files(tmp_path / "out") == ["x-2-gradcam.png", "x-gradcam.png"]


def test_networks_of_two_classes(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), np.uint8)
    pair = attnnet.data.from_arrays(images, np.arange(16) % 2, ["1", "0"], name="two")
    recipe = attnnet.Recipe.preset("shapes", arch="vgg11", block=None, **QUICK)
    attnnet.Trainer(recipe, tmp_path / "two", data=(pair, pair), progress=False).fit()
    Image.fromarray(images[0].transpose(1, 2, 0)).save("x.png")
    assert main(["infer", "two", "x.png"]) == 0
    assert len(re.findall("%", capsys.readouterr().out)) == 2
    assert main(["infer", "two", "x.png", "--top", "3"]) == 2
    assert "top must be 1 to 2 (the classes), got 3" in capsys.readouterr().err
    assert main(["cam", "two", "x.png", "--target", "1"]) == 0  # the name, not the number
    assert "x: 1 " in capsys.readouterr().out


def test_the_overlay_is_the_library_s(trained, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save("image.png")
    assert main(["cam", str(trained / "vgg11"), "image.png", "--colormap", "jet"]) == 0
    model = attnnet.load(trained / "vgg11")
    expected = attnnet.explain.cam(model, pixels).overlay()[0]
    found = np.asarray(Image.open(tmp_path / "cam" / "image-gradcam.png"))[::4, ::4]
    np.testing.assert_array_equal(found, expected)


def test_compare_writes_a_page_tables_and_strips(trained, tmp_path, capsys):
    words = ["compare", str(trained / "resnet18"), str(trained / "vgg11"), "--indices", "0", "1"]
    assert main([*words, "--labels", "first", "second"]) == 0
    folder = tmp_path / "comparison"
    assert files(folder) == [
        "0-strips.png", "1-strips.png", "accuracy.csv", "compare.html", "predictions.csv",
    ]  # fmt: skip
    with open(folder / "accuracy.csv", newline="") as file:
        head, first, second = csv.reader(file)
    assert head[0] == "network" and [first[0], second[0]] == ["first", "second"]
    model = attnnet.load(trained / "resnet18")
    assert first[1] == f"{sum(p.numel() for p in model.parameters()):,}" and first[2] == "8"
    page = (folder / "compare.html").read_text()
    # Of two images what two networks see: the image, the map, guided backpropagation, the product.
    assert page.count("data:image/png;base64") == 2 * 2 * 4 and "src=\"http" not in page
    assert page.count("class=right") + page.count("class=wrong") == 2 * 2
    assert "accuracy.csv" not in page and "second" in page
    assert "second" in capsys.readouterr().out


def test_compare_tests_as_evaluate_does(trained, capsys):
    """Where the recipe averages over mirror images, each network's figure does, too."""
    recipe = attnnet.load(trained / "vgg11").recipe.replace(test_flip=True)
    attnnet.Trainer(recipe, output=trained / "flips", progress=False).fit()
    flips, plain = str(trained / "flips"), str(trained / "vgg11")
    assert main(["evaluate", flips, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert main(["compare", flips, plain, "--indices", "0", "--labels", "flips", "plain"]) == 0
    with open("comparison/accuracy.csv", newline="") as file:
        head, *rows = csv.reader(file)
    at = head.index("loss")
    assert float(rows[0][at]) == pytest.approx(expected["loss"], abs=6e-5)
    assert rows[0][at] != rows[1][at], "the same weights, asked in two ways"


def test_photos_get_the_size_of_the_network_unless_told(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    recipe = attnnet.Recipe.preset("shapes", arch="vgg11", dataset="folder:photos", **QUICK)
    attnnet.Trainer(recipe, output="run", progress=False).fit()
    words = ["evaluate", "run", "--dataset", "folder:photos"]
    assert main(words) == 0
    assert main([*words, "--image-size", "64"]) == 2
    assert "64" in capsys.readouterr().err


def test_compare_numbers_networks_of_one_kind(trained, capsys):
    again = str(trained / "vgg11")
    assert main(["compare", again, again, "--indices", "0", "--evaluate", "0"]) == 0
    assert "vgg11 VGG11 (2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["infer", "{}", "no.png"], "no.png"),
        (["infer", "{}", "no.png", "--indices", "1"], "not both"),
        (["infer", "{}", "--indices", "8"], "--indices: got 8, expected 0 to 7"),
        (["cam", "{}", "--method", "gradcan"], "Did you mean 'gradcam'?"),
        (["cam", "{}", "--layers", "layer9"], "layer9"),
        (["cam", "{}", "--target", "stars"], "star"),
        (["cam", "{}", "--weight", "2"], "weight"),
        (["compare", "{}", "{}", "--labels", "a"], "--labels: got 1, expected 2"),
        (["compare", "{}", "{}", "--labels", "a", "a"], "is there twice"),
        (["compare", "{}", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_what_cannot_be_done_is_one_line(trained, capsys, words, message):
    words = [word.format(trained / "resnet18") for word in words]
    assert main(words) in (1, 2)
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_file_that_is_no_image_is_named(trained, tmp_path, capsys):
    (tmp_path / "text.png").write_text("not a picture")
    assert main(["infer", str(trained / "vgg11"), "text.png"]) == 1
    assert "text.png: not a readable image" in capsys.readouterr().err
