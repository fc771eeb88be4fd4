"""Folders of images: every kind of picture, splits, and what can be wrong with a folder."""

import numpy as np
import pytest
from PIL import Image

import attnnet.data
from attnnet.data import read_image
from attnnet.errors import DataError


def paint(path, colour=(200, 100, 50), size=(32, 32), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)
    return path


def fill(folder, counts):
    for k, (name, count) in enumerate(counts.items()):
        for i in range(count):
            paint(folder / name / f"{i:02}.png", (k * 50, i * 10, 128))
    return folder


def test_train_and_test_folders(tmp_path):
    fill(tmp_path / "train", {"cat": 3, "dog": 2})
    fill(tmp_path / "test", {"cat": 1, "dog": 2})
    train, test = attnnet.data.load(f"folder:{tmp_path}")
    assert train.classes == test.classes == ["cat", "dog"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and test.labels.tolist() == [0, 1, 1]
    assert train.images.shape == (5, 3, 32, 32)
    assert train.images[4, :, 0, 0].tolist() == [50, 10, 128]
    assert (train.mean, train.std) == (test.mean, test.std)
    assert np.allclose(train.mean, train.images.mean((0, 2, 3)) / 255)
    assert train.name == f"folder:{tmp_path.name}"


def test_a_seeded_split_where_there_is_none(tmp_path):
    fill(tmp_path, {"a": 10, "b": 5})
    train, test = attnnet.data.load(f"folder:{tmp_path}", seed=1)
    assert train.class_counts.tolist() == [8, 4] and test.class_counts.tolist() == [2, 1]
    again = attnnet.data.load(f"folder:{tmp_path}", seed=1)[1]
    assert np.array_equal(test.images, again.images)
    others = [attnnet.data.load(f"folder:{tmp_path}", seed=s)[1].images for s in range(2, 6)]
    assert any(not np.array_equal(test.images, other) for other in others)
    assert len(attnnet.data.load(f"folder:{tmp_path}", test_fraction=0.4)[1]) == 6


def test_other_files_and_deeper_folders(tmp_path):
    fill(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / ".hidden").mkdir()
    paint(tmp_path / "a" / ".hidden.png")
    paint(tmp_path / "a" / ".cache" / "x.png")
    paint(tmp_path / "b" / "deeper" / "x.JPG")
    train, test = attnnet.data.load(f"folder:{tmp_path}", test_fraction=0.5)
    assert (train.class_counts + test.class_counts).tolist() == [2, 3]


@pytest.mark.parametrize("suffix, mode", [
    ("png", "RGB"), ("png", "RGBA"), ("png", "P"), ("png", "LA"), ("png", "1"), ("png", "L"),
    ("jpg", "RGB"), ("jpg", "CMYK"), ("gif", "P"), ("bmp", "RGB"), ("webp", "RGBA"),
    ("tiff", "RGB"), ("ppm", "RGB"), ("pgm", "L")])
def test_every_kind_of_picture(tmp_path, suffix, mode):
    white = paint(tmp_path / f"x.{suffix}", (255, 255, 255), (40, 20), mode)
    for channels in (1, 3):
        image = read_image(white, 16, channels)
        assert image.shape == (channels, 16, 16) and image.dtype == np.uint8
        assert image.min() >= 250


def test_sixteen_bits_of_gray(tmp_path):
    Image.fromarray(np.full((8, 8), 128 * 256, np.uint16)).save(tmp_path / "x.png")
    assert set(read_image(tmp_path / "x.png", 8).ravel().tolist()) == {128}
    pixels = np.full((8, 8), 128 * 256, ">u2")
    Image.frombytes("I;16B", (8, 8), pixels.tobytes()).save(tmp_path / "x.tiff")
    assert set(read_image(tmp_path / "x.tiff", 8).ravel().tolist()) == {128}


def test_floats_have_no_known_range(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(DataError, match="pixels are floats, of which no range is known"):
        read_image(tmp_path / "x.tiff", 8)


def test_scaled_to_cover_and_cut_about_the_middle(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert read_image(tmp_path / "wide.png", 10)[:, :, 1:-1].min() == 255
    assert np.array_equal(read_image(tmp_path / "wide.png", 20)[0], pixels[:, 20:40, 0])
    assert read_image(paint(tmp_path / "small.png", size=(3, 3)), 32).shape == (3, 32, 32)


def test_cameras_that_were_turned(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    assert read_image(tmp_path / "x.png", 8)[0, :, 0].tolist() == [0] * 4 + [255] * 4


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("spoil, words", [
    (lambda p: [(p / "a" / f"{i:02}.png").unlink() for i in range(4)], "a: no images: expected"),
    (lambda p: (p / "c").mkdir(), "c: no images"),
    (lambda p: write(p / "a" / "bad.png", b"no picture"), "bad.png: not a readable image"),
    (lambda p: write(p / "a" / "bad.png", b""), "bad.png: not a readable image"),
    (lambda p: write(p / "a" / "bad.png", (p / "a" / "00.png").read_bytes()[:-30]),
     "bad.png: not a readable image"),
    (lambda p: (fill(p / "train", {"a": 1}), fill(p / "test", {"b": 1})),
     "different classes: a, b"),
    (lambda p: (fill(p / "train", {"a": 1}), (p / "test").mkdir()), "test: no classes"),
    (lambda p: (fill(p / "train", {"a": 1}), fill(p / "val", {"a": 1})),
     "holds train, and no test beside it"),
])
def test_refuses_a_spoilt_folder(spoil, words, tmp_path):
    fill(tmp_path, {"a": 4, "b": 4})
    spoil(tmp_path)
    with pytest.raises(DataError, match=words):
        attnnet.data.load(f"folder:{tmp_path}")


def test_another_cut_has_another_name(tmp_path):
    fill(tmp_path / "x", {"a": 4, "b": 4})
    names = [attnnet.data.load(f"folder:{tmp_path / 'x'}", **options)[0].name
             for options in ({}, {"seed": 1}, {"test_fraction": 0.25})]
    assert names == ["folder:x", "folder:x, cut by seed 1, 0.2", "folder:x, cut by seed 0, 0.25"]


def test_refuses_what_is_no_folder_and_wrong_options(tmp_path):
    with pytest.raises(DataError, match="does not exist, expected a folder with one sub-folder"):
        attnnet.data.load(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="is a file"):
        attnnet.data.load(f"folder:{paint(tmp_path / 'x.png')}")
    with pytest.raises(DataError, match="no classes"):
        attnnet.data.load(f"folder:{tmp_path}")
    fill(tmp_path, {"a": 2, "b": 1})
    for options, words in [({"image_size": 0}, "image_size"), ({"channels": 2}, "channels"),
                           ({"test_fraction": 0.0}, "between 0 and 1"),
                           ({"test_fraction": 0.5}, "1 of 2 classes have no image: b")]:
        with pytest.raises(DataError, match=words):
            attnnet.data.load(f"folder:{tmp_path}", **options)


def test_a_large_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(attnnet.data.pictures, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="40 x 30 pixels, expected at most 1,000"):
        read_image(paint(tmp_path / "x.png", size=(40, 30)), 8)


def test_one_file(tmp_path):
    file = paint(tmp_path / "x.png", size=(40, 30))
    assert read_image(file, (10, 20)).shape == (3, 10, 20)
    assert read_image(file, 8, 1).shape == (1, 8, 8)
    for words, message in (((8, 2), "channels is 2; an image file has 1, 3 or 4"),
                           ((0,), "size is 0; expected a whole number of at least 1"),
                           (((8, -1),), "size is -1"), (((8, 2.5),), "size is 2.5"),
                           ((None,), "size is None"), (((8, 8, 8),), r"size is \(8")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            read_image(file, *words)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png", 8)
