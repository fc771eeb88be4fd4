"""CIFAR: the real files where they are, and small ones with everything wrong with them."""

import dataclasses
import hashlib
import pickle

import numpy as np
import pytest

import attnnet.data
from attnnet.data import cifar
from attnnet.data.cifar_names import CIFAR10_NAMES, CIFAR100_NAMES
from attnnet.errors import DataError

from . import mini
from .mini import MINI10, MINI100

LAYOUTS = pytest.mark.parametrize("layout", [MINI10, MINI100], ids=lambda x: x.name)


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch, tmp_path):
    """No environment, no cache of this machine's user."""
    monkeypatch.delenv("ATTNNET_DATA", raising=False)
    monkeypatch.delenv("ATTNNET_DATA_URL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name, classes, first", [("cifar10", 10, "airplane"),
                                                  ("cifar100", 100, "apple")])
def test_the_real_files(cifar_root, name, classes, first):
    train, test = attnnet.data.load(name, root=cifar_root)
    assert train.images.shape == (50_000, 3, 32, 32) and test.images.shape == (10_000, 3, 32, 32)
    assert set(train.class_counts) == {50_000 // classes}
    assert set(test.class_counts) == {10_000 // classes}
    assert len(train.classes) == classes and train.classes[0] == first
    if classes == 100:
        assert train.classes[26] == "crab"
    # The mean colour of CIFAR, as everybody knows it.
    mean = attnnet.data.dataset.channel_statistics(train.images)[0]
    known = (0.4914, 0.4822, 0.4465) if classes == 10 else (0.5071, 0.4865, 0.4409)
    assert np.allclose(mean, known, atol=6e-5)


def check(layout, datasets, files):
    for dataset, names in zip(datasets, (layout.train, layout.test), strict=True):
        pixels = np.concatenate([files[f][b"data"] for f in names])
        labels = [label for f in names for label in files[f][layout.labels.encode()]]
        assert np.array_equal(dataset.images, pixels.reshape(-1, 3, 32, 32))
        assert dataset.labels.tolist() == labels
        assert (dataset.mean, dataset.std) == (layout.mean, layout.std)
        assert len(dataset.classes) == layout.classes and dataset.name == layout.name


@LAYOUTS
def test_folder_and_archive_by_every_way(layout, tmp_path, monkeypatch):
    files = mini.contents(layout)
    home = tmp_path / "home"
    folder = mini.write(layout, home, files)
    archive = mini.pack(layout, folder, tmp_path / layout.archive)
    layout = dataclasses.replace(layout, md5=cifar_md5(archive))
    for root in (home, folder, archive, tmp_path):
        check(layout, cifar.load_cifar(layout, root, download=False), files)
    monkeypatch.setenv("ATTNNET_DATA", str(home))
    check(layout, cifar.load_cifar(layout, download=False), files)
    monkeypatch.delenv("ATTNNET_DATA")
    cache = tmp_path / "cache" / "attnnet"
    cache.mkdir(parents=True)
    archive.rename(cache / layout.archive)
    check(layout, cifar.load_cifar(layout, download=False), files)


def cifar_md5(path):
    from attnnet.data.archive import md5_of

    return md5_of(path)


@LAYOUTS
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_files_that_python_3_wrote(layout, protocol, tmp_path):
    files = mini.contents(layout)
    mini.write(layout, tmp_path, files, lambda o: pickle.dumps(o, protocol))
    check(layout, cifar.load_cifar(layout, tmp_path, download=False), files)


def test_the_first_place_wins_and_says_so(tmp_path, monkeypatch):
    first, second = mini.contents(MINI10, 1), mini.contents(MINI10, 2)
    mini.write(MINI10, tmp_path / "first", first)
    mini.write(MINI10, tmp_path / "second", second)
    monkeypatch.setenv("ATTNNET_DATA", str(tmp_path / "second"))
    check(MINI10, cifar.load_cifar(MINI10, tmp_path / "first"), first)
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match=r"no CIFAR-10 in .*empty: taking .*second"):
        check(MINI10, cifar.load_cifar(MINI10, tmp_path / "empty"), second)


def test_missing_says_where_it_looked_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNNET_DATA", str(tmp_path / "b"))
    with pytest.raises(DataError) as caught:
        attnnet.data.load("cifar100", root=tmp_path / "a", download=False)
    message = str(caught.value)
    for part in (str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "cache" / "attnnet"),
                 "cifar-100-python.tar.gz", "https://www.cs.toronto.edu/~kriz/", "--data",
                 "ATTNNET_DATA"):
        assert part in message


def test_another_archive_is_used_with_a_warning(tmp_path):
    files = mini.contents(MINI10)
    archive = mini.pack(MINI10, mini.write(MINI10, tmp_path / "x", files), tmp_path / "a.tar.gz")
    with pytest.warns(UserWarning, match="not the official archive of CIFAR-10 .md5 "):
        check(MINI10, cifar.load_cifar(MINI10, archive), files)


def test_crab_is_spelled_right(tmp_path):
    files = mini.contents(MINI100)
    files["meta"][b"fine_label_names"][26] = b"cra"
    mini.write(MINI100, tmp_path, files)
    assert cifar.load_cifar(MINI100, tmp_path)[0].classes[26] == "crab"


def put(file, key, value):
    return lambda files: files[file].__setitem__(key, value)


def change(file, key, function):
    return lambda files: files[file].__setitem__(key, function(files[file][key]))


@pytest.mark.parametrize("spoil, words", [
    (lambda f: f.pop("data_batch_3"), "incomplete CIFAR-10: data_batch_3 missing"),
    (lambda f: f.pop("batches.meta"), "incomplete CIFAR-10: batches.meta missing"),
    (lambda f: f.update(test_batch=b""), "test_batch: truncated"),
    (lambda f: f.update(test_batch=mini.python2_pickle([1])), "holds a list, expected a dict"),
    (lambda f: f.update(test_batch=bytes(400_000)), "400,000 bytes, expected at most"),
    (lambda f: f["data_batch_2"].pop(b"labels"), "data_batch_2: no entry 'labels'"),
    (put("data_batch_2", b"labels", 3), "'labels' is a int, expected a list"),
    (change("data_batch_2", b"labels", lambda x: x[:-1]), "'labels' has 19 values, expected 20"),
    (change("data_batch_2", b"labels", lambda x: [*x[:-1], 10]), "image 19 is 10, expected 0 to 9"),
    (change("data_batch_2", b"labels", lambda x: [-1, *x[1:]]), "image 0 is -1, expected"),
    (change("data_batch_2", b"labels", lambda x: [b"1", *x[1:]]), "image 0 is bytes, expected"),
    (change("data_batch_2", b"labels", lambda x: [True, *x[1:]]), "image 0 is bool, expected"),
    (change("data_batch_2", b"labels", lambda x: [0] * 20), "not the labels of CIFAR-10"),
    (change("data_batch_2", b"data", lambda x: x[:-1]), r"'data' is uint8 \(19, 3072\)"),
    (change("data_batch_2", b"data", lambda x: x.reshape(20, 3, 32, 32)), "expected uint8"),
    (change("data_batch_2", b"data", lambda x: x.astype(np.int8)), "'data' is int8"),
    (put("data_batch_2", b"data", b"x"), "'data' is a bytes, expected a ndarray"),
    (put("batches.meta", b"label_names", [b"a"] * 10), "a name twice"),
    (put("batches.meta", b"label_names", [b"a", b"b"]), "must be 10 names"),
    (put("batches.meta", b"label_names", [[]] * 10), "must be 10 names"),
])
def test_a_folder_is_judged_by_its_contents(spoil, words, tmp_path):
    files = mini.contents(MINI10)
    spoil(files)
    mini.write(MINI10, tmp_path, files)
    with pytest.raises(DataError, match=words):
        cifar.load_cifar(MINI10, tmp_path)


def test_coarse_labels_are_checked_too(tmp_path):
    files = mini.contents(MINI100)
    files["train"][b"coarse_labels"][7] = 20
    mini.write(MINI100, tmp_path, files)
    with pytest.raises(DataError, match="'coarse_labels' of image 7 is 20, expected 0 to 19"):
        cifar.load_cifar(MINI100, tmp_path)


def test_every_truncation_of_a_batch_is_refused(tmp_path):
    folder = mini.write(MINI10, tmp_path)
    whole = (folder / "test_batch").read_bytes()
    for length in range(0, len(whole), 997):
        (folder / "test_batch").write_bytes(whole[:length])
        with pytest.raises(DataError, match="test_batch"):
            cifar.load_cifar(MINI10, tmp_path)


def test_official_figures():
    """What the world knows of the two archives."""
    assert cifar.CIFAR10.md5 == "c58f30108f718f92721af3b95e74349a"
    assert cifar.CIFAR100.md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    for layout in (cifar.CIFAR10, cifar.CIFAR100):
        assert sum(layout.images_in(f) for f in layout.train) == 50_000
        assert sum(layout.images_in(f) for f in layout.test) == 10_000


@pytest.mark.parametrize(
    ("names", "digest"),
    [
        (CIFAR10_NAMES, "66c673d653014822e808e1ae64eed32f350cb5c045d4cdd024378734afdd0dd8"),
        (CIFAR100_NAMES, "77827c4c023a75b4a96911073f98319342db3ba589d39f75bec28def799cfea8"),
    ],
    ids=["cifar10", "cifar100"],
)
def test_names_are_those_of_the_official_meta_files_in_their_order(names, digest):
    assert hashlib.sha256(" ".join(names).encode()).hexdigest() == digest
