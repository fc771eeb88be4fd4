"""The checkpoint of a training that was interrupted in a notebook, written behind its back."""

import os
import subprocess
import sys
import threading

import pytest
from reference import processes

import attnnet
from attnnet.errors import CheckpointError
from attnnet.training import Trainer, behind, checkpoint, keeping
from training.tiny import Messages, StopAt, recipe


@pytest.fixture
def slow(monkeypatch):
    """A notebook, and a disk that waits until the returned event is set (or ten seconds)."""
    ready = threading.Event()
    fsync = os.fsync

    def wait(fd):
        if threading.current_thread() is not threading.main_thread():
            ready.wait(10)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", wait)
    monkeypatch.setattr(keeping, "in_notebook", lambda: True)
    yield ready
    ready.set()


def weights(folder):
    return {k: v.tobytes() for k, v in checkpoint.load(folder).weights.items()}


def test_fit_returns_before_the_disk_has_it_and_all_that_follows_waits(slow, tmp_path):
    Trainer(recipe(), tmp_path / "straight", progress=False).fit()
    folder, messages = tmp_path / "run", Messages()
    trainer = Trainer(recipe(), folder, [StopAt(1, 3), messages], progress=False)
    assert trainer.fit().interrupted
    here = trainer.model.state_dict()
    assert checkpoint.file_of(str(tmp_path / "straight"))  # another folder does not wait
    first = checkpoint.read_safetensors(folder / "last.safetensors")[0]
    assert (first["linear.weight"] != here["linear.weight"]).any()  # of the epoch before
    for parameter in trainer.model.parameters():  # what is written is a copy
        parameter.zero_()
    threading.Timer(0.2, slow.set).start()
    there = checkpoint.load(folder).weights
    assert all((there[name] == here[name]).all() for name in here)
    assert messages.lines[-1] == f"checkpoint: {folder / 'last.safetensors'}"
    assert not [name for name in os.listdir(folder) if name.endswith((".tmp", ".lock"))]
    assert not Trainer.resume(folder, progress=False).fit().interrupted
    assert weights(folder) == weights(tmp_path / "straight")


@pytest.mark.parametrize("how", ["fit", "resume", "train", "load", "begin"])
def test_it_is_waited_for(slow, tmp_path, how):
    """The first checkpoint of a training: before it is written there is nothing in the folder."""
    folder = tmp_path / "run"
    trainer = Trainer(recipe(epochs=2), folder, [StopAt(0, 3)], progress=False)
    assert trainer.fit().interrupted and not (folder / "last.safetensors").exists()
    threading.Timer(0.2, slow.set).start()
    if how == "fit":
        assert not trainer.fit().interrupted
    elif how == "resume":
        assert Trainer.resume(os.path.relpath(folder), progress=False).prepare() is None
    elif how == "train":
        assert len(attnnet.train(recipe(epochs=2), folder, progress=False)) == 2
    elif how == "load":
        assert attnnet.load(folder).class_names
    else:
        with pytest.raises(CheckpointError, match="holds a training already"):
            Trainer(recipe(), folder)


def test_a_full_disk_is_said_and_raised_once(slow, tmp_path, monkeypatch):
    messages = Messages()
    trainer = Trainer(recipe(epochs=2), tmp_path, [StopAt(0, 3), messages], progress=False)
    fsync = os.fsync

    def full(fd):
        if threading.current_thread() is not threading.main_thread():
            raise OSError(28, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)
    assert trainer.fit().interrupted
    with pytest.raises(CheckpointError, match="No space left on device"):
        trainer.fit()
    assert any("No space left on device" in line for line in messages.lines)
    trainer.callbacks.callbacks.clear()
    assert not trainer.fit().interrupted and trainer.epoch == 2  # nothing is lost in memory


def test_the_end_of_the_process_waits(tmp_path):
    """A kernel that ends in order, just after the interruption."""
    code = f"""
import os, sys, threading, time
sys.path[:0] = {sys.path!r}
from attnnet.training import Trainer, keeping
from training.tiny import StopAt, recipe
keeping.in_notebook = lambda: True
fsync = os.fsync
def slow(fd):
    if threading.current_thread() is not threading.main_thread():
        time.sleep(3)
    fsync(fd)
os.fsync = slow
Trainer(recipe(), {str(tmp_path)!r}, [StopAt(0, 2)], progress=False).fit()
print(os.path.exists({str(tmp_path / "last.safetensors")!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=processes.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "False\n", done.stdout + done.stderr
    assert checkpoint.load(tmp_path).meta["position"]["batch"] == 3


def test_pieces_for_one_folder_follow_each_other(tmp_path):
    order, go = [], threading.Event()

    def first():
        go.wait(10)
        order.append(1)

    behind.start(str(tmp_path), first)
    behind.when_written(str(tmp_path), lambda: order.append("then"))
    threading.Timer(0.1, go.set).start()
    behind.start(str(tmp_path), lambda: order.append(2))
    behind.wait(tmp_path / "a file in it")
    assert order == [1, "then", 2]
    behind.when_written(str(tmp_path), lambda: order.append("now"))
    assert order[-1] == "now" and not behind._writings
