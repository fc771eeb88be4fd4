"""`shapes`: what it is a function of, its masks, and how hard it is."""

import hashlib

import numpy as np
import pytest

import attnnet.data
from attnnet.data import shapes, shapes_draw
from attnnet.errors import DataError


@pytest.fixture(scope="module")
def sets():
    return attnnet.data.load("shapes", train_count=2000, test_count=500)


def test_what_comes(sets):
    train, test = sets
    assert train.images.shape == (2000, 3, 32, 32) and len(test) == 500
    assert train.classes == list(shapes.CLASSES) and train.name == "shapes"
    assert set(train.class_counts) == {200} and set(test.class_counts) == {50}
    assert not (train.images[:500] == test.images).all((1, 2, 3)).any()


def test_the_same_bits_on_every_machine():
    images, labels, masks = shapes.make_shapes(200, seed=42)
    digest = hashlib.sha256(images.tobytes() + masks.tobytes()).hexdigest()[:16]
    assert digest == DIGEST, "people who wrote down a seed would get other images"
    assert labels[:12].tolist() == [*range(10), 0, 1]


DIGEST = "98c24c6c7ea0da1b"


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_is_a_function_of_seed_split_and_number(split, monkeypatch):
    images, labels, masks = shapes.make_shapes(50, 7, split)
    for start, count in ((0, 1), (13, 5), (49, 1)):
        part = slice(start, start + count)
        for got, expected in zip(shapes.make_shapes(count, 7, split, start),
                                 (images, labels, masks), strict=True):
            assert np.array_equal(got, expected[part])
    monkeypatch.setattr(shapes, "_CHUNK", 7)
    assert np.array_equal(shapes.make_shapes(50, 7, split)[0], images)
    assert not np.array_equal(shapes.make_shapes(50, 8, split)[0], images)


def test_masks_cover_the_object(sets):
    train, _ = sets
    size = train.masks.sum((1, 2))
    assert size.min() >= 50 and size.max() <= 450
    # Objects lie everywhere, and wholly or mostly inside the image.
    where = train.masks.mean(0)
    assert where[16, 3:29].min() > 0.05 and where[3:29, 16].min() > 0.05
    assert where[10:22, 10:22].min() > 0.2
    assert where[[0, -1]].max() < 0.1 and where[:, [0, -1]].max() < 0.1
    for k in range(10):
        assert np.ptp(size[train.labels == k]) > 60, f"{shapes.CLASSES[k]} comes in many sizes"


def test_the_object_differs_from_what_is_around_it(sets):
    train, _ = sets
    inside, outside = train.masks[:, None], ~train.masks[:, None]
    means = [(train.images * m).sum((2, 3)) / m.sum((2, 3)) for m in (inside, outside)]
    contrast = (means[0] - means[1]).max(1)
    assert contrast.min() > 0.15 * 255, "the object is the brighter one in some channel"


def test_statistics_are_those_of_the_images(sets):
    mean, std = attnnet.data.dataset.channel_statistics(sets[0].images)
    assert np.allclose(mean, sets[0].mean, atol=0.01) and np.allclose(std, sets[0].std, atol=0.01)


def linear_accuracy(train, test, epochs=20):
    """Percent right of a linear softmax classifier on the pixels (full-batch Nesterov)."""
    x, xt = ((d.images.reshape(len(d), -1) / 255 - 0.5).astype(np.float32) for d in (train, test))
    target = np.eye(10, dtype=np.float32)[train.labels]
    weight = np.zeros((x.shape[1], 10), np.float32)
    velocity = np.zeros_like(weight)
    best = 0.0
    for _ in range(epochs):
        logits = x @ (weight + 0.9 * velocity)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        velocity = 0.9 * velocity - 0.02 * (x.T @ (p - target)) / len(x)
        weight += velocity
        best = max(best, 100 * float((np.argmax(xt @ weight, 1) == test.labels).mean()))
    return best


def test_a_linear_model_has_no_chance(sets):
    accuracy = linear_accuracy(*sets)
    assert not accuracy > 40, f"a linear model gets {accuracy:.1f} %: shapes is too easy"


def test_cosine_and_sine_are_right_to_single_precision():
    turns = np.linspace(0, 1, 4001, endpoint=False, dtype=np.float32)
    cosine, sine = shapes_draw.cos_sin(turns)
    angle = turns.astype(np.float64) * 2 * np.pi
    assert not np.abs(cosine - np.cos(angle)).max() > 1e-6
    assert not np.abs(sine - np.sin(angle)).max() > 1e-6


@pytest.mark.parametrize("arguments, error, words", [
    ({"count": 0}, DataError, "count must be a whole number from 1, got 0"),
    ({"count": 2.0}, DataError, "count"), ({"count": 1, "start": -1}, DataError, "start"),
    ({"count": 1, "split": "val"}, DataError, "'train' or 'test', got 'val'"),
    ({"count": 1, "seed": -1}, ValueError, "seed must be")])
def test_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        shapes.make_shapes(**arguments)
