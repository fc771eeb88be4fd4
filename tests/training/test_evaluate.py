"""Evaluation of models: modes and normalisation, mirrored images, stops, wrong arguments."""

import dataclasses

import numpy as np
import pytest

import attnnet
from attnnet.data import from_arrays, load
from attnnet.errors import DataError
from attnnet.training import evaluate
from attnnet.training.evaluate import EvaluationStopped, score

from .tiny import Tiny


@pytest.fixture(scope="module")
def images():
    return load("shapes", train_count=1, test_count=50)[1]


def logits_of(model, dataset, flip=False):
    mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    x = (dataset.images.astype(np.float32) / 255 - mean) / std
    if flip:
        x = np.ascontiguousarray(x[..., ::-1])
    with attnnet.no_grad():
        return model(attnnet.tensor(x)).numpy().astype(np.float64)


@pytest.mark.parametrize("flip", [False, True])
def test_scores_are_those_of_the_logits(images, flip):
    attnnet.manual_seed(0)
    model = Tiny(10, 3, (32, 32))
    model.eval()
    expected = logits_of(model, images)
    if flip:
        expected = (expected + logits_of(model, images, flip=True)) / 2
    wanted = score(expected, images.labels, images.classes)
    for batch_size in (1, 7, 50, 256):
        got = evaluate(model, images, batch_size, test_flip=flip)
        assert not abs(got.loss - wanted.loss) > 1e-5
        assert (got.confusion == wanted.confusion).all() and got.top5 == wanted.top5


def test_modes_and_statistics_are_left_as_they_were(images):
    model = Tiny(10, 3, (32, 32))
    model.train()
    model.dropout.eval()
    before = model.state_dict()
    evaluate(model, images)
    assert model.training and model.bn.training and not model.dropout.training
    after = model.state_dict()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_models_normalisation_comes_first(images):
    model = Tiny(10, 3, (32, 32))
    model.normalization = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    own = dataclasses.replace(images, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    got = evaluate(model, images)
    model.normalization = None
    assert got.loss == evaluate(model, own).loss != evaluate(model, images).loss


def test_wrong_arguments(images):
    model = Tiny(10, 3, (32, 32))
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        evaluate(model, images, 0)
    with pytest.raises(TypeError, match="expected a Dataset, got ndarray"):
        evaluate(model, images.images)
    with pytest.raises(DataError, match="holds no images"):
        evaluate(model, images.subset(slice(0, 0)))
    model.normalization = ((0.5,), (0.5,))
    with pytest.raises(DataError, match=r"normalisation has 1 means and 1 dev.* have 3 channels"):
        evaluate(model, images)
    model.normalization = None
    few = from_arrays(images.images, images.labels % 3, ["a", "b", "c"], layout="NCHW")
    with pytest.raises(DataError, match="the model has 10 classes, the data 3"):
        evaluate(model, few)
    with pytest.raises(ValueError, match=r"gave \(50, 8, 4, 4\); expected logits \(50, classes\)"):
        evaluate(attnnet.nn.Sequential(model.conv, model.bn, model.relu, model.pool), images)


def test_stopping_puts_the_mode_back(images):
    model = Tiny(10, 3, (32, 32))
    seen = []

    def stop_at_20(done, total):
        seen.append((done, total))
        return done >= 20

    with pytest.raises(EvaluationStopped):
        evaluate(model, images, 10, on_batch=stop_at_20)
    assert seen == [(10, 50), (20, 50)] and model.training


def test_shown_in_a_notebook():
    labels = np.array([0, 0, 1, 2])
    logits = np.eye(3)[[0, 1, 1, 1]]
    html = score(logits, labels, ["<a>", "b", "c"])._repr_html_()
    assert ">50.00</td>" in html and ">&lt;a&gt;</td>" in html and "<details open>" in html
    many = score(np.eye(20), np.arange(20), [str(i) for i in range(20)])._repr_html_()
    assert "<details><summary>each class" in many and "taken for" not in many
