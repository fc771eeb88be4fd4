"""Trainings whose first epochs see fewer pixels."""

import numpy as np
import pytest

import attnnet
from attnnet.study import Plan, checks
from attnnet.training import Callback, Recipe, Trainer

from .test_trainer import assert_same_training
from .tiny import StopAt

SMALL = {
    "arch": "resnet18", "block": "NEW_4", "epochs": 3, "train_sizes": (16, 20), "batch_size": 8,
    "limit_train": 20, "limit_test": 8, "lr": 1e-3,
}  # fmt: skip


class Sizes(Callback):
    """The shape of the images of each step."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, trainer):
        trainer.model.register_forward_hook(
            lambda module, inputs, _: self.seen.append((module.training, inputs[0].shape[2:]))
        )


def test_sizes_follow_the_epochs_and_resume_is_bit_for_bit(tmp_path):
    sizes = Sizes()
    recipe = Recipe(**SMALL)
    Trainer(recipe, tmp_path / "a", [sizes], progress=False).fit()
    trained = [shape for training, shape in sizes.seen if training]
    assert trained == [(16, 16)] * 3 + [(20, 20)] * 3 + [(32, 32)] * 3
    assert {shape for training, shape in sizes.seen if not training} == {(32, 32)}
    trainer = Trainer(recipe, tmp_path / "b", [StopAt(1, 0)], progress=False)
    assert trainer.fit().interrupted
    Trainer.resume(tmp_path / "b", progress=False).fit()
    assert_same_training(tmp_path / "a", tmp_path / "b")


def test_the_estimate_of_what_is_left_counts_pixels(tmp_path):
    trainer = Trainer(Recipe(**SMALL), tmp_path, progress=False)
    trainer.fit(stop_after=1)
    trainer._end = 3
    first = trainer.history[0]["seconds"]
    assert trainer.remaining_seconds() == pytest.approx(first * (20**2 + 32**2) / 16**2)


def test_the_log_says_so(tmp_path):
    trainer = Trainer(Recipe(**SMALL), False, progress=False)
    trainer.prepare()
    assert "training images are 16, 20 pixels, then all" in "\n".join(trainer.describe())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arch": "vgg11", "block": None}, "holds 16, but vgg11 base takes no images of that size"),
        ({"block": "AA_1"}, "holds 16, but resnet18 AA_1 takes no images of that size"),
        ({"train_sizes": (40,)}, "(holds|hold) 40, but the images"),
    ],
)
def test_networks_that_take_no_other_size_are_refused_at_once(changes, words):
    seen = attnnet.get_rng_state()
    with pytest.raises(ValueError, match=words):
        Trainer(Recipe(**{**SMALL, **changes}), False, progress=False).prepare()
    attnnet.set_rng_state(seen)
    arch, block = changes.get("arch", "resnet18"), changes.get("block", "NEW_4") or "none"
    sizes = list(changes.get("train_sizes", (16, 20)))
    plan = {"networks": [arch], "datasets": ["shapes"], "blocks": [block], "stages": [],
            "recipe": {"train_sizes": sizes}}  # fmt: skip
    with pytest.raises(ValueError, match=f"plan.*{words}"):
        checks.networks(Plan.from_dict(plan).runs)


def test_looking_whether_a_size_fits_leaves_the_network_as_it_was():
    attnnet.manual_seed(5)
    recipe = Recipe(**SMALL)
    with_sizes = Trainer(recipe, False, progress=False)
    without = Trainer(recipe.replace(train_sizes=()), False, progress=False)
    states = []
    for trainer in (with_sizes, without):
        trainer.prepare()
        states.append((trainer.model.state_dict(), trainer.position.random))
        assert all(module.training for module in trainer.model.modules())
    assert states[0][1] == states[1][1]
    assert all(np.array_equal(v, states[1][0][k]) for k, v in states[0][0].items())
