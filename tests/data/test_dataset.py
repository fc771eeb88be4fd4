"""Dataset, its splits, and data sets from arrays."""

import numpy as np
import pytest

import attnnet.data
from attnnet.data import Dataset, from_arrays
from attnnet.data.dataset import channel_statistics, stratified_choice
from attnnet.errors import DataError

RNG = np.random.default_rng(7)
IMAGES = RNG.integers(0, 256, (60, 3, 6, 5), np.uint8)
LABELS = np.repeat(np.arange(4), [30, 20, 7, 3])


def make(**changes):
    parts = {"images": IMAGES, "labels": LABELS, "classes": ["a", "b", "c", "d"], **changes}
    return Dataset(**parts)


def test_what_it_holds():
    data = make(name="mine", masks=np.zeros((60, 6, 5), bool))
    assert len(data) == 60 and (data.channels, data.height, data.width) == (3, 6, 5)
    assert data.class_counts.tolist() == [30, 20, 7, 3]
    assert repr(data) == "Dataset('mine': 60 images of 3 x 6 x 5, 4 classes, with masks)"
    assert np.allclose(data.mean, IMAGES.mean((0, 2, 3)) / 255, rtol=1e-12)
    assert np.allclose(data.std, IMAGES.std((0, 2, 3)) / 255, rtol=1e-12)


def test_statistics_do_not_depend_on_order_and_never_divide_by_zero():
    many = np.tile(IMAGES, (150, 1, 1, 1))
    assert channel_statistics(many) == channel_statistics(many[::-1])
    assert channel_statistics(np.full((2, 1, 3, 3), 51, np.uint8)) == ((0.2,), (1.0,))
    assert channel_statistics(np.empty((0, 2, 3, 3), np.uint8)) == ((0.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize("changes, words", [
    ({"images": IMAGES.astype(np.float32)}, "uint8 array .* got float32"),
    ({"images": IMAGES[0]}, r"got uint8 \(3, 6, 5\)"), ({"images": [[1]]}, "got list"),
    ({"images": IMAGES[:, :0]}, "hold no pixels"),
    ({"labels": LABELS[:-1]}, "60 images but 59 labels"),
    ({"labels": LABELS + 1}, r"label 4 of image 57 is out of range: expected 0 to 3 \(3 such"),
    ({"labels": LABELS - 1}, "label -1 of image 0"),
    ({"labels": LABELS.astype(float)}, "whole numbers .* got float64"),
    ({"labels": LABELS[:, None]}, "whole numbers"), ({"labels": [[1], [1, 2]]}, "whole numbers"),
    ({"mean": (0.5, 0.5)}, "mean has 2 values, expected 3"),
    ({"mean": "abc"}, "mean must be 3 numbers"),
    ({"std": (1, 1, 0)}, "std must be positive"),
    ({"mean": (0, 0, float("nan"))}, "mean must be finite"),
    ({"masks": np.zeros((60, 5, 6), bool)}, r"masks must be a bool array \(60, 6, 5\)"),
    ({"masks": np.zeros((60, 6, 5))}, "masks must be"),
])
def test_refuses(changes, words):
    with pytest.raises(DataError, match=words):
        make(**changes)


def test_subset():
    data = make(masks=RNG.random((60, 6, 5)) < 0.5)
    for indices in ([3, 50], np.array([3, 50]), np.isin(np.arange(60), [3, 50]), slice(3, 51, 47)):
        part = data.subset(indices)
        assert np.array_equal(part.images, IMAGES[[3, 50]])
        assert np.array_equal(part.masks, data.masks[[3, 50]])
        assert (part.mean, part.classes) == (data.mean, data.classes)
    assert len(data.subset([])) == 0
    with pytest.raises(DataError, match="no such subset of 60 images"):
        data.subset([60])


@pytest.mark.parametrize("how, counts", [(12, [6, 4, 1, 1]), (0.2, [6, 4, 1, 1]),
                                         (1, [1, 0, 0, 0]), (59, [29, 20, 7, 3]),
                                         (np.int64(30), [15, 10, 4, 1])])
def test_split_is_stratified_and_loses_nothing(how, counts):
    numbered = make(images=np.arange(60, dtype=np.uint8).repeat(90).reshape(60, 3, 6, 5))
    rest, cut = numbered.split(how, seed=3)
    assert cut.class_counts.tolist() == counts
    ids = [d.images[:, 0, 0, 0].tolist() for d in (rest, cut)]
    assert sorted(ids[0] + ids[1]) == list(range(60)) and ids == [sorted(i) for i in ids]
    assert rest.mean == cut.mean == numbered.mean


def test_split_follows_its_seed_alone():
    first = stratified_choice(LABELS, 4, 12, 3)
    assert np.array_equal(first, stratified_choice(LABELS, 4, 12, 3))
    assert not np.array_equal(first, stratified_choice(LABELS, 4, 12, 4))
    # Written down once: another NumPy or machine must give the same.
    assert first.tolist() == FIRST


FIRST = [1, 6, 13, 18, 26, 29, 31, 34, 42, 43, 51, 59]


@pytest.mark.parametrize("how, words", [
    (0, "cannot cut 0 images off 60: expected 1 to 59"), (60, "cannot cut 60"), (-1, "cannot cut"),
    (0.0, "between 0 and 1"), (1.0, "between 0 and 1, got 1.0; give a whole number"),
    (float("nan"), "between"), (0.001, "nothing would be left"), (0.999, "nothing would be left"),
    (True, "got bool"), ("0.1", "got str")])
def test_split_refuses(how, words):
    with pytest.raises(DataError, match=words):
        make().split(how)


def test_split_refuses_a_seed_out_of_range():
    with pytest.raises(ValueError, match="seed must be"):
        make().split(5, seed=-1)


# Plain arrays

NHWC = IMAGES.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("images, options", [
    (IMAGES, {}), (NHWC, {}), (list(NHWC), {}), (NHWC, {"layout": "NHWC"}),
    (IMAGES.astype(np.float32) / np.float32(255), {}), (IMAGES / 255, {}),
    ((IMAGES / 255).astype(np.float16), {}), (IMAGES[:, ::-1][:, ::-1], {}),
    (np.asfortranarray(NHWC), {}),
])
def test_from_arrays_of_every_kind(images, options):
    data = from_arrays(images, LABELS.tolist(), **options)
    assert np.array_equal(data.images, IMAGES) and data.images.flags.c_contiguous
    assert data.labels.dtype == np.int64 and np.array_equal(data.labels, LABELS)
    assert data.classes == ["0", "1", "2", "3"]


def test_gray_images():
    for gray in (IMAGES[:, 0], IMAGES[:, :1], NHWC[..., :1]):
        assert np.array_equal(from_arrays(gray, LABELS).images, IMAGES[:, :1])
        assert np.array_equal(from_arrays(gray, LABELS, channels=3).images,
                              IMAGES[:, :1].repeat(3, 1))


def test_given_names_statistics_and_masks():
    masks = RNG.random((60, 6, 5)) < 0.5
    data = from_arrays(NHWC, LABELS, "abcde", name="mine", mean=(0.1, 0.2, 0.3), std=(1, 2, 3),
                       masks=masks)
    assert data.classes == list("abcde") and data.name == "mine"
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert np.array_equal(data.masks, masks)


@pytest.mark.parametrize("images, options, words", [
    (IMAGES.astype(np.int32), {}, "uint8 .0..255. or floating point .0..1., got int32"),
    (IMAGES.astype(np.float32), {}, "must lie in 0..1, got 0.0 to 255.0"),
    (np.full((60, 3, 6, 5), np.nan), {}, "must lie in 0..1, got nan"),
    (IMAGES / -255, {}, "must lie in 0..1"),
    (IMAGES[:, :, :, :3], {}, "both ends could be the channels; say"),
    (IMAGES.repeat(2, 1), {}, "neither end looks like"),
    (IMAGES, {"layout": "CHWN"}, "layout must be"), (IMAGES[0, 0], {}, "must have the shape"),
    (IMAGES, {"channels": 1}, "have 3 channels and cannot become 1"),
    ([NHWC[0], NHWC[1, 1:]], {}, r"mixed shapes: image 0 is uint8 \(6, 5, 3\), image 1"),
    ([NHWC[0], NHWC[1] / 255], {}, "mixed shapes"), (3, {}, "got int"),
    (IMAGES[:5], {}, "5 images but 60 labels"),
    (IMAGES, {"classes": ["a"]}, "label 1 of image 30 is out of range: expected 0 to 0"),
])
def test_from_arrays_refuses(images, options, words):
    with pytest.raises(DataError, match=words):
        from_arrays(images, LABELS, **options)


def test_an_empty_data_set_may_be_made():
    assert len(from_arrays(np.empty((0, 8, 8, 3), np.uint8), [])) == 0
    assert len(from_arrays(np.empty((0, 4, 4)), [], ["a"])) == 0


# Names

def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match=r"unknown data set 'shape'\. Did you mean 'shapes'"):
        attnnet.data.load("shape")
    with pytest.raises(ValueError, match="unknown data set 5"):
        attnnet.data.load(5)
    with pytest.raises(TypeError, match="image_size"):
        attnnet.data.load("shapes", image_size=8)
    assert attnnet.data.list_datasets() == list(attnnet.data.DATASETS)


@pytest.mark.parametrize("name", ["SHAPES", "CIFAR-10", "cifar_100", "folder:none"])
def test_other_spellings_are_known(name, monkeypatch, tmp_path):
    monkeypatch.delenv("ATTNNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        options = {"train_count": 1, "test_count": 1} if name == "SHAPES" else {}
        attnnet.data.load(name, download=False, **options)
    except DataError as missing:
        assert "not found" in str(missing) or "does not exist" in str(missing)
