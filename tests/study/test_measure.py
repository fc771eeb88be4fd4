"""What is measured of a run: whether Grad-CAM for the true class is on the objects."""

import numpy as np
import pytest

import attnnet
from attnnet import explain
from attnnet.data import Dataset
from attnnet.study import measure


@pytest.fixture(scope="module")
def model():
    attnnet.manual_seed(3)
    model = attnnet.resnet18("SE_4", num_classes=10)
    model.eval()
    return model


def test_localisation_is_that_of_the_true_classes_and_the_masks(model):
    _, test = attnnet.data.load("shapes", train_count=10, test_count=20)
    found = measure._localisation(model, test)
    (expected,) = explain.measure_localisation(
        model, test.images, test.masks, target=test.labels
    ).values()
    assert found == {name: pytest.approx(100 * one.mean) for name, one in expected.items()}
    (other,) = explain.measure_localisation(
        model, test.images, test.masks, target=(test.labels + 1) % 10
    ).values()
    assert found["energy inside"] != pytest.approx(100 * other["energy inside"].mean)


def test_no_localisation_without_objects(model):
    _, test = attnnet.data.load("shapes", train_count=10, test_count=20)
    images, labels = test.images, test.labels
    assert measure._localisation(model, Dataset(images, labels, test.classes)) is None
    bare = Dataset(images, labels, test.classes, masks=np.zeros_like(test.masks))
    assert measure._localisation(model, bare) is None
