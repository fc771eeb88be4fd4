"""TensorBoard and Weights & Biases: what they get, and what is said where they are missing."""

import sys
import types

import pytest

from attnnet.training import TensorBoard, Trainer, WandB

from .tiny import recipe


def test_tensorboard_reads_back_the_history(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    history = Trainer(recipe(epochs=2), tmp_path, [TensorBoard()], progress=False).fit()
    (file,) = (tmp_path / "tensorboard").iterdir()
    values = {}
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            got = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
            values[event.step, value.tag] = got
    for row in history:
        for tag, name in (("train/loss", "train_loss"), ("test/top1", "test_top1"), ("lr", "lr")):
            assert abs(values[row["epoch"], tag] - row[name]) <= 1e-6 * abs(row[name])


def test_wandb_offline_writes_its_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    callback = WandB(mode="offline")
    Trainer(recipe(epochs=1, warmup_epochs=0.5), tmp_path, [callback], progress=False).fit()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


@pytest.fixture
def fake_wandb(monkeypatch):
    """A module that keeps what it is given."""
    module = types.ModuleType("wandb")
    module.logged, module.options, module.summary, module.finished = [], {}, {}, 0

    def finish():
        module.finished += 1

    def init(**options):
        module.options = options
        log = lambda values, step: module.logged.append((step, values))  # noqa: E731
        return types.SimpleNamespace(log=log, summary=module.summary, finish=finish)

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_recipe_rows_and_summary(tmp_path, fake_wandb):
    callback = WandB(project="mine", mode="offline")
    history = Trainer(recipe(epochs=2), tmp_path, [callback], progress=False).fit()
    assert fake_wandb.options["config"] == recipe(epochs=2).to_dict()
    assert fake_wandb.options["project"] == "mine" and fake_wandb.options["mode"] == "offline"
    assert [step for step, _ in fake_wandb.logged] == [1, 2]
    assert fake_wandb.logged[0][1]["test_top1"] == history[0]["test_top1"]
    assert fake_wandb.summary == history.summary and fake_wandb.finished == 1


def test_missing_packages_say_how_to_get_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat", None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(ModuleNotFoundError, match="pip install wandb"):
        WandB()
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        TensorBoard()
    with pytest.raises(ValueError, match="Did you mean 'offline'"):
        WandB(mode="ofline")
