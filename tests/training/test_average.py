"""Trainings whose weights are averaged: what is averaged, evaluated, kept and gone on with."""

import json

import numpy as np
import pytest

import attnnet
from attnnet.errors import CheckpointError
from attnnet.training import Callback, Trainer, behind, evaluate, keeping, load_model
from attnnet.training import checkpoint as checkpoints

from .test_trainer import assert_same_training, rows_without_times
from .tiny import Messages, StopAt, recipe

KEEP = 0.8


class Weights(Callback):
    """The trained weights and statistics after every step."""

    def __init__(self):
        self.steps = []

    def on_batch_end(self, trainer, result):
        self.steps.append(trainer.model.state_dict())


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """The folder of an averaged training without any interruption, its trainer and its weights."""
    folder = tmp_path_factory.mktemp("averaged")
    seen = Weights()
    trainer = Trainer(recipe(average=KEEP), folder, [seen], progress=False)
    trainer.fit()
    return folder, trainer, seen.steps


def test_the_average_is_that_of_the_weights_of_all_steps(averaged):
    _, trainer, steps = averaged
    assert len(steps) == 28 and trainer.average.n_averaged == 28
    found = trainer.average.module.state_dict()
    for name, value in found.items():
        exact = np.zeros(value.shape)
        for n, step in enumerate(steps):
            keep = min(KEEP, n / (n + 9))
            exact = keep * exact + (1 - keep) * step[name].astype(np.float64)
        if name.endswith("num_batches_tracked"):
            assert value == steps[-1][name]
            continue
        error = np.abs(value - exact).max()
        assert not error > len(steps) * 2.0**-24 * max(1.0, np.abs(exact).max()), name
        assert (value != trainer.model.state_dict()[name]).any(), name


def test_the_training_itself_does_not_notice(averaged, tmp_path):
    _, trainer, steps = averaged
    seen = Weights()
    plain = Trainer(recipe(), tmp_path, [seen], progress=False).fit()
    assert [row["train_loss"] for row in plain] == [r["train_loss"] for r in trainer.history]
    assert [row["test_loss"] for row in plain] != [r["test_loss"] for r in trainer.history]
    for name, value in seen.steps[-1].items():
        assert value.tobytes() == steps[-1][name].tobytes()


def test_what_is_evaluated_and_kept_is_the_average(averaged):
    folder, trainer, _ = averaged
    _, test = attnnet.data.load("shapes", train_count=1, test_count=60)
    last = load_model(folder / "last.safetensors")
    for name, value in trainer.average.module.state_dict().items():
        assert last.state_dict()[name].tobytes() == value.tobytes()
    rows = trainer.history
    assert evaluate(last, test).loss == rows[-1]["test_loss"]
    assert evaluate(trainer.evaluated, test).loss == rows[-1]["test_loss"]
    assert evaluate(trainer.model, test).loss != rows[-1]["test_loss"]
    best = load_model(folder)
    assert evaluate(best, test).top1 == trainer.history.summary["test_top1"]
    assert best.class_names == last.class_names == list(test.classes)


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([(1, 6)], id="between epochs"),
        pytest.param([(0, 0), (2, 3), (2, 4)], id="three times, twice in one epoch"),
    ],
)
def test_resume_is_bit_for_bit(averaged, tmp_path, stops):
    folder = tmp_path / "run"
    setting = recipe(average=KEEP)
    trainer = Trainer(setting, folder, [StopAt(*stops[0])], progress=False)
    assert trainer.fit().interrupted
    for stop in stops[1:]:
        assert Trainer.resume(folder, None, [StopAt(*stop)], progress=False).fit().interrupted
    resumed = Trainer.resume(folder, progress=False)
    assert not resumed.fit().interrupted
    assert resumed.average.n_averaged == 28
    assert_same_training(averaged[0], folder)
    assert_same_training(averaged[0] / "best.safetensors", folder / "best.safetensors")


def test_fit_again_goes_on_in_memory(averaged, tmp_path):
    trainer = Trainer(recipe(average=KEEP), tmp_path, [StopAt(1, 2)], progress=False)
    assert trainer.fit().interrupted
    assert not trainer.fit().interrupted
    assert_same_training(averaged[0], tmp_path)


def test_a_checkpoint_written_behind_a_notebooks_back_is_a_copy(averaged, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "in_notebook", lambda: True)
    folder = tmp_path / "run"
    trainer = Trainer(recipe(average=KEEP), folder, [StopAt(1, 2)], progress=False)
    held = []
    monkeypatch.setattr(behind, "start", lambda place, work: held.append(work))
    assert trainer.fit().interrupted and len(held) == 1
    for model in (trainer.model, trainer.average.module):
        for parameter in model.parameters():
            parameter.zero_()
    held[0]()
    Trainer.resume(folder, progress=False).fit()
    assert_same_training(averaged[0], folder)


def test_the_best_epoch_is_chosen_and_tested_with_its_average(tmp_path):
    """Held out images choose; the best epoch is not the last, so its weights come from the file."""
    setting = recipe(average=0.5, validation=30, epochs=3, lr=0.5, schedule="constant")
    for seed in range(20):
        trainer = Trainer(setting.replace(seed=seed), tmp_path / str(seed), progress=False)
        history = trainer.fit()
        if history.summary["best_epoch"] < 3:
            break
    else:
        raise AssertionError("the last epoch was the best with every seed")
    last = trainer.average.module.state_dict()
    best = load_model(tmp_path / str(seed))
    assert evaluate(best, trainer.data.test).loss == history.summary["test_loss"]
    assert evaluate(trainer.evaluated, trainer.data.test).loss != history.summary["test_loss"]
    kept = checkpoints.load(tmp_path / str(seed) / "last.safetensors").weights
    assert all(kept[name].tobytes() == last[name].tobytes() for name in kept)


def test_without_files_the_best_is_the_average_too():
    trainer = Trainer(recipe(average=KEEP, epochs=2), False, progress=False)
    trainer.fit()
    assert trainer.position.best.epoch > 0
    if trainer.position.best.epoch == 2:
        for name, value in trainer.average.module.state_dict().items():
            assert trainer.best_weights[name].tobytes() == value.tobytes()


def test_a_skipped_step_is_no_step_of_the_average(tmp_path, monkeypatch):
    from attnnet.training import step

    calls = []
    real = step.first_bad_gradient

    def sometimes(model):
        calls.append(None)
        return "a layer" if len(calls) == 3 else real(model)

    monkeypatch.setattr(step, "first_bad_gradient", sometimes)
    trainer = Trainer(
        recipe(average=KEEP, epochs=1, warmup_epochs=0.5, nan="continue"),
        tmp_path,
        [Messages()],
        progress=False,
    )
    history = trainer.fit()
    assert history[0]["skipped"] == 1 and trainer.average.n_averaged == 6


def test_checkpoints_that_lack_the_trained_weights_are_refused(averaged, tmp_path):
    for change in ("none", "count", "weights", "name"):
        broken = checkpoints.load(averaged[0])
        if change == "none":
            del broken.meta["average"]
        elif change == "count":
            text = json.dumps(broken.meta["average"]).replace('averaged", 28', 'averaged", -1')
            broken.meta["average"] = json.loads(text)
        elif change == "name":
            text = json.dumps(broken.meta["average"]).replace('["conv.weight"', '["conv.weights"')
            broken.meta["average"] = json.loads(text)
        else:
            broken.optimizer = {
                k: v for k, v in broken.optimizer.items() if k != "average.trained.conv.weight"
            }
        path = tmp_path / f"{change}.safetensors"
        checkpoints.save(path, broken)
        with pytest.raises(CheckpointError, match=rf"{change}.safetensors: .*averaged weights"):
            Trainer.resume(path, tmp_path / change, progress=False).fit()


def test_the_log_says_so(tmp_path, capsys):
    Trainer(recipe(average=KEEP, decay_norms=False, epochs=2), tmp_path, progress="lines").fit()
    assert "weight decay 0.0005 (none of norms and biases), weights averaged (0.8)" in (
        capsys.readouterr().out
    )


def test_more_epochs_with_files_elsewhere(averaged, tmp_path):
    """Two and two epochs are four, in another folder, where the schedule's length is fixed."""
    setting = recipe(average=KEEP, schedule_epochs=4)
    first = Trainer(setting, tmp_path / "a", progress=False).fit(stop_after=2)
    assert len(first) == 2
    second = Trainer.resume(tmp_path / "a", tmp_path / "b", progress=False).fit()
    assert rows_without_times(second) == rows_without_times(averaged[1].history)
