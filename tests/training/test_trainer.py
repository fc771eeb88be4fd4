"""The trainer: learns, resumes bit for bit, ends in order, writes what it says."""

import csv
import json
import os
import signal
import threading

import numpy as np
import pytest

import attnnet
from attnnet.data import load
from attnnet.errors import CheckpointError, DataError
from attnnet.training import Callback, History, Recipe, Trainer, evaluate, load_model
from attnnet.training import checkpoint as checkpoints
from attnnet.training.callbacks import CallbackList

from . import tiny
from .tiny import Messages, StopAt, recipe

TIMES = ("seconds", "images_per_second")


def rows_without_times(history):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in history]


def assert_same_training(a, b):
    """Two checkpoints hold the same bits: weights, statistics, momentum, random state, history."""
    one, two = checkpoints.load(a), checkpoints.load(b)
    for part in ("weights", "optimizer"):
        first, second = getattr(one, part), getattr(two, part)
        assert list(first) == list(second)
        for name in first:
            assert first[name].tobytes() == second[name].tobytes(), f"{part}: {name}"
    for key in ("epoch", "batch", "random", "best"):
        assert one.meta["position"][key] == two.meta["position"][key], key
    assert rows_without_times(one.meta["history"]) == rows_without_times(two.meta["history"])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The folder of a training without any interruption, and its history."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, Trainer(recipe(), folder, progress=False).fit()


def test_it_learns_and_writes_everything(straight):
    folder, history = straight
    assert len(history) == 4 and not history.interrupted
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    names = {"last", "best"}
    assert {f"{n}.safetensors" for n in names} <= set(os.listdir(folder))
    assert not [n for n in os.listdir(folder) if n.endswith((".tmp", ".lock"))]
    with open(folder / "history.csv", newline="") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]
    saved = json.loads((folder / "history.json").read_text())
    assert saved["summary"]["best_epoch"] == history.summary["best_epoch"]
    assert Recipe.from_file(folder / "recipe.json") == recipe()
    assert history.picture == str(folder / "result.png") and os.path.exists(history.picture)
    assert history.checkpoint == str(folder / "best.safetensors")


def test_the_best_checkpoint_has_the_accuracy_that_is_reported(straight):
    folder, history = straight
    top1 = [row["test_top1"] for row in history]
    assert history.summary["best_top1"] == max(top1) == history.summary["test_top1"]
    assert history.summary["best_epoch"] == top1.index(max(top1)) + 1
    model = load_model(folder)
    assert not model.training and len(model.class_names) == 10
    _, test = attnnet.data.load("shapes", train_count=1, test_count=60)
    assert evaluate(model, test).top1 == history.summary["test_top1"]
    assert model.normalization == (test.mean, test.std)


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([(1, 6)], id="between epochs"),
        pytest.param([(2, 0)], id="after the first step of an epoch"),
        pytest.param([(0, 3), (0, 4), (3, 5)], id="three times, twice in one epoch"),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resume_is_bit_for_bit(tmp_path, stops, optimizer):
    setting = recipe(optimizer=optimizer, lr=0.05 if optimizer == "sgd" else 0.003)
    Trainer(setting, tmp_path / "a", progress=False).fit()
    folder = tmp_path / "b"
    trainer = Trainer(setting, folder, [StopAt(*stops[0])], progress=False)
    assert trainer.fit().interrupted
    for stop in stops[1:]:
        attnnet.random.uniform((5,), 0, 1)  # what others draw in between does not matter
        assert Trainer.resume(folder, None, [StopAt(*stop)], progress=False).fit().interrupted
    history = Trainer.resume(folder, progress=False).fit()
    assert not history.interrupted and len(history) == 4
    assert_same_training(tmp_path / "a", folder)
    assert_same_training(tmp_path / "a" / "best.safetensors", folder / "best.safetensors")


def test_two_and_two_epochs_are_four(straight, tmp_path):
    history = Trainer(recipe(), tmp_path, progress=False).fit(stop_after=2)
    assert len(history) == 2 and not history.interrupted
    Trainer.resume(tmp_path, progress=False).fit()
    assert_same_training(straight[0], tmp_path)


def test_fit_again_goes_on_in_memory(straight, tmp_path):
    trainer = Trainer(recipe(), tmp_path, [StopAt(1, 2)], progress=False)
    assert trainer.fit().interrupted
    attnnet.manual_seed(1)
    assert not trainer.fit().interrupted
    assert_same_training(straight[0], tmp_path)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_with_any_number_of_threads(straight, tmp_path, threads):
    before = attnnet.get_num_threads()
    attnnet.set_num_threads(threads)
    try:
        Trainer(recipe(), tmp_path, progress=False).fit()
    finally:
        attnnet.set_num_threads(before)
    assert_same_training(straight[0], tmp_path)


@pytest.mark.parametrize(("arch", "block"), [("resnet18", "NEW_12"), ("vgg11", "CBAM_1+SE_34")])
def test_whole_networks_too(tmp_path, arch, block):
    """Stopped in an epoch and resumed with other threads: the bits of one straight training."""
    setting = recipe(
        arch=arch, block=block, epochs=2, limit_train=24, limit_test=10, batch_size=8, lr=0.02
    )
    before = attnnet.get_num_threads()
    try:
        attnnet.set_num_threads(2)
        Trainer(setting, tmp_path / "a", progress=False).fit()
        attnnet.set_num_threads(1)
        assert Trainer(setting, tmp_path / "b", [StopAt(1, 0)], progress=False).fit().interrupted
        attnnet.set_num_threads(3)
        Trainer.resume(tmp_path / "b", progress=False).fit()
    finally:
        attnnet.set_num_threads(before)
    assert_same_training(tmp_path / "a", tmp_path / "b")


def test_dropout_is_the_networks_own_unless_the_recipe_says(tmp_path):
    for given, expected in ((None, 0.5), (0.0, 0.0)):
        setting = recipe(arch="vgg11", dropout=given, limit_train=8, limit_test=8)
        trainer = Trainer(setting, output=False, progress=False)
        trainer.prepare()
        assert trainer.model.config["dropout"] == expected


def test_another_seed_gives_another_training(straight, tmp_path):
    history = Trainer(recipe(seed=1), tmp_path, progress=False).fit(stop_after=1)
    assert history[0]["train_loss"] != straight[1][0]["train_loss"]


def test_resume_from_a_checkpoint_between(straight, tmp_path):
    trainer = Trainer(recipe(), tmp_path, [StopAt(2, 3)], progress=False, checkpoint_every=2)
    trainer.fit()
    last = tmp_path / "last.safetensors"
    assert checkpoints.load(last).meta["position"]["batch"] == 4
    Trainer.resume(last, tmp_path / "elsewhere", progress=False).fit()
    assert_same_training(straight[0], tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "best.safetensors").exists()


def test_resume_without_files_and_with_more_epochs(tmp_path):
    Trainer(recipe(epochs=2), tmp_path, progress=False).fit()
    before = (tmp_path / "last.safetensors").read_bytes()
    history = Trainer.resume(tmp_path, False, progress=False, epochs=3).fit()
    assert len(history) == 3 and history.folder is None and history.checkpoint is None
    assert history.summary["test_top1"] == history.summary["best_top1"]
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_a_signal_that_comes_too_late_stops_what_follows(straight, tmp_path):
    """Else the loop over trainings that somebody wants to stop would begin the next one."""

    class Send(Callback):
        def on_message(self, trainer, text):
            if text.startswith("checkpoint:"):
                os.kill(os.getpid(), signal.SIGINT)

    history = Trainer(recipe(), tmp_path, [Send()], progress=False).fit()
    assert history.interrupted and history.summary["epochs"] == 4
    assert not History.from_json(tmp_path / "history.json").interrupted
    assert_same_training(straight[0], tmp_path)


def test_a_signal_after_the_last_epoch_leaves_the_rest_for_later(straight, tmp_path):
    class Send(Callback):
        def on_epoch_end(self, trainer, row):
            if row["epoch"] == 4:
                os.kill(os.getpid(), signal.SIGINT)

    messages = Messages()
    history = Trainer(recipe(), tmp_path, [Send(), messages], progress=False).fit()
    assert history.interrupted and not history.summary
    assert messages.lines[-1].startswith("interrupted after the last epoch; to go on: ")
    assert History.from_json(tmp_path / "history.json").interrupted
    assert not Trainer.resume(tmp_path, progress=False).fit().interrupted
    assert_same_training(straight[0], tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_says_how_to_go_on(straight, tmp_path, number):
    class Send(Callback):
        def on_batch_end(self, trainer, result):
            if (result.epoch, result.batch) == (1, 3):
                os.kill(os.getpid(), number)

    messages = Messages()
    before = signal.getsignal(number)
    trainer = Trainer(recipe(), tmp_path, [Send(), messages], progress=False)
    history = trainer.fit()
    assert history.interrupted and trainer.stop_signal == number
    assert signal.getsignal(number) == before
    assert messages.lines[-1] == (
        f"interrupted in epoch 2, after 4 of 7 steps; to go on: attnnet train --resume {tmp_path} "
        "--imports training.tiny"
    )
    Trainer.resume(tmp_path, progress=False).fit()
    assert_same_training(straight[0], tmp_path)


def test_a_step_that_was_broken_off_is_not_gone_on_with_in_memory(straight, tmp_path):
    trainer = Trainer(recipe(), tmp_path, progress=False)
    trainer.fit(stop_after=2)
    step = trainer.optimizer.step

    def interrupted():
        step()
        raise KeyboardInterrupt

    trainer.optimizer.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.optimizer.step = step
    with pytest.raises(CheckpointError, match="broken off in the middle of a step"):
        trainer.fit()
    Trainer.resume(tmp_path, progress=False).fit()
    assert_same_training(straight[0], tmp_path)


def test_a_stop_before_the_first_step_can_be_gone_on_with(straight, tmp_path):
    class StopAtOnce(Callback):
        def on_train_begin(self, trainer):
            trainer.stop()

    assert Trainer(recipe(), tmp_path, [StopAtOnce()], progress=False).fit().interrupted
    assert checkpoints.load(tmp_path).meta["position"]["batch"] == 0
    Trainer.resume(tmp_path, progress=False).fit()
    assert_same_training(straight[0], tmp_path)


def test_a_stop_during_the_evaluation_repeats_only_that(straight, tmp_path):
    class StopInEvaluation(Callback):
        def on_evaluate(self, trainer, done, total):
            if trainer.epoch == 1:
                trainer.stop()

    trainer = Trainer(recipe(), tmp_path, [StopInEvaluation()], progress=False)
    history = trainer.fit()
    assert history.interrupted and len(history) == 1
    assert checkpoints.load(tmp_path).meta["position"]["batch"] == 7
    trainer.callbacks = CallbackList([])  # an old request stops no evaluation
    assert trainer.evaluate(trainer.data.test).images == 60
    Trainer.resume(tmp_path, progress=False).fit()
    assert_same_training(straight[0], tmp_path)


def test_fit_works_in_another_thread(tmp_path):
    result = []
    trainer = Trainer(recipe(epochs=1, warmup_epochs=0.5), tmp_path, progress=False)
    thread = threading.Thread(target=lambda: result.append(trainer.fit()))
    thread.start()
    thread.join()
    assert len(result[0]) == 1


def test_with_a_validation_split_the_test_images_are_looked_at_once(tmp_path):
    messages = Messages()
    seen = []

    class Watch(Callback):
        def on_evaluate(self, trainer, done, total):
            if done == total:
                seen.append(total)

    trainer = Trainer(recipe(validation=20, epochs=3), tmp_path, [messages, Watch()], False)
    history = trainer.fit()
    assert seen == [20, 20, 20, 60]
    assert trainer.train_images == 80 and "test_top1" not in history[0]
    assert history.summary["chosen_on"] == "validation"
    assert history.summary["best_top1"] == max(row["val_top1"] for row in history)
    assert any("chosen on 20 held out images" in line for line in messages.lines)
    _, test = attnnet.data.load("shapes", train_count=1, test_count=60)
    assert evaluate(load_model(tmp_path), test).top1 == history.summary["test_top1"]


def test_without_one_the_log_says_so(straight, tmp_path, capsys):
    Trainer(recipe(epochs=1, warmup_epochs=0.5), tmp_path, progress="lines").fit()
    out = capsys.readouterr().out
    assert "no validation split: the test images choose the best epoch" in out
    assert "best epoch: 1 of 1, chosen on the test images themselves (" in out
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 1 and "images/s" in lines[0]


def test_arrays_and_a_model_of_ones_own(tmp_path):
    from .tiny import Tiny

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 16, 16), np.uint8)
    dataset = attnnet.data.from_arrays(images, np.arange(40) % 2, ["a", "b"], layout="NCHW")
    model = Tiny(2, 1, (16, 16))
    setting = recipe(epochs=2, arch="resnet18", crop_padding=0)
    history = Trainer(setting, tmp_path, data=(dataset, dataset), model=model, progress=False).fit()
    assert len(history) == 2
    back = Trainer.resume(tmp_path, False, data=(dataset, dataset), epochs=3, progress=False)
    assert len(back.fit()) == 3


@pytest.mark.parametrize("place", ["on_batch_end", "on_evaluate"])
def test_after_an_error_of_a_callback_fit_goes_on_to_the_same_bits(straight, place):
    class Broken(Callback):
        calls = 0

        def fail(self, *rest):
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt

    setattr(Broken, place, Broken.fail)
    trainer = Trainer(recipe(), False, [Broken()], progress=False)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    whole = checkpoints.load(straight[0]).weights
    found = trainer.model.state_dict()
    assert all(np.array_equal(whole[name], found[name]) for name in whole)


def test_going_on_into_the_folder_of_another_training_is_refused(straight, tmp_path):
    other = Trainer(recipe(seed=7), tmp_path / "other", progress=False)
    other.fit(stop_after=1)
    before = checkpoints.load(tmp_path / "other").weights
    with pytest.raises(CheckpointError, match="holds a training already"):
        Trainer.resume(straight[0], tmp_path / "other", progress=False)
    after = checkpoints.load(tmp_path / "other").weights
    assert all(np.array_equal(before[name], after[name]) for name in before)
    options = {"overwrite": True, "epochs": 5, "progress": False}
    assert len(Trainer.resume(straight[0], tmp_path / "other", **options).fit()) == 5
    os.symlink(tmp_path / "other", tmp_path / "link")
    again = Trainer.resume(tmp_path / "other", tmp_path / "link", epochs=6, progress=False)
    assert len(again.fit()) == 6


def test_a_model_that_no_registry_knows_must_be_given_again(tmp_path):
    class Own(attnnet.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = {"depth": 1}  # no business of attnnet's
            self.linear = attnnet.nn.Linear(3 * 32 * 32, 10)

        def forward(self, x):
            return self.linear(x.flatten(1))

    Trainer(recipe(), tmp_path, model=Own(), progress=False).fit(stop_after=1)
    with pytest.raises(CheckpointError, match=r"a model of your own \(Own\)"):
        Trainer.resume(tmp_path, progress=False).fit()
    assert len(Trainer.resume(tmp_path, model=Own(), progress=False).fit()) == 4
    with pytest.raises(CheckpointError, match=r"a model of your own \(Own\)"):
        load_model(tmp_path)
    model = Own()
    checkpoints.fill_model(model, checkpoints.load(tmp_path))
    assert model.class_names[0] == "disk"


def test_a_folder_with_a_training_is_not_overwritten(straight):
    with pytest.raises(CheckpointError, match="holds a training already"):
        Trainer(recipe(), straight[0])


def test_two_trainers_made_at_once_do_not_write_over_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setting = recipe(epochs=1, warmup_epochs=0.5)
    unnamed = [Trainer(setting, progress=False) for _ in range(2)]
    assert [trainer.fit().folder for trainer in unnamed] == [
        "runs/tiny-base-shapes", "runs/tiny-base-shapes-2",
    ]  # fmt: skip
    named = [Trainer(setting, "mine", progress=False) for _ in range(2)]
    named[0].fit()
    with pytest.raises(CheckpointError, match="holds a training already"):
        named[1].fit()


def test_overwrite_begins_anew(straight, tmp_path):
    Trainer(recipe(seed=3), tmp_path, progress=False).fit(stop_after=1)
    Trainer(recipe(), tmp_path, progress=False, overwrite=True).fit()
    assert_same_training(straight[0], tmp_path)


def test_nothing_of_what_is_written_over_counts_as_the_new_training_s(tmp_path):
    class Broken(Callback):
        def on_batch_end(self, trainer, result):
            raise RuntimeError

    Trainer(recipe(seed=3), tmp_path, progress=False).fit()
    with pytest.raises(RuntimeError):
        Trainer(recipe(), tmp_path, [Broken()], False, overwrite=True).fit()
    assert sorted(os.listdir(tmp_path)) == ["recipe.json"]
    assert len(attnnet.train(recipe(), tmp_path, progress=False)) == 4
    assert checkpoints.load(tmp_path).meta["recipe"]["seed"] == 42


def test_another_working_directory_changes_no_place(straight, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trainer = Trainer(recipe(), "run", progress=False)
    assert trainer.folder == "run"
    trainer.fit(stop_after=1)
    monkeypatch.chdir(tmp_path / "there")
    history = trainer.fit()
    assert trainer.folder == history.folder == str(tmp_path / "here" / "run")
    assert_same_training(straight[0], tmp_path / "here" / "run")
    assert not os.listdir(tmp_path / "there")


def test_two_trainings_into_one_folder(tmp_path):
    class Second(Callback):
        def on_epoch_begin(self, trainer, epoch):
            with pytest.raises(CheckpointError, match="another training is using the folder"):
                Trainer(recipe(), tmp_path, progress=False, overwrite=True).fit()

    Trainer(recipe(), tmp_path, [Second()], progress=False).fit(stop_after=1)


def test_a_full_disk_ends_with_a_clear_error_and_nothing_lost(straight, tmp_path, monkeypatch):
    trainer = Trainer(recipe(), tmp_path, progress=False)
    trainer.fit(stop_after=2)
    before = (tmp_path / "last.safetensors").read_bytes()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        trainer.fit()
    monkeypatch.setattr(os, "fsync", fsync)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    Trainer.resume(tmp_path, progress=False).fit()
    assert_same_training(straight[0], tmp_path)


def _full_disk(fd):
    raise OSError(28, "No space left on device")


def test_other_images_are_not_gone_on_with(tmp_path):
    Trainer(recipe(), tmp_path, progress=False).fit(stop_after=1)
    train, test = attnnet.data.load("shapes", train_count=100, test_count=60, seed=9)
    with pytest.raises(CheckpointError, match="this training was on other images"):
        Trainer.resume(tmp_path, data=(train, test), progress=False).fit()
    train, test = attnnet.data.load("shapes", train_count=100, test_count=60)
    train.mean = (0.5, 0.5, 0.5)
    with pytest.raises(CheckpointError, match=r"normalised by .* these are by \(\(0.5, 0.5, 0.5\)"):
        Trainer.resume(tmp_path, data=(train, test), progress=False).fit()


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "c", "b"]])
def test_other_classes_of_the_test_images_are_refused_at_once(classes):
    images = np.zeros((6, 3, 32, 32), np.uint8)
    train = attnnet.data.from_arrays(images, np.arange(6) % 3, ["a", "b", "c"])
    test = attnnet.data.from_arrays(images, np.arange(6) % 2, classes)
    with pytest.raises(DataError, match="classes are a, b, c, the test images' a, "):
        Trainer(recipe(), False, data=(train, test), progress=False).prepare()


def test_wrong_callbacks_and_names_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(TypeError, match="inherits from"):
        Trainer(recipe(), tmp_path, [print])
    with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
        Trainer(recipe(arch="resnt18"), tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'cifar100'"):
        Trainer(recipe(dataset="cifr100"), tmp_path)
    with pytest.raises(ValueError, match="CBAM"):
        Trainer(recipe(arch="resnet18", block="CBM_12"), tmp_path)
    with pytest.raises(ValueError, match=r"dropout is 0\.1, but resnet18 has none"):
        Trainer(recipe(arch="resnet18", dropout=0.1), tmp_path)
    with pytest.raises(ValueError, match="stop_after is 0"):
        Trainer(recipe(), tmp_path).fit(stop_after=0)
    with pytest.raises(DataError):
        Trainer(recipe(dataset="folder:/nonexistent"), tmp_path, progress=False).fit()
    assert "last.safetensors" not in os.listdir(tmp_path)


def test_an_error_in_a_callback_ends_the_training_and_frees_the_folder(straight, tmp_path):
    class Fail(Callback):
        ended = False

        def on_epoch_end(self, trainer, row):
            if row["epoch"] == 2:
                raise RuntimeError("mine")

        def on_train_end(self, trainer, history):
            self.ended = history.interrupted

    fail = Fail()
    with pytest.raises(RuntimeError, match="mine"):
        Trainer(recipe(), tmp_path, [fail], progress=False).fit()
    assert fail.ended
    Trainer.resume(tmp_path, progress=False).fit()
    assert_same_training(straight[0], tmp_path)


def test_the_callbacks_see_every_step(tmp_path):
    class Count(Callback):
        def __init__(self):
            self.calls = []

        def on_train_begin(self, trainer):
            self.calls.append("begin")

        def on_epoch_begin(self, trainer, epoch):
            self.calls.append(epoch)

        def on_batch_end(self, trainer, result):
            self.calls.append((result.epoch, result.batch, result.images))

        def on_epoch_end(self, trainer, row):
            self.calls.append(row["epoch"])

        def on_train_end(self, trainer, history):
            self.calls.append("end")

    count = Count()
    Trainer(recipe(epochs=1, warmup_epochs=0.5), tmp_path, [count], progress=False).fit()
    steps = [(0, i, 16) for i in range(6)] + [(0, 6, 4)]
    assert count.calls == ["begin", 0, *steps, 1, "end"]


def test_reports_to_be_gone_on_with_name_the_data(tmp_path):
    trainer = Trainer(recipe(), tmp_path / "a b", data="/some where", progress=False)
    assert trainer.resume_hint() == (
        f"attnnet train --resume '{tmp_path / 'a b'}' --data '/some where'"
    )


def test_what_no_command_could_name_is_gone_on_with_in_python(tmp_path):
    images = load("shapes", train_count=80, test_count=40)
    trainer = Trainer(recipe(), tmp_path, data=images, progress=False)
    assert trainer.resume_hint() == f"attnnet.Trainer.resume({str(tmp_path)!r}, data=data).fit()"
    trainer.fit(stop_after=1)
    again = Trainer.resume(tmp_path, data=images, model=tiny.Tiny(10, 3, (32, 32)), progress=False)
    assert again.resume_hint().endswith(", model=model, data=data).fit()")
    assert len(again.fit()) > 1
