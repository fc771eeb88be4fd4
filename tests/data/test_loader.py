"""The loader: what a batch is a function of, going on in the middle, threads, errors."""

import threading

import numpy as np
import pytest

import attnnet
from attnnet.data import Augmentation, Loader, from_arrays
from attnnet.errors import DataError

from . import twin

AUGMENT = Augmentation(crop_padding=3, padding_mode="reflect", flip=0.5, cutout=4)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(3)
    return from_arrays(rng.integers(0, 256, (103, 8, 8, 3), np.uint8), np.arange(103) % 7)


def loader_threads():
    return [t for t in threading.enumerate() if t.name == "attnnet-loader"]


def same(batches, others):
    batches, others = list(batches), list(others)
    return len(batches) == len(others) and all(
        np.array_equal(x, y) for a, b in zip(batches, others, strict=True)
        for x, y in zip(a, b, strict=True))


def test_a_batch_is_what_it_says(dataset):
    loader = Loader(dataset, 10, AUGMENT, shuffle=True, seed=9)
    batches = list(loader.epoch(4))
    assert len(batches) == len(loader) == 11
    assert [len(b.labels) for b in batches] == [10] * 10 + [3]
    order = np.concatenate([b.indices for b in batches])
    assert np.array_equal(order, twin.permutation(103, 9, 4))
    for batch in batches:
        assert batch.images.dtype == np.float32 and batch.labels.dtype == np.int64
        assert np.array_equal(batch.labels, dataset.labels[batch.indices])
        expected = twin.augment(dataset.images, batch.indices, dataset.mean, dataset.std, 3, True,
                                0.5, False, 4, 9, 4)
        assert not np.abs(batch.images - expected).max() > 1e-5


def test_same_batches_whatever_the_threads(dataset):
    expected = list(Loader(dataset, 10, AUGMENT, True, 5, prefetch=0).epoch(2))
    threads = attnnet.get_num_threads()
    try:
        for count in (1, 2):
            attnnet.set_num_threads(count)
            for prefetch in (1, 2, 50):
                loader = Loader(dataset, 10, AUGMENT, True, 5, prefetch=prefetch)
                list(loader.epoch(1))
                assert same(loader.epoch(2), expected)
    finally:
        attnnet.set_num_threads(threads)


def test_two_epochs_at_once(dataset):
    loader = Loader(dataset, 10, AUGMENT, True, 5)
    pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    assert same([a for a, _ in pairs], loader.epoch(0))
    assert same([b for _, b in pairs], loader.epoch(1))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_goes_on_in_the_middle(dataset, prefetch):
    loader = Loader(dataset, 10, AUGMENT, True, 5, prefetch=prefetch)
    whole = list(loader.epoch(3))
    for start in (0, 1, 10, 11):
        assert same(loader.epoch(3, start), whole[start:])


def test_seed_and_epoch_change_order_and_augmentation(dataset):
    first = next(Loader(dataset, 103, AUGMENT, True, 0).epoch(0))
    for seed, epoch in ((0, 1), (1, 0)):
        other = next(Loader(dataset, 103, AUGMENT, True, seed).epoch(epoch))
        assert not np.array_equal(first.indices, other.indices)
        back = np.argsort(other.indices)[first.indices]
        assert not np.array_equal(first.images, other.images[back])


def test_plain_order_and_statistics(dataset):
    batch = next(Loader(dataset, 103).epoch(0))
    assert np.array_equal(batch.indices, np.arange(103))
    # The data set's own statistics bring it to mean 0 and deviation 1.
    assert not np.abs(batch.images.mean((0, 2, 3))).max() > 1e-5
    assert not np.abs(batch.images.std((0, 2, 3)) - 1).max() > 1e-5
    plain = next(Loader(dataset, 103, mean=(0, 0, 0), std=(1, 1, 1)).epoch(0))
    assert np.array_equal(plain.images, dataset.images.astype(np.float32) / np.float32(255))


def test_drop_last(dataset):
    loader = Loader(dataset, 10, drop_last=True)
    assert [len(b.labels) for b in loader.epoch(0)] == [10] * len(loader) == [10] * 10
    assert len(Loader(dataset, 103, drop_last=True)) == 1


def test_leaving_early_ends_the_thread(dataset):
    for _ in range(20):
        batches = Loader(dataset, 10, AUGMENT, True, prefetch=3).epoch(0)
        next(batches)
        assert len(loader_threads()) == 1
        batches.close()
        assert not loader_threads()
    for _ in Loader(dataset, 10, AUGMENT, True, prefetch=3).epoch(0):
        break
    assert not loader_threads()


def test_never_begun_starts_no_thread(dataset):
    batches = Loader(dataset, 10).epoch(0)
    assert not loader_threads()
    del batches


def test_an_error_of_the_thread_reaches_the_caller(dataset, monkeypatch):
    broken = dataset.subset(slice(0, 25))
    batches = Loader(broken, 10).epoch(0)
    monkeypatch.setattr(broken, "images", dataset.images.astype(np.float32))
    with pytest.raises(TypeError, match="uint8"):
        list(batches)
    assert not loader_threads()


def test_no_more_is_made_ahead_than_asked_for(dataset, monkeypatch):
    made = []
    original = Loader._batch
    monkeypatch.setattr(Loader, "_batch",
                        lambda self, *a: made.append(a[-1]) or original(self, *a))
    batches = Loader(dataset, 10, prefetch=2).epoch(0)
    for taken in range(5):
        assert next(batches).indices[0] == taken * 10
        # One is in the caller's hands, two lie ready or are being made.
        assert len(made) <= taken + 1 + 2
    batches.close()


@pytest.mark.parametrize("arguments, error, words", [
    ({"batch_size": 0}, ValueError, "batch_size must be a whole number from 1, got 0"),
    ({"batch_size": 2.5}, ValueError, "batch_size"),
    ({"prefetch": -1}, ValueError, "prefetch"),
    ({"seed": -1}, ValueError, "seed must be"),
    ({"seed": True}, ValueError, "seed must be"),
    ({"batch_size": 200, "drop_last": True}, DataError, "103 images give no full batch of 200"),
    ({"mean": (0.5,)}, DataError, "mean has 1 values, expected 3"),
    ({"std": (1, 0, 1)}, DataError, "std must be positive"),
    ({"augmentation": Augmentation(8, "reflect")}, ValueError, "at most 7"),
])
def test_refuses(dataset, arguments, error, words):
    with pytest.raises(error, match=words):
        Loader(dataset, **arguments)


def test_refuses_an_empty_data_set(dataset):
    with pytest.raises(DataError, match="no images"):
        Loader(dataset.subset([]))


@pytest.mark.parametrize("epoch, start, words", [(-1, 0, "epoch"), (0.5, 0, "epoch"),
                                                 (0, 12, "0 to 11"), (0, -1, "start")])
def test_refuses_positions_that_do_not_exist(dataset, epoch, start, words):
    with pytest.raises(ValueError, match=words):
        Loader(dataset, 10).epoch(epoch, start)


@pytest.mark.parametrize("arguments, words", [
    ({"crop_padding": -1}, "crop_padding"), ({"cutout": 1.5}, "cutout"),
    ({"padding_mode": "mirror"}, "'zeros' or 'reflect', got 'mirror'"),
    ({"flip_mode": "always"}, "'random' or 'alternating', got 'always'"),
    ({"flip": 1.5}, "flip"), ({"flip": float("nan")}, "flip"), ({"flip": "x"}, "flip")])
def test_augmentation_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        Augmentation(**arguments)


def test_alternating_flips_go_on_from_any_epoch(dataset):
    """Mirrored in an epoch, not in the next: the loader asks for nothing but the epoch's number."""
    loader = Loader(dataset, 10, Augmentation(flip=0.5, flip_mode="alternating"), prefetch=0)
    images = {e: np.concatenate([b.images for b in loader.epoch(e)]) for e in (0, 5, 6)}
    assert np.array_equal(images[0], images[6])
    assert np.array_equal(images[0], images[5][..., ::-1])


def test_augmentation_to_dict_and_back():
    assert Augmentation(**AUGMENT.to_dict()) == AUGMENT


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_are_the_batches_cut_up(parts):
    rng = np.random.default_rng(4)
    data = from_arrays(rng.integers(0, 256, (21, 3, 8, 8), np.uint8), rng.integers(0, 3, 21),
                       ["a", "b", "c"])  # fmt: skip
    options = {"batch_size": 5, "augmentation": Augmentation(crop_padding=1, flip=0.5),
               "shuffle": True, "seed": 9}  # fmt: skip
    shares = [Loader(data, share=(k, parts), **options) for k in range(parts)]
    together = zip(*(share.epoch(1) for share in shares), strict=True)
    whole = list(Loader(data, **options).epoch(1))
    for number, (batch, cut) in enumerate(zip(whole, together, strict=True)):
        places = [share.part(number) for share in shares]
        assert [first for first, _ in places] == [sum(n for _, n in places[:k])
                                                  for k in range(parts)]  # fmt: skip
        for field in ("images", "labels", "indices"):
            counted = [getattr(part, field)[:n] for part, (_, n) in zip(cut, places, strict=True)]
            assert np.array_equal(np.concatenate(counted), getattr(batch, field))
            assert all(len(getattr(part, field)) == max(n, 1)
                       for part, (_, n) in zip(cut, places, strict=True))  # fmt: skip
    for wrong in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="share must be"):
            Loader(data, share=wrong)
