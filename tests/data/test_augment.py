"""The augmentation in C against a slow twin, and what it must refuse."""

import itertools

import numpy as np
import pytest

from attnnet import _core

from . import twin

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def images_of(count, channels, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, channels, height, width), np.uint8)


def check(images, indices, *arguments):
    channels = images.shape[1]
    mean, std = (MEAN * 2)[:channels], (STD * 2)[:channels]
    before = images.copy()
    got = _core.augment(images, indices, mean, std, *arguments)
    expected = twin.augment(images, indices, mean, std, *arguments)
    assert got.dtype == np.float32 and got.shape == expected.shape
    # Three roundings of float32 on values up to 3, before a division by 0.2.
    error = np.abs(got - expected).max(initial=0)
    assert not error > 3 * 2.0**-24 / 0.19, f"error {error} for {arguments}"
    assert np.array_equal(images, before)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (5, 3), (32, 32), (13, 40)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_equals_the_twin(channels, height, width):
    images = images_of(9, channels, height, width)
    indices = np.array([8, 0, 3, 3, 5])
    smallest = min(height, width)
    for padding, reflect, flip, alternate, cutout in itertools.product(
            (0, 1, 4, 50), (False, True), (0.0, 0.5, 1.0), (False, True), (0, 1, 5, 200)):
        if reflect and padding >= smallest:
            continue
        check(images, indices, padding, reflect, flip, alternate, cutout, 42, 3)


@pytest.mark.parametrize("seed, epoch", [(0, 0), (2**64 - 1, 2**32 + 5)])
def test_large_seeds_and_epochs(seed, epoch):
    check(images_of(3, 3, 8, 8), np.arange(3), 4, False, 0.5, epoch % 2 == 1, 3, seed, epoch)


def test_without_augmentation_it_has_the_bits_of_the_usual_transforms():
    torch = pytest.importorskip("torch", reason="compares with PyTorch's arithmetic")
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3, 1, 1)
    got = _core.augment(images, np.arange(256), MEAN, STD, 0, False, 0.0, False, 0, 0, 0)
    shape = (3, 1, 1)
    pixels = torch.from_numpy(images).to(torch.float32).div(255)
    expected = pixels.sub_(torch.tensor(MEAN).view(shape)).div_(torch.tensor(STD).view(shape))
    assert np.array_equal(got, expected.numpy())


def test_padding_is_black_before_the_normalisation():
    white = np.full((1, 3, 4, 4), 255, np.uint8)
    out = np.concatenate([_core.augment(white, [0], MEAN, STD, 40, False, 0.0, False, 0, 1, e)
                          for e in range(20)])
    black = (0 - np.array(MEAN)) / np.array(STD)
    for c in range(3):
        assert np.abs(out[:, c] - black[c]).min() < 1e-6


def test_draws_are_uniform():
    """The row where a single white pixel lands tells the crop; its half, the flip."""
    padding, rounds = 2, 4000
    image = np.zeros((1, 1, 9, 9), np.uint8)
    image[0, 0, 4, 3] = 255
    rows, flips = np.zeros(5), 0
    for epoch in range(rounds):
        batch = _core.augment(image, [0], (0.0,), (1.0,), padding, False, 0.25, False, 0, 7, epoch)
        out = batch[0, 0]
        y, x = np.argwhere(out == 1)[0]
        flips += int(x > 5)
        rows[y - 2] += 1
    chi2 = ((rows - rounds / 5) ** 2 / (rounds / 5)).sum()
    assert not chi2 > 25, f"chi2 {chi2:.1f} of 4 degrees of freedom"
    # Columns 1..5 without the flip, 3..7 with it: beyond 5 lie two fifths of the flipped.
    assert not abs(flips / rounds - 0.25 * 2 / 5) > 5 * np.sqrt(0.1 * 0.9 / rounds)


@pytest.mark.parametrize("alternate", [False, True])
def test_an_image_is_augmented_alike_wherever_it_stands(alternate):
    images = images_of(20, 3, 8, 8)
    whole = _core.augment(images, np.arange(20), MEAN, STD, 3, True, 0.5, alternate, 4, 1, 2)
    order = np.random.default_rng(0).permutation(20)
    part = _core.augment(images, order[:7], MEAN, STD, 3, True, 0.5, alternate, 4, 1, 2)
    assert np.array_equal(part, whole[order[:7]])
    other = _core.augment(images, np.arange(20), MEAN, STD, 3, True, 0.5, alternate, 4, 1, 3)
    assert not np.array_equal(other, whole)


def mirrored(flip, alternate, epoch, seed=11, count=400):
    """Which images come mirrored: their left half alone is white."""
    images = np.zeros((count, 1, 2, 4), np.uint8)
    images[..., :2] = 255
    out = _core.augment(images, np.arange(count), (0.0,), (1.0,), 0, False, flip, alternate, 0,
                        seed, epoch)
    return out[:, 0, 0, 0] == 0


def test_alternating_flips_turn_every_image_in_every_epoch():
    first = mirrored(0.5, True, 0)
    np.testing.assert_array_equal(first, mirrored(0.5, False, 0))
    assert 150 < first.sum() < 250
    for epoch in (1, 2, 3, 7, 100, 2**40 + 1):
        np.testing.assert_array_equal(mirrored(0.5, True, epoch), first ^ (epoch % 2 == 1))
        assert not np.array_equal(mirrored(0.5, False, epoch), first)  # drawn anew
    assert not np.array_equal(mirrored(0.5, True, 0, seed=12), first)


def test_alternating_flips_with_other_probabilities():
    assert not mirrored(0.0, True, 0).any() and not mirrored(0.0, True, 1).any()
    assert mirrored(1.0, True, 0).all() and not mirrored(1.0, True, 1).any()


def test_empty_batch_and_other_kinds_of_arrays():
    images = images_of(4, 3, 5, 5)
    rest = (MEAN, STD, 0, False, 0.0, False, 0, 0, 0)
    assert _core.augment(images, [], *rest).shape == (0, 3, 5, 5)
    expected = _core.augment(images, np.array([3, 1]), *rest)
    images.flags.writeable = False
    for indices in ([3, 1], np.array([3, 0, 1, 0])[::2], np.array([3, 1], ">i4"),
                    np.array([3, 1], np.uint8)):
        assert np.array_equal(_core.augment(images, indices, *rest), expected)


class Meddler:
    """A number that changes an array as it is read."""

    def __init__(self, meddle):
        self.meddle = meddle

    def __index__(self):
        self.meddle()
        return 0


@pytest.mark.parametrize("shape", [(4, 1, 5, 15), (1, 4, 5, 15), (4, 3, 25, 1), (4, 75), (300,)])
@pytest.mark.parametrize("at", ["padding", "cutout", "epoch"])
def test_images_that_change_while_the_arguments_are_read(shape, at):
    images = images_of(4, 3, 5, 5)

    def meddle():
        images.shape = shape

    arguments = {**GOOD, "images": images, "indices": [3], at: Meddler(meddle)}
    if len(shape) == 4 and shape[1] == 3:  # read as what it is now
        assert _core.augment(*arguments.values()).shape == (1, *shape[1:])
        return
    with pytest.raises(ValueError if len(shape) == 4 else TypeError, match=r"channels|uint8"):
        _core.augment(*arguments.values())


GOOD = {"images": images_of(4, 3, 5, 5), "indices": [0], "mean": MEAN, "std": STD, "padding": 0,
        "reflect": False, "flip": 0.0, "alternate": False, "cutout": 0, "seed": 0, "epoch": 0}


@pytest.mark.parametrize("change, error, words", [
    ({"indices": [4]}, IndexError, "index 4, but there are 4 images"),
    ({"indices": [-1]}, IndexError, "index -1"),
    ({"indices": [0.5]}, TypeError, "integers"),
    ({"indices": [[0]]}, ValueError, "dimension"),
    ({"images": images_of(4, 3, 5, 5)[:, :, ::2]}, TypeError, "contiguous"),
    ({"images": images_of(4, 3, 5, 5).astype(np.float32)}, TypeError, "uint8"),
    ({"images": images_of(4, 3, 5, 5)[0]}, TypeError, "uint8"),
    ({"images": None}, TypeError, "uint8"),
    ({"images": np.zeros((4, 3, 0, 5), np.uint8)}, ValueError, "pixels"),
    ({"mean": (0.5,)}, ValueError, "mean has 1 values for 3 channels"),
    ({"std": ("x", "y", "z")}, ValueError, "could not convert"),
    ({"padding": -1}, ValueError, "padding -1"),
    ({"padding": 5, "reflect": True}, ValueError, "padding 5"),
    ({"cutout": -3}, ValueError, "cutout -3"),
    ({"seed": -1}, ValueError, "seed"),
    ({"epoch": "x"}, ValueError, "epoch"),
])
def test_refuses(change, error, words):
    with pytest.raises(error, match=words):
        _core.augment(*{**GOOD, **change}.values())
