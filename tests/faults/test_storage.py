"""Disks that are full, folders that vanish or change hands while a training runs."""

import errno
import os
import shutil
import sys

import pytest

from attnnet.data import image_folder
from attnnet.errors import CheckpointError, DataError
from attnnet.training import Callback, Trainer
from attnnet.training.files import TEMPORARY

from . import runs
from .storage import broken


class At(Callback):
    """Does something once, after one step."""

    def __init__(self, epoch, batch, act):
        self.place, self.act = (epoch, batch), act

    def on_batch_end(self, trainer, result):
        if (result.epoch, result.batch) == self.place:
            self.act()


@pytest.fixture(scope="module")
def expected():
    runs.images()
    return runs.straight()


def test_a_disk_that_is_full_from_any_moment_on(tmp_path, expected):
    """Every operation on files from the n-th on fails. The training says so, what was there loads,
    and once there is room it goes on, in the same process or a new one, with the same bits."""
    counted = []
    with broken(lambda count, name: counted.append(name)):
        runs.trainer(tmp_path / "count").fit()
    # Of the many writes of a checkpoint's arrays every one is like the next.
    numbers = [n for n, name in enumerate(counted, 1) if name != "write" or n % 29 == 0]
    assert {"open", "write", "fsync", "replace", "link"} <= {counted[n - 1] for n in numbers}
    for turn, number in enumerate(numbers[:: max(1, len(numbers) // 40)]):
        folder = tmp_path / f"full-{number}"

        def full(count, name, number=number):
            if count >= number and name != "link":  # where links fail, the file is copied
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        one = runs.trainer(folder)
        with broken(full), pytest.raises(CheckpointError, match="No space left on device"):
            one.fit()
        runs.check(folder, expected)
        assert not [name for name in os.listdir(folder) if TEMPORARY in name], number
        again = one if turn % 2 else runs.trainer(folder)
        with broken(lambda count, name: None):
            again.fit()
        runs.check_end(folder, expected)


def test_a_limit_on_the_size_of_files(tmp_path, expected):
    """The kernel refuses: checkpoints of one size fit, and the history grows beyond the limit."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def little():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    one = runs.trainer(tmp_path / "run", At(1, 2, little))
    try:
        with pytest.raises(CheckpointError, match="File too large; the checkpoint that was there"):
            one.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert runs.check(tmp_path / "run", expected) == "1/2"
    runs.trainer(tmp_path / "run").fit()
    runs.check_end(tmp_path / "run", expected)


def test_a_folder_that_is_removed_while_it_is_written_to(tmp_path, expected):
    run = tmp_path / "run"
    one = runs.trainer(run, At(1, 2, lambda: shutil.rmtree(run)))
    with pytest.raises(CheckpointError, match=r"the folder .*run is gone"):
        one.fit()
    assert not run.exists()
    one.fit()  # nothing is lost: what is in memory is whole
    runs.check_end(run, expected)


def test_a_folder_that_another_training_took_meanwhile(tmp_path, expected):
    """Somebody removes the folder and starts another training under the same name: it is theirs."""
    run, others = tmp_path / "run", []

    def take():
        shutil.rmtree(run)
        others.append(runs.trainer(run))
        others[0].run_folder.open()

    one = runs.trainer(run, At(1, 2, take))
    with pytest.raises(CheckpointError, match="another training is using the folder"):
        one.fit()
    assert os.listdir(run) == ["train.lock"], "nothing was written into the other's folder"
    others[0].run_folder.close()


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors", "recipe.json",
                                  "history.json", "history.csv"])  # fmt: skip
def test_a_file_that_is_removed_while_it_runs(tmp_path, expected, name):
    run = tmp_path / "run"
    runs.trainer(run, At(1, 2, lambda: os.unlink(run / name))).fit()
    assert runs.check(run, expected) == "3/0"
    assert (run / name).exists() or name in ("recipe.json", "best.safetensors")


def test_the_second_training_is_refused_and_the_first_undisturbed(tmp_path, expected):
    run, messages = tmp_path / "run", []

    def second():
        anew = Trainer(runs.RECIPE, run, progress=False, data=runs.images(), overwrite=True)
        for other in (runs.trainer(run), anew):
            with pytest.raises(CheckpointError, match="another training is using the folder") as e:
                other.fit()
            messages.append(str(e.value))

    runs.trainer(run, At(1, 2, second)).fit()
    assert len(messages) == 2 and f"process {os.getpid()}" in messages[0]
    runs.check_end(run, expected)


def test_a_picture_that_is_removed_between_listing_and_reading(tmp_path, monkeypatch):
    from PIL import Image

    for split in ("a", "b"):
        (tmp_path / split).mkdir()
        for i in range(3):
            Image.new("RGB", (4, 4)).save(tmp_path / split / f"{i}.png")
    listed = image_folder._files

    def files(folder):
        found = listed(folder)
        if folder.name == "b":
            os.unlink(found[1])
        return found

    monkeypatch.setattr(image_folder, "_files", files)
    with pytest.raises(DataError, match=r"b.1\.png: no such file"):
        image_folder.load_folder(tmp_path)


@pytest.mark.parametrize("step", [-10 * 365 * 86400, 86400])
def test_a_clock_that_jumps(tmp_path, expected, monkeypatch, step):
    """The time of day is not asked: intervals come from a clock that cannot be set."""
    import time

    from attnnet.training import History

    real = time.time
    monkeypatch.setattr(time, "time", real)

    def jump():
        monkeypatch.setattr(time, "time", lambda: real() + step)

    runs.trainer(tmp_path / "run", At(1, 2, jump)).fit()
    runs.check_end(tmp_path / "run", expected)
    for row in History.from_json(tmp_path / "run" / "history.json"):
        assert 0 <= row["seconds"] < 600 and row["images_per_second"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="times of files are set")
def test_times_of_files_decide_nothing(tmp_path, expected):
    """A checkpoint from the future, as after a clock was set back, is still the last one."""
    run = tmp_path / "run"
    runs.trainer(run).fit(stop_after=1)
    for name in os.listdir(run):
        os.utime(run / name, (2**32, 2**32))
    runs.trainer(run).fit()
    runs.check_end(run, expected)
