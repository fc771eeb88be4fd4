"""One training in several processes, started by an MPI launcher as a user would."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from reference import processes

from attnnet.errors import RankError
from attnnet.training import Trainer, ranks
from training import tiny

TESTS = str(pathlib.Path(__file__).parents[1])
NEAR = os.path.join(os.path.dirname(sys.executable), "mpiexec")  # that of the wheel `mpich`
LAUNCHER = NEAR if os.path.exists(NEAR) else shutil.which("mpiexec")
# Of the way the weights went. Between two instruction sets it can be as much: rounding decides on
# which side of 0 an activation falls, and a batch norm over few values makes the most of it.
# Another dropout or another mean make it 0.4 and more.
NOISE = 0.05


@pytest.fixture
def mpi():
    """Skips where there is no MPI."""
    pytest.importorskip("mpi4py", reason="training in several processes (attnnet[mpi])")
    if LAUNCHER is None:
        pytest.skip("no mpiexec: the package mpich brings one")


def words(count, *command):
    return [LAUNCHER, "-n", str(count), *command] if count > 1 else list(command)


def environment():
    return processes.environment(PYTHONPATH=os.pathsep.join([TESTS, processes.HOME, *sys.path]))


def launch(count, job, folder, expect=0):
    """Runs a job (see mpi_job.py) in so many processes -> what it printed, each rank's results."""
    folder.mkdir(exist_ok=True, parents=True)
    script = os.path.join(TESTS, "training", "mpi_job.py")
    command = words(count, sys.executable, script, json.dumps({**job, "results": str(folder)}))
    done = subprocess.run(
        command, env=environment(), cwd=folder, capture_output=True, text=True, timeout=1200
    )
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == (expect == 0), said
    files = sorted(folder.glob("*.json"))
    return said, [json.loads(file.read_text()) for file in files]


def off(folder, reference):
    """How far the weights of one training are from those of another, beside the way they went."""

    def flat(path):
        with np.load(path) as arrays:
            names = [name for name in arrays.files if name.endswith(("weight", "bias"))]
            return np.concatenate([arrays[name].ravel().astype(np.float64) for name in names])

    expected = flat(reference / "after.npz")
    way = np.linalg.norm(expected - flat(reference / "before.npz"))
    return np.linalg.norm(flat(folder / "after.npz") - expected) / way


ONE_EPOCH = {"epochs": 1, "warmup_epochs": 0.0}
NETWORKS = {
    "resnet18": {
        "recipe": {"arch": "resnet18", "block": "NEW_12", "lr": 0.001},
        "side": 16,
    },
    "vgg11": {
        "recipe": {"arch": "vgg11", "block": "CBAM_1+SE_4", "lr": 0.001},
        "side": 32,
    },
}  # fmt: skip


# Two steps of 11 images, in unequal parts; one of 3, of which one rank of four gets none.
@pytest.mark.parametrize("train", [22, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_result_equals_one_process(mpi, tmp_path, name, train):
    job = {**NETWORKS[name], "train": train}
    job["recipe"] = {**ONE_EPOCH, "batch_size": 11, "schedule": "constant", **job["recipe"]}
    _, (alone,) = launch(1, job, tmp_path / "1")
    for count in (2, 4):
        said, results = launch(count, job, tmp_path / str(count))
        assert [result["size"] for result in results] == [count] * count
        assert all(result["crc"] == results[0]["crc"] for result in results)
        assert off(tmp_path / str(count), tmp_path / "1") <= NOISE
        row, expected = results[0]["rows"][0], alone["rows"][0]
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)
        assert abs(row["train_top1"] - expected["train_top1"]) <= 101 / train  # one at the border
        assert said.count("epoch 1/1") == 1  # one speaks for all
        assert f"{count} processes" in said


def test_evaluation_is_that_of_one_process_to_the_bit(mpi, tmp_path):
    job = {"test": 700, "recipe": ONE_EPOCH}  # three batches: one for each, of four none
    _, (alone,) = launch(1, job, tmp_path / "1")
    for count in (2, 4):
        _, results = launch(count, job, tmp_path / str(count))
        for result in results:
            assert result["evaluation"] == alone["evaluation"]


def test_as_many_ranks_give_the_same_bits(mpi, tmp_path):
    job = {"recipe": {"epochs": 2}}
    _, first = launch(4, job, tmp_path / "first")
    _, again = launch(4, job, tmp_path / "again")
    assert first[0]["crc"] == again[0]["crc"]
    assert all(result["crc"] == first[0]["crc"] for result in first)


def test_each_takes_its_share_of_the_cores(mpi, tmp_path):
    cores = len(os.sched_getaffinity(0))
    _, results = launch(2, {"recipe": ONE_EPOCH}, tmp_path)
    assert [result["threads"] for result in results] == [max(1, cores // 2)] * 2


def test_a_signal_to_one_stops_all_and_resume_goes_on(mpi, tmp_path):
    job = {"recipe": {"epochs": 2}, "output": str(tmp_path / "run")}
    trouble = {"rank": 1, "step": 1, "what": "terminate"}
    launch(2, {**job, "output": False}, tmp_path / "whole")
    said, results = launch(2, {**job, "trouble": trouble}, tmp_path / "stopped")
    assert [result["interrupted"] for result in results] == [True, True]
    assert "interrupted in epoch 1, after 2 of 4 steps" in said
    assert "to go on: attnnet.Trainer.resume(" in said, "no command could name the arrays"
    for count in (2, 4, 1):
        copy = tmp_path / f"run{count}"
        shutil.copytree(tmp_path / "run", copy)
        launch(count, {"resume": str(copy)}, tmp_path / str(count))
    whole, resumed = ((tmp_path / name / "after.npz").read_bytes() for name in ("whole", "2"))
    assert whole == resumed
    for count in (4, 1):
        assert off(tmp_path / str(count), tmp_path / "whole") <= NOISE


@pytest.mark.parametrize("trouble", ["fail", "kill"])
def test_an_error_in_one_ends_all(mpi, tmp_path, trouble):
    said, results = launch(
        2, {"trouble": {"rank": 1, "step": 2, "what": trouble}}, tmp_path, expect=1
    )
    assert not results
    if trouble == "fail":
        assert "rank 1 of 2" in said and "ZeroDivisionError: made up" in said


def test_a_nan_in_one_ends_all(mpi, tmp_path):
    job = {"trouble": {"rank": 1, "step": 2, "what": "nan"}, "recipe": {"nan": "continue"}}
    said, results = launch(2, job, tmp_path, expect=1)
    assert not results
    assert "the loss is NaN at epoch 1, step 3" in said and "the first is conv.weight" in said


def test_weights_that_came_apart_are_found(mpi, tmp_path):
    said, _ = launch(4, {"trouble": {"rank": 2, "step": 1, "what": "change"}}, tmp_path, expect=1)
    assert "the weights of rank 2 are no longer those of rank 0" in said


def test_different_trainings_are_refused(mpi, tmp_path):
    said, _ = launch(2, {"each": {"1": {"recipe": {"lr": 0.5}}}}, tmp_path / "lr", expect=1)
    assert "the recipe of rank 1 differs from that of rank 0" in said
    said, _ = launch(2, {"each": {"1": {"train": 60}}}, tmp_path / "data", expect=1)
    assert "the training data of rank 1 differs from that of rank 0" in said


def test_what_the_first_alone_sees_ends_all(mpi, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.safetensors").write_bytes(b"")
    said, results = launch(2, {"output": str(tmp_path / "run")}, tmp_path / "results", expect=1)
    assert "holds a training already" in said and not results


def command_line(count, *arguments, **options):
    command = words(count, sys.executable, "-m", "attnnet", "train", *arguments)
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        **options,
    )  # fmt: skip


SMALL = ("--limit-train", "96", "--limit-test", "32", "--batch-size", "24", "--epochs", "1",
         "--no-progress")  # fmt: skip


def test_the_command_line_can_be_interrupted(mpi, tmp_path):
    version = subprocess.run([LAUNCHER, "--version"], capture_output=True, text=True).stdout
    if "HYDRA" not in version:
        pytest.skip("this mpiexec ends its processes on Ctrl-C, instead of handing it on")
    output = tmp_path / "run"
    arguments = (*SMALL, "--checkpoint-every", "1", "--output", str(output))
    process = command_line(2, *arguments, "--epochs", "50", cwd=tmp_path)
    try:
        end = time.monotonic() + 900
        while not (output / "last.safetensors").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)  # as Ctrl-C does; the launcher hands it on
        said, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert said.count("to go on: mpiexec -n 2 attnnet train --resume") == 1, said


def test_the_command_line_says_errors_once(mpi, tmp_path):
    process = command_line(2, *SMALL, "--arch", "vgg11", "--block", "NEW_9",
                           cwd=tmp_path)  # fmt: skip
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 2, said
    assert len(re.findall("error: ", said)) == 1, said


@pytest.mark.parametrize(("variables", "size"), [
    ({}, 1), ({"OMPI_COMM_WORLD_SIZE": "3"}, 3), ({"PMI_SIZE": "2"}, 2), ({"PMI_SIZE": "x"}, 1),
    ({"SLURM_STEP_NUM_TASKS": "4"}, 1), ({"SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "0"}, 4),
])  # fmt: skip
def test_how_many_were_launched(monkeypatch, variables, size):
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ranks.launched() == size


def test_several_without_mpi4py_are_refused(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install attnnet[mpi]")):
        Trainer(tiny.recipe(), False)
    Trainer(tiny.recipe(), False, distributed=False)


def test_a_launcher_of_another_library_is_noticed(mpi, tmp_path):
    code = ("import attnnet; from attnnet.errors import RankError\n"
            "try: attnnet.Trainer(None, False)\n"
            "except RankError as error: print(error)")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env=environment() | {"MV2_COMM_WORLD_SIZE": "2"},
    )  # fmt: skip
    assert "2 processes were started together, but mpi4py sees 1" in done.stdout, done.stderr
    assert issubclass(RankError, RuntimeError)
