"""predict(): images of every kind in, classes and probabilities out."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from PIL import Image

import attnnet
from attnnet.cli.choice import images_of
from attnnet.data import read_image
from attnnet.models import predict

SIZE = (8, 10)


@pytest.fixture(scope="module")
def model():
    attnnet.manual_seed(2)
    model = attnnet.resnet18(num_classes=5, image_size=SIZE)
    model.class_names = ["ant", "bee", "cat", "dog", "eel"]
    model.normalization = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    rng = np.random.default_rng(2)
    model.linear.weight.copy_(rng.standard_normal((5, 512)))
    return model


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)


def expected(model, pixels):
    """Straight from the definition, for uint8 (N, H, W, C)."""
    mean, std = model.normalization
    x = ((pixels / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    model.eval()
    with attnnet.no_grad():
        logits = model(attnnet.Tensor(x)).numpy().astype(np.float64)
    model.train()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_every_kind_of_input_gives_the_same(model, pixels, tmp_path):
    target = expected(model, pixels)
    files = []
    for number, image in enumerate(pixels):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(files[-1])
    mean, std = (np.array(v).reshape(3, 1, 1) for v in model.normalization)
    first = pixels.transpose(0, 3, 1, 2)
    inputs = {
        "NHWC": pixels,
        "NCHW": first,
        "float": first / 255.0,
        "int64": first.astype(np.int64),
        "list of arrays": list(pixels),
        "Pillow": [Image.fromarray(image) for image in pixels],
        "paths": files,
        "strings": [str(file) for file in files],
        "mixed": [pixels[0], files[1], Image.fromarray(pixels[2])],
        "Tensor": attnnet.Tensor((first / 255.0 - mean) / std),
    }
    for kind, images in inputs.items():
        got = model.predict_probabilities(images)
        assert got.shape == (3, 5) and got.dtype == np.float64
        np.testing.assert_allclose(got, target, rtol=1e-4, atol=1e-6, err_msg=kind)
        np.testing.assert_allclose(got.sum(1), 1)
    one = model.predict_probabilities(pixels[1])
    np.testing.assert_allclose(one, target[1:2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.predict_probabilities(pixels, batch_size=2), target, rtol=1e-4)


def test_predictions(model, pixels):
    target = expected(model, pixels)
    result = model.predict(pixels, top=3)
    assert len(result) == 3 and all(len(one) == 3 for one in result)
    for one, row in zip(result, target, strict=True):
        order = np.argsort(-row)[:3]
        assert one.indices == order.tolist()
        assert one.classes == [model.class_names[i] for i in order]
        np.testing.assert_allclose(one.probabilities, row[order], rtol=1e-4)
        name, probability = one[0]
        assert f"{name} {100 * probability:.1f} %" in str(one)
    assert str(result).count("\n") == 2 and repr(result[0]).startswith("Prediction(")
    assert result._repr_html_().count("<tr") == 4  # a head and three images
    assert len(model.predict(pixels[0])[0]) == 1
    assert len(model.predict([])) == 0


def test_modes_are_put_back_and_statistics_untouched(model, pixels):
    before = model.state_dict()
    model.train()
    model.layer1.eval()
    model.predict(pixels)
    assert model.training and not model.layer1.training and model.layer2.training
    assert attnnet.is_grad_enabled()
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    model.train()


def test_without_names_and_normalization(pixels):
    model = attnnet.resnet18(image_size=SIZE)
    assert model.predict(pixels)[0].classes[0] in range(10)
    assert model.predict(pixels)[0].classes == model.predict(pixels)[0].indices


def test_gray(pixels, tmp_path):
    model = attnnet.resnet18(in_channels=1, image_size=SIZE)
    gray = pixels[:, :, :, 0]
    target = model.predict_probabilities(gray[:, None])
    for images in (gray[..., None], list(gray), [Image.fromarray(g) for g in gray]):
        np.testing.assert_allclose(model.predict_probabilities(images), target, rtol=1e-5)


def test_other_image_modes_are_converted(model, tmp_path):
    for mode in ("L", "RGBA", "P", "CMYK", "1", "LA"):
        image = Image.new("RGB", SIZE[::-1], (200, 30, 90)).convert(mode)
        assert len(model.predict(image)) == 1, mode


def test_resize(model, pixels):
    big = np.asarray(Image.fromarray(pixels[0]).resize((31, 17)))
    with pytest.raises(ValueError, match=r"3, 8, 10\), got \(1, 3, 17, 31\)\. .*resize=True"):
        model.predict(big)
    assert model.predict(big, resize=True)[0].probabilities[0] <= 1
    even = np.full((1, 20, 30, 3), 77, np.uint8)
    resized = predict.prepare(model, even, resize=True)
    assert resized.shape == (1, 3, *SIZE)
    np.testing.assert_allclose(
        resized, predict.prepare(model, np.full((1, *SIZE, 3), 77, np.uint8)), atol=1e-5
    )


def test_a_photo_is_prepared_as_for_training_whatever_it_comes_as(tmp_path):
    model = attnnet.resnet18(num_classes=5, image_size=16)
    rng = np.random.default_rng(5)
    photo = Image.fromarray(rng.integers(0, 256, (50, 37, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways
    photo.save(tmp_path / "x.png", exif=exif)
    trained_on = read_image(tmp_path / "x.png", 16)
    wanted = predict.prepare(model, trained_on)
    opened = Image.open(tmp_path / "x.png")
    upright = np.asarray(photo.transpose(Image.Transpose.ROTATE_270))
    for given, off in ((tmp_path / "x.png", 0), (opened, 0), (upright, 1 / 255)):
        resized = predict.prepare(model, given, resize=True)
        np.testing.assert_allclose(resized, wanted, atol=1e-6 + off)
    words = argparse.Namespace(images=[str(tmp_path / "x.png")], indices=None)
    assert np.array_equal(images_of(words, model).pixels[0], trained_on)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 5, 8, 10)), ValueError, r"must be \(N, 3, H, W\), \(N, H, W, 3\)"),
        (np.zeros((8, 10)), ValueError, r"got shape \(8, 10\)"),
        (np.full((3, 8, 10), 200.0), ValueError, "float images must be 0 to 1, got 200 to 200"),
        (np.full((3, 8, 10), 300), ValueError, "integer images must be 0 to 255, got 300 to 300"),
        (np.full((3, 8, 10), np.nan), ValueError, "float images must be 0 to 1, got nan"),
        (np.zeros((3, 8, 10), bool), ValueError, "integers .* or floats"),
        (3, TypeError, "must be arrays, Pillow images, paths, or a list of these: got int"),
        ("missing.png", FileNotFoundError, "missing.png"),
        (attnnet.Tensor(np.zeros((3, 8, 10))), ValueError, r"got \(3, 8, 10\)"),
    ],
)
def test_errors(model, images, error, message):
    with pytest.raises(error, match=message):
        model.predict(images)


def test_no_image(model, tmp_path):
    file = tmp_path / "no.png"
    file.write_bytes(b"not an image")
    with pytest.raises(attnnet.errors.DataError, match=r"no\.png: not a readable image"):
        model.predict(file)
    with pytest.raises(ValueError, match="top must be 1 to 5"):
        model.predict(np.zeros((3, *SIZE)), top=6)
    named = attnnet.resnet18(num_classes=3, image_size=SIZE)
    named.class_names = ["one", "two"]
    with pytest.raises(ValueError, match="class_names holds 2 names, the network has 3 classes"):
        named.predict(np.zeros((3, *SIZE)))
    named.class_names, named.normalization = None, ((0.5,), (0.5,))
    with pytest.raises(ValueError, match="with 3 numbers each, one a channel"):
        named.predict(np.zeros((3, *SIZE)))
    with pytest.raises(ValueError, match="batch_size must be"):
        model.predict(np.zeros((3, *SIZE)), batch_size=0)
    two = attnnet.resnet18(in_channels=2, image_size=SIZE)
    Image.new("L", SIZE[::-1]).save(tmp_path / "gray.png")
    with pytest.raises(ValueError, match="2 channels, which no image file has"):
        two.predict(tmp_path / "gray.png")
