"""One training a folder: locks, leftovers, room, folders that cannot be written to."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest
from reference import processes

from attnnet.errors import CheckpointError
from attnnet.training import folder as folders
from attnnet.training import lock
from attnnet.training.folder import LOCK, RunFolder, fresh_folder


def test_fresh_names_never_exist(tmp_path):
    parent = str(tmp_path / "runs")
    first = fresh_folder("a", parent)
    os.makedirs(first)
    second = fresh_folder("a", parent)
    os.makedirs(second)
    assert [os.path.basename(p) for p in (first, second, fresh_folder("a", parent))] == [
        "a", "a-2", "a-3",
    ]  # fmt: skip


def test_the_second_training_is_refused_and_told_by_whom(tmp_path):
    first, second = RunFolder(str(tmp_path)), RunFolder(str(tmp_path))
    first.open()
    with pytest.raises(CheckpointError, match=f"another training.*process {os.getpid()}"):
        second.open()
    first.close()
    second.open()
    second.close()
    assert not (tmp_path / LOCK).exists()


def test_another_process_is_refused_until_the_first_is_killed(tmp_path):
    code = f"""
        import sys, time
        from attnnet.training.folder import RunFolder
        RunFolder({str(tmp_path)!r}).open()
        print("locked", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=processes.neutral_folder(),
        env=processes.environment(),
    )
    try:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(CheckpointError, match=f"process {process.pid}"):
            RunFolder(str(tmp_path)).open()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert (tmp_path / LOCK).exists(), "the killed process left its lock file"
    mine = RunFolder(str(tmp_path))
    mine.open()
    mine.close()


@pytest.fixture
def no_flock(monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(fd, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_flock")
def test_without_flock_the_process_number_decides(tmp_path):
    def leave(**owner):
        (tmp_path / LOCK).write_text(json.dumps(owner))

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host, me = socket.gethostname(), os.getpid()
    for stale in (
        {"pid": dead.pid, "host": host, "started": "1"},
        {"pid": me, "host": host, "started": "another start"},  # the number was given out again
        {"pid": "x"},
        {},
    ):
        leave(**stale)
        run = RunFolder(str(tmp_path))
        run.open()
        run.close()
    for alive in (
        {"pid": me, "host": host, "started": lock._started(me)},
        {"pid": 1, "host": "elsewhere", "started": "1"},
    ):
        leave(**alive)
        with pytest.raises(CheckpointError, match="another training"):
            RunFolder(str(tmp_path)).open()


def test_half_written_files_of_a_killed_training_are_removed(tmp_path):
    left = tmp_path / ".last.safetensors.123.0.tmp"
    left.write_bytes(b"half")
    kept = tmp_path / "notes.tmp"
    kept.write_bytes(b"mine")
    run = RunFolder(str(tmp_path))
    run.open()
    assert not left.exists() and kept.exists()
    run.close()


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write to the folder .*file/x"):
        RunFolder(str(tmp_path / "file" / "x")).open()

    def refuse(path, content, also=()):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folders, "write_atomically", refuse)
    run = RunFolder(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"cannot write to the folder .*Read-only"):
        run.open()
    monkeypatch.undo()
    run.open()
    run.close()


def test_room_on_the_disk(tmp_path, monkeypatch):
    run = RunFolder(str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10 << 20))
    run.require_room(5 << 20)
    with pytest.raises(CheckpointError, match="has 10 MiB free; the checkpoints need 12 MiB"):
        run.require_room(6 << 20)


def test_a_lock_that_could_not_be_written_can_be_taken_later(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lock, "_write_owner", full)
        with pytest.raises(OSError, match="No space left"):
            lock.FolderLock(str(tmp_path), "a.lock", "training")
    lock.FolderLock(str(tmp_path), "a.lock", "training").release()
