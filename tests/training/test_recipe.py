"""Recipes: every field checked, exact messages, presets as in the study, files."""

import json
import sys

import numpy as np
import pytest

from attnnet.training.fields import FIELDS, field_help
from attnnet.training.presets import list_presets, preset_for, preset_summary
from attnnet.training.recipe import Recipe


def test_presets_are_the_studys():
    resnet = Recipe.preset("resnet18-cifar100")
    assert (resnet.arch, resnet.dataset, resnet.epochs, resnet.batch_size) == (
        "resnet18", "cifar100", 200, 128,
    )  # fmt: skip
    assert (resnet.lr, resnet.momentum, resnet.weight_decay, resnet.nesterov) == (
        0.1, 0.9, 5e-4, False,
    )  # fmt: skip
    assert (resnet.schedule, resnet.total_epochs, resnet.final_lr) == ("cosine", 200, 0.0)
    assert resnet.mean == (0.4914, 0.4822, 0.4465) and resnet.std == (0.2023, 0.1994, 0.2010)
    vgg = Recipe.preset("vgg19-cifar10")
    assert (vgg.arch, vgg.dataset, vgg.epochs, vgg.batch_size) == ("vgg19", "cifar10", 300, 128)
    assert (vgg.lr, vgg.schedule, vgg.step_size, vgg.gamma) == (0.05, "step", 30, 0.5)
    assert vgg.mean == (0.485, 0.456, 0.406) and vgg.std == (0.229, 0.224, 0.225)
    for recipe in (resnet, vgg):
        assert (recipe.crop_padding, recipe.padding_mode, recipe.flip, recipe.cutout) == (
            4, "zeros", 0.5, 0,
        )  # fmt: skip
        assert recipe.seed == 42 and recipe.block is None and recipe.label_smoothing == 0.0
        assert recipe.limit_train is None and recipe.warmup_epochs == 0.0


def test_fast_fits_itself_to_the_network():
    fast = Recipe.preset("fast")
    fast.check_names()
    assert (fast.arch, fast.dataset, fast.block) == ("resnet18", "cifar10", None)
    assert fast.nesterov and not fast.decay_norms and fast.test_flip and fast.average
    assert (fast.schedule, fast.final_lr, fast.flip_mode) == ("linear", 0.0, "alternating")
    assert fast.validation is None, "a study or a user holds images out, not a preset"
    assert (fast.epochs, fast.dropout) == (10, None)
    assert Recipe.preset("fast", arch="resnet34", dataset="cifar100").epochs == 10
    vgg = Recipe.from_dict({"preset": "fast", "arch": "VGG16"})
    assert (vgg.epochs, vgg.dropout, vgg.dataset) == (12, 0.0, "cifar10")
    assert Recipe.preset("fast", arch="vgg19", epochs=3).epochs == 3, "what is said goes first"


def test_the_quick_preset_is_the_default_with_fewer_images():
    quick = Recipe.preset("shapes")
    assert (quick.arch, quick.block, quick.dataset) == ("resnet18", "NEW_12", "shapes")
    assert quick.limit_train * quick.epochs <= 16_000, "about two minutes on two cores"
    assert quick.replace(epochs=10, limit_train=None, limit_test=None) == Recipe()


def test_presets_by_network_and_data():
    assert preset_for(None, None) == preset_for("vgg19", "Shapes") == "shapes"
    assert preset_for("vgg19", "folder:x") is None
    assert preset_for("resnet50", "cifar10") == "resnet18-cifar100"
    assert preset_for("vgg16", "cifar100") == preset_for("VGG16", "CIFAR10") == "vgg19-cifar10"
    assert all(preset_summary(name) for name in list_presets())


def test_every_field_has_help():
    assert list(FIELDS) == [field for field in Recipe().to_dict()]
    assert all(field_help(name) for name in FIELDS)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("epochs", 0, "recipe: epochs is 0; expected a whole number of at least 1."),
        ("epochs", 2.5, "recipe: epochs is 2.5; expected a whole number of at least 1."),
        ("epochs", True, "recipe: epochs is True; expected a whole number of at least 1."),
        ("lr", 0, "recipe: lr is 0; expected a number above 0."),
        ("lr", float("nan"), "recipe: lr is nan; expected a number above 0."),
        ("lr", "fast", "recipe: lr is 'fast'; expected a number above 0."),
        ("momentum", 1.0, "momentum is 1.0; expected a number of at least 0 and below 1."),
        ("flip", 1.5, "recipe: flip is 1.5; expected a number of at least 0 and at most 1."),
        ("weight_decay", -1, "weight_decay is -1; expected a number of at least 0."),
        ("weight_decay", float("inf"), "weight_decay is inf; expected a number of at least 0."),
        ("optimizer", "adam", "Did you mean 'adamw'?"),
        ("schedule", "cosin", "Did you mean 'cosine'?"),
        ("padding_mode", "zero", "Did you mean 'zeros'?"),
        ("nesterov", 1, "recipe: nesterov is 1; expected True or False."),
        ("arch", "", "recipe: arch is ''; expected a name (text)."),
        ("dropout", 1, "dropout is 1; expected a number of at least 0 and below 1 or None."),
        ("block", 3, "recipe: block is 3; expected a name (text) or None."),
        ("milestones", (30, 20), "expected rising epoch numbers"),
        ("milestones", "30", "expected rising epoch numbers"),
        ("train_sizes", (16, 0), "train_sizes is 0; expected a whole number of at least 1"),
        ("train_sizes", 16, "numbers of pixels, one an epoch"),
        ("flip_mode", "alternate", "Did you mean 'alternating'?"),
        ("average", 1.0, "a number above 0 and below 1 or None."),
        ("mean", (0.5, "x", 0.5), "expected numbers, one a channel, or None."),
        ("std", (0.5, 0.0, 0.5), "expected numbers above 0, one a channel, or None."),
        ("validation", 1.5, "a fraction between 0 and 1, a count of images, or None."),
        ("validation", 0, "a fraction between 0 and 1, a count of images, or None."),
        ("seed", -1, "recipe: seed is -1; expected a whole number of at least 0."),
    ],
)
def test_wrong_values_are_refused_with_the_field_and_what_was_expected(field, value, expected):
    for make in (lambda: Recipe(**{field: value}), lambda: setattr(Recipe(), field, value)):
        with pytest.raises(ValueError) as caught:
            make()
        assert expected in str(caught.value)


def test_numbers_of_numpy_are_numbers():
    recipe = Recipe(seed=np.int64(1), lr=np.float32(0.5), validation=np.int32(7))
    assert (recipe.seed, recipe.lr, recipe.validation) == (1, 0.5, 7)
    assert json.loads(json.dumps(recipe.to_dict()))["seed"] == 1


def test_a_preset_is_for_the_beginning():
    with pytest.raises(ValueError, match=r"replace changes single fields; Recipe.preset\('fast'"):
        Recipe().replace(preset="fast")
    with pytest.raises(ValueError, match="arch is 5; expected a name"):
        Recipe.preset("fast", arch=5)


def test_unknown_fields_name_the_nearest():
    with pytest.raises(ValueError, match=r"unknown field.* 'epoch'\. Did you mean 'epochs'"):
        Recipe.from_dict({"epoch": 3})
    with pytest.raises(ValueError, match="Did you mean 'batch_size'"):
        Recipe().batchsize = 3
    with pytest.raises(ValueError, match=r"unknown preset 'shape'\. Did you mean 'shapes'"):
        Recipe.preset("shape")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, "mean and std go together"),
        ({"mean": (0.5,), "std": (0.2, 0.2)}, "mean has 1 numbers and std 2"),
        ({"optimizer": "sgd", "nesterov": True, "momentum": 0.0}, "nesterov needs a momentum"),
        ({"schedule": "multistep"}, "needs milestones"),
        ({"epochs": 5, "schedule_epochs": 4}, "schedule_epochs is 4, less than the 5 epochs"),
        ({"epochs": 2, "warmup_epochs": 2.0}, "as long as the whole schedule"),
        ({"epochs": 2, "warmup_epochs": 2.5, "schedule": "linear"}, "as long as the whole"),
        ({"lr": 0.1, "final_lr": 0.2}, "final_lr 0.2 is above lr 0.1"),
    ],
)
def test_fields_that_contradict_each_other(fields, expected):
    with pytest.raises(ValueError) as caught:
        Recipe(**fields)
    assert expected in str(caught.value)


def test_dict_and_files_bring_the_recipe_back(tmp_path):
    recipe = Recipe.preset("vgg19-cifar10", block="CBAM_1+SE_34", validation=0.1, clip_norm=5.0)
    plain = json.loads(json.dumps(recipe.to_dict()))
    assert Recipe.from_dict(plain) == recipe
    path = tmp_path / "recipe.json"
    recipe.to_file(path)
    assert Recipe.from_file(path) == recipe
    changed = recipe.replace(epochs=7)
    assert changed.epochs == 7 and recipe.epochs == 300
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_toml_files_start_from_a_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "resnet18-cifar100"\nblock = "SE_12"\nmilestones = [3, 5]\n')
    recipe = Recipe.from_file(path)
    assert recipe == Recipe.preset("resnet18-cifar100", block="SE_12", milestones=(3, 5))
    path.write_text("epochs = = 3")
    with pytest.raises(ValueError, match=r"mine\.toml: not a TOML recipe"):
        Recipe.from_file(path)


def test_broken_recipe_files_name_the_file(tmp_path):
    path = tmp_path / "r.json"
    for content in (b"{", b"\xff\xfe", b"[1, 2]", b"[" * 100_000, b'{"epochs": "many"}'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"r\.json: "):
            Recipe.from_file(path)
    path.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(ValueError, match="larger than"):
        Recipe.from_file(path)
    with pytest.raises(FileNotFoundError):
        Recipe.from_file(tmp_path / "none.json")


def test_names_for_folders():
    assert Recipe().name == "resnet18-NEW_12-shapes"
    assert Recipe(block=None, dataset="folder:/data/my pets/").name == "resnet18-base-my_pets"
