"""Images with fewer pixels: against a slow twin, in a loader, and what is refused."""

import numpy as np
import pytest

import attnnet
from attnnet import _core
from attnnet.data import Augmentation, Loader, from_arrays


def weights(n, size):
    """(size, n): the share that each of n pixels has in each of the size pixels made of them."""
    edges = np.linspace(0, n, size + 1)
    low = np.maximum(edges[:-1, None], np.arange(n))
    high = np.minimum(edges[1:, None], np.arange(n) + 1)
    return np.maximum(high - low, 0) * size / n


@pytest.mark.parametrize("height, width, to", [
    (32, 32, (16, 16)), (32, 32, (24, 24)), (32, 32, (20, 20)), (32, 32, (1, 1)),
    (32, 32, (32, 32)), (7, 5, (3, 5)), (13, 40, (9, 27)), (1, 1, (1, 1))])
def test_equals_the_twin(height, width, to):
    rng = np.random.default_rng(height + width)
    images = rng.standard_normal((3, 2, height, width)).astype(np.float32)
    got = _core.shrink(images, *to)
    expected = weights(height, to[0]) @ images.astype(np.float64) @ weights(width, to[1]).T
    assert got.shape == expected.shape and got.dtype == np.float32
    # As many roundings as pixels in a sum, on values up to about 4.
    length = (height // to[0] + 2) * (width // to[1] + 2)
    error = np.abs(got - expected).max()
    assert not error > np.sqrt(length) * 2.0**-24 * 8, f"error {error}"


def test_half_the_size_is_the_mean_of_four():
    images = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    expected = images.reshape(1, 1, 4, 2, 4, 2).mean((3, 5))
    assert np.array_equal(_core.shrink(images, 4, 4), expected)


def misaligned():
    return np.zeros(65, np.uint8)[1:].view(np.float32).reshape(1, 1, 4, 4)


@pytest.mark.parametrize("arguments, error, words", [
    ((np.ones((1, 1, 4, 4)), 2, 2), TypeError, "float32"),
    ((np.ones((1, 4, 4), "f4"), 2, 2), TypeError, r"\(N, C, H, W\)"),
    ((np.ones((1, 1, 4, 8), "f4")[..., ::2], 2, 2), TypeError, "contiguous"),
    ((np.ones((1, 1, 4, 4), "f4"), 5, 2), ValueError, "4 x 4 cannot become 5 x 2"),
    ((np.ones((1, 1, 4, 4), "f4"), 2, 0), ValueError, "4 x 4 cannot become 2 x 0"),
    ((np.ones((1, 1, 4, 4), "f4").view(np.dtype("f4").newbyteorder()), 2, 2), TypeError, "order"),
    ((misaligned(), 2, 2), TypeError, "aligned"),
    (([[[[1.0]]]], 1, 1), TypeError, "float32")])
def test_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        _core.shrink(*arguments)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(4)
    return from_arrays(rng.integers(0, 256, (25, 3, 12, 16), np.uint8), rng.integers(0, 5, 25))


def test_the_first_epochs_of_a_loader_are_small(dataset):
    small = Augmentation(2, "reflect", 0.5, 3, sizes=(6, 9))
    full = Augmentation(2, "reflect", 0.5, 3)
    for epoch, size in enumerate([(6, 8), (9, 12), (12, 16), (12, 16)]):
        got = list(Loader(dataset, 10, small, True, 5).epoch(epoch))
        expected = list(Loader(dataset, 10, full, True, 5).epoch(epoch))
        for one, other in zip(got, expected, strict=True):
            assert one.images.shape == (len(one.labels), 3, *size)
            assert np.array_equal(one.indices, other.indices)
            shrunk = other.images if epoch > 1 else _core.shrink(other.images, *size)
            assert np.array_equal(one.images, shrunk)
            assert one.images.flags.writeable
        assert len(got) == len(expected) == 3


def test_what_sizes_may_be(dataset):
    assert Augmentation(sizes=(3, 4)).size(1, 4, 4) == (4, 4)
    assert Augmentation(**Augmentation(sizes=(3,)).to_dict()) == Augmentation(sizes=(3,))
    for sizes in ((0,), (1.5,), (True,), "16"):
        with pytest.raises(ValueError, match="sizes must be numbers of pixels"):
            Augmentation(sizes=sizes)
    with pytest.raises(ValueError, match=r"sizes hold 13, but .* 12 x 16: expected at most 12"):
        Loader(dataset, 5, Augmentation(sizes=(12, 13)))


def test_same_batches_whatever_the_threads(dataset):
    small, threads = Augmentation(2, flip=0.5, sizes=(7,)), attnnet.get_num_threads()
    expected = [b.images for b in Loader(dataset, 10, small, True, 5, prefetch=0).epoch(0)]
    try:
        for count in (1, 2):
            attnnet.set_num_threads(count)
            got = [b.images for b in Loader(dataset, 10, small, True, 5).epoch(0)]
            assert all(map(np.array_equal, got, expected))
    finally:
        attnnet.set_num_threads(threads)
