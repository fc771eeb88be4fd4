"""Models from checkpoints: what comes with them, and metadata that lie."""

import numpy as np
import pytest

import attnnet
from attnnet.data import shapes
from attnnet.errors import CheckpointError
from attnnet.training import Trainer
from attnnet.training import checkpoint as checkpoints

from .tiny import recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    Trainer(recipe(epochs=1, warmup_epochs=0.5), folder, progress=False).fit()
    return folder


def test_what_comes_with_a_model(trained):
    model = attnnet.load(trained)
    assert not model.training and model.recipe == recipe(epochs=1, warmup_epochs=0.5)
    assert model.class_names[:3] == ["disk", "ring", "square"]
    assert model.normalization == (shapes.MEAN, shapes.STD)
    saved = checkpoints.load(trained / "best.safetensors").weights
    for name, array in model.state_dict().items():
        assert array.tobytes() == saved[name].tobytes(), name


def test_loading_draws_no_random_numbers_that_others_see(trained):
    attnnet.manual_seed(3)
    before = attnnet.get_rng_state()
    attnnet.load(trained)
    assert attnnet.get_rng_state() == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": None}, "nothing says which model"),
        ({"model": {}}, "the model has no arch"),
        ({"model": {"arch": "tiny", "num_classes": 10**9}}, "num_classes is 1000000000"),
        ({"model": {"arch": "tiny", "image_size": [10**6, 32]}}, "image_size is"),
        ({"model": {"arch": "tiny", "image_size": 32}}, "image_size is 32"),
        ({"model": {"arch": "tiny", "__class__": "x"}}, "the model's __class__"),
        ({"model": {"arch": ["tiny"]}}, "the model's arch"),
        ({"model": {"arch": "tiny", "num_classes": True}}, "num_classes is True"),
        ({"normalization": [[0.5], [0.0]]}, "normalization"),
        ({"normalization": "x"}, "normalization"),
        ({"recipe": {"epochs": 0}}, "corrupt metadata: recipe: epochs is 0"),
    ],
)
def test_metadata_that_lie_are_refused(trained, tmp_path, change, expected):
    checkpoint = checkpoints.load(trained)
    checkpoint.meta.update(change)
    path = tmp_path / "c.safetensors"
    checkpoints.save(path, checkpoint)
    with pytest.raises(CheckpointError, match=r"c\.safetensors") as caught:
        attnnet.load(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"position": None}, "no position to go on from"),
        ({"position": {"epoch": -1}}, "no position to go on from"),
        ({"optimizer": {"dict": 3}}, "the averaged weights or the history does not fit"),
        ({"optimizer": None}, "the averaged weights or the history does not fit"),
        ({"history": [[1]]}, "the averaged weights or the history does not fit"),
        ({"recipe": None}, "corrupt metadata: recipe: got NoneType"),
        ({"data": {}}, "this training was on other images"),
    ],
)
def test_positions_that_lie_are_refused(trained, tmp_path, change, expected):
    checkpoint = checkpoints.load(trained)
    checkpoint.meta.update(change)
    path = tmp_path / "c.safetensors"
    checkpoints.save(path, checkpoint)
    with pytest.raises(CheckpointError, match=r"c\.safetensors") as caught:
        Trainer.resume(path, False, progress=False).fit()
    assert expected in str(caught.value)


def test_a_model_without_a_training_is_not_resumed(trained, tmp_path):
    checkpoint = checkpoints.load(trained)
    del checkpoint.meta["position"]
    checkpoints.save(tmp_path / "c.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match="holds a model, but no training to resume"):
        Trainer.resume(tmp_path / "c.safetensors")
    assert attnnet.load(tmp_path / "c.safetensors").class_names


def test_weights_that_do_not_fit_change_nothing(trained):
    checkpoint = checkpoints.load(trained)
    model = checkpoints.build_model(checkpoint)
    before = model.state_dict()
    checkpoint.weights["linear.weight"] = np.zeros((3, 3), np.float32)
    with pytest.raises(CheckpointError, match=r"do not fit the model: .*linear\.weight"):
        checkpoints.fill_model(model, checkpoint)
    del checkpoint.weights["linear.weight"]
    with pytest.raises(CheckpointError, match=r"do not fit the model: .*linear\.weight"):
        checkpoints.fill_model(model, checkpoint)
    after = model.state_dict()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_an_unregistered_network_is_named(trained, tmp_path):
    checkpoint = checkpoints.load(trained)
    checkpoint.meta["model"]["arch"] = "resnet81"
    checkpoints.save(tmp_path / "c.safetensors", checkpoint)
    with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
        attnnet.load(tmp_path / "c.safetensors")
