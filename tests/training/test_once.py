"""train: begins, goes on, or reads; never mixes two trainings."""

import json
from unittest import mock

import pytest

import attnnet
from attnnet.errors import CheckpointError
from attnnet.training import Callback, Trainer, checkpoint, finish
from training.tiny import StopAt, recipe


class Count(Callback):
    """Counts steps."""

    steps = 0

    def on_batch_end(self, trainer, result):
        self.steps += 1


def weights(folder):
    return {k: v.tobytes() for k, v in checkpoint.load(folder / "last.safetensors").weights.items()}


def test_a_finished_training_is_only_read(tmp_path):
    count = Count()
    first = attnnet.train(recipe(), tmp_path / "run", [count], progress=False)
    steps = count.steps
    again = attnnet.train(recipe(), tmp_path / "run", [count], progress=False)
    assert count.steps == steps == 28
    assert again.plain_rows() == first.plain_rows() and again.summary == first.summary
    assert again.checkpoint == first.checkpoint and again.picture == first.picture


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    attnnet.train(recipe(), tmp_path / "straight", progress=False)
    stopped = attnnet.train(recipe(), tmp_path / "run", [StopAt(1, 3)], progress=False)
    assert stopped.interrupted
    count = Count()
    done = attnnet.train(recipe(), tmp_path / "run", [count], progress=False)
    assert not done.interrupted and count.steps == 28 - 7 - 4
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")


def test_more_epochs_are_added(tmp_path):
    short = recipe(epochs=2, schedule_epochs=4)
    attnnet.train(short, tmp_path / "run", progress=False)
    assert len(attnnet.train(short.replace(epochs=4), tmp_path / "run", progress=False)) == 4


def test_with_images_of_ones_own(tmp_path):
    train, test = attnnet.data.load("shapes", train_count=100, test_count=60)
    train.name = "mine"
    short = recipe(epochs=1, warmup_epochs=0)
    for _ in range(2):
        history = attnnet.train(short, tmp_path / "run", progress=False, data=(train, test))
        assert len(history) == 1


def test_stopped_after_it_was_whole_it_is_not_done(tmp_path):
    """More epochs, and a kill between the last of them and the test."""
    trainer = Trainer(recipe(epochs=2, warmup_epochs=0), tmp_path / "run", progress=False)
    assert trainer.fit(stop_after=1).summary["epochs"] == 1
    with mock.patch.object(finish, "finish", side_effect=KeyboardInterrupt), \
            pytest.raises(KeyboardInterrupt):  # fmt: skip
        trainer.fit()
    history = attnnet.train(trainer.recipe, tmp_path / "run", progress=False)
    assert history.summary["epochs"] == 2


def test_another_recipe_is_refused(tmp_path):
    attnnet.train(recipe(epochs=1, warmup_epochs=0), tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match="seed is 42 there, 43 here"):
        attnnet.train(recipe(epochs=1, warmup_epochs=0, seed=43), tmp_path / "run", progress=False)


def test_a_lost_recipe_is_named(tmp_path):
    attnnet.train(recipe(epochs=1, warmup_epochs=0), tmp_path / "run", progress=False)
    (tmp_path / "run" / "recipe.json").write_text(json.dumps([]))
    with pytest.raises(CheckpointError, match=r"recipe\.json"):
        attnnet.train(recipe(epochs=1, warmup_epochs=0), tmp_path / "run", progress=False)
