"""Scores of logits against a slow twin, with ties, NaN and wrong labels."""

import math
import warnings

import numpy as np
import pytest

from attnnet.errors import DataError
from attnnet.training.evaluate import score


def slow_score(logits, labels):
    """Loss, top-1, top-5 and confusion, image by image."""
    count, classes = logits.shape
    loss = top1 = top5 = 0.0
    confusion = np.zeros((classes, classes), int)
    for row, label in zip(logits, labels, strict=True):
        order = sorted(range(classes), key=lambda c: (-row[c], c))
        top1 += order[0] == label
        top5 += label in order[:5]
        confusion[label, order[0]] += 1
        biggest = max(row)
        loss += math.log(sum(math.exp(v - biggest) for v in row)) + biggest - row[label]
    return loss / count, 100 * top1 / count, 100 * top5 / count, confusion


@pytest.mark.parametrize("classes", [1, 3, 5, 10, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_the_slow_twin(classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.integers(-3, 4, (97, classes)) * 1.0  # whole numbers: plenty of ties
    labels = rng.integers(0, classes, 97)
    result = score(logits, labels, [str(c) for c in range(classes)])
    loss, top1, top5, confusion = slow_score(logits, labels)
    assert abs(result.loss - loss) <= 1e-12 * max(1, loss)
    assert (result.top1, result.top5) == (top1, top5)
    assert (result.confusion == confusion).all() and result.images == 97
    for c in range(classes):
        images = (labels == c).sum()
        expected = 100 * confusion[c, c] / images if images else math.nan
        assert result.per_class[c] == expected or (math.isnan(expected) and not images)


def test_huge_logits_do_not_overflow():
    result = score(np.array([[1e30, 0.0], [0.0, -1e30]]), np.array([0, 1]), ["a", "b"])
    assert result.loss == 5e29 and result.top1 == 50.0


def test_nan_counts_as_wrong():
    logits = np.array([[0.0, math.nan, 1.0], [0.0, 0.0, 1.0]])
    result = score(logits, np.array([1, 2]), ["a", "b", "c"])
    assert (result.top1, result.top5) == (50.0, 50.0) and math.isnan(result.loss)
    assert result.to_dict()["loss"] is None


def test_wrong_labels_and_classes_are_refused():
    with pytest.raises(DataError, match="labels go from 0 to 3; the model has 3 classes"):
        score(np.zeros((2, 3)), np.array([0, 3]), ["a", "b", "c"])
    with pytest.raises(DataError, match="the model has 3 classes, the data 2"):
        score(np.zeros((2, 3)), np.array([0, 1]), ["a", "b"])


def test_table_and_confusions():
    logits = np.eye(3)[[0, 0, 0, 1]]
    result = score(logits, np.array([0, 1, 1, 1]), ["cat", "dog", "eel"])
    assert result.confused() == [("dog", "cat", 2)]
    table = result.table()
    assert "top-1 50.00 %" in table and "dog -> cat: 2" in table
    eel = next(line for line in table.splitlines() if line.startswith("eel"))
    assert eel.split() == ["eel", "0", "-"]
    assert result.to_dict()["per_class"] == {"cat": 100.0, "dog": 100 / 3, "eel": None}


@pytest.mark.parametrize("row", [[5, np.inf, 2], [np.inf] * 3, [-np.inf] * 3, [1, np.nan, 2]])
def test_what_has_overflowed_is_wrong(row):
    for label in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert score(np.array([row], np.float64), np.array([label]), list("abc")).top1 == 0
    assert score(np.array([[5, -np.inf, 2]]), np.array([0]), list("abc")).top1 == 100
