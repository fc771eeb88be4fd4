"""Studies on a real Dask scheduler and worker processes, of which one is killed in the middle."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from reference import processes

from attnnet import cores
from attnnet.errors import CheckpointError
from attnnet.study import cluster, run
from attnnet.study.board import Board
from attnnet.study.cluster import Cluster, connect
from attnnet.study.folder import StudyFolder
from study.small import plan
from study.test_run import figures, running_workers, tasks, wait_for

distributed = pytest.importorskip("distributed", reason="the cluster (attnnet[cluster])")
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler, a process of its own on the loopback interface."""
    with scheduling(tmp_path_factory.mktemp("dask")) as (address, _):
        yield address


@contextlib.contextmanager
def scheduling(folder):
    """A scheduler's address and process."""
    file = folder / "scheduler.json"
    words = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
             "--scheduler-file", str(file)]  # fmt: skip
    with dask(words, folder) as process:
        end = time.monotonic() + 60
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], process


@contextlib.contextmanager
def dask(words, folder, **more):
    path = os.pathsep.join([TESTS, processes.HOME, *filter(None, sys.path)])
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words], stdout=log, stderr=log, cwd=folder,
            env=processes.environment(PYTHONPATH=path, **more), start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@contextlib.contextmanager
def workers(scheduler, folder, count):
    """So many worker processes by the names that they have at the scheduler."""
    with contextlib.ExitStack() as stack:
        found = {}
        for i in range(count):
            words = [
                "worker", scheduler, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny",
                "--no-dashboard", "--name", f"w{i}", "--local-directory", str(folder),
            ]  # fmt: skip
            found[f"w{i}"] = stack.enter_context(dask(words, folder))
        yield found


def test_a_killed_worker_loses_nothing_and_no_run_is_done_twice(scheduler, tmp_path):
    of = plan(recipe={**plan().changes, "epochs": 80})
    home = StudyFolder(tmp_path / "s")
    home.open(of)
    home.book(of, "test")
    events, killed = [], []
    with workers(scheduler, tmp_path, 2) as processes_of, connect(scheduler) as client:
        client.wait_for_workers(2, timeout=60)
        names = {a: facts["name"] for a, facts in client.scheduler_info()["workers"].items()}

        def event(name, word):
            events.append((name, dict(word)))
            if word["event"] == "progress" and 3 <= word["epochs"] < 70 and not killed:
                processes_of[names[word["worker"]]].send_signal(signal.SIGKILL)
                killed.append((name, word["worker"]))

        runs = Cluster(tasks(tmp_path / "s", of), event, client)
        runs.check(str(tmp_path / "s"))
        assert runs.run()
    ((victim, dead),) = killed
    starts = [(name, word["worker"]) for name, word in events if word["event"] == "start"]
    assert len(starts) == 5 and len({name for name, _ in starts}) == 4, starts
    assert starts.count((victim, dead)) == 1
    assert any(name == victim and worker != dead for name, worker in starts)
    ends = [name for name, word in events if word["event"] == "end"]
    assert sorted(ends) == sorted(one.name for one in of.runs)
    log = Path(home.of(next(one for one in of.runs if one.name == victim), "log.txt")).read_text()
    assert "goes on at epoch" in log and "goes on at epoch 1," not in log
    home.close()
    run(of, tmp_path / "straight", 0, progress=False)
    assert figures(tmp_path / "s", of) == figures(tmp_path / "straight", of)


def test_interrupted_it_goes_on(scheduler, tmp_path, monkeypatch):
    of = plan(seeds=1, recipe={**plan().changes, "epochs": 100})
    with workers(scheduler, tmp_path, 1):
        begun = tmp_path / "s" / "runs" / of.runs[0].name / "last.safetensors"

        event = Board.event

        def interrupt(board, name, word):
            event(board, name, word)
            if begun.exists() and not interrupted:
                interrupted.append(os.kill(os.getpid(), signal.SIGINT))

        interrupted = []
        monkeypatch.setattr(Board, "event", interrupt)
        progress = run(of, tmp_path / "s", scheduler=scheduler, progress=False)
        assert progress.interrupted and progress.count("done") == 0
        assert progress.states[of.runs[0].name].kind == "begun"
        assert not list(tmp_path.glob("s/runs/*/train.lock")), "nothing goes on in the background"
        progress = run(of, tmp_path / "s", scheduler=scheduler, progress=False)
        assert progress.count("done") == 2 and not progress.interrupted


def test_interrupted_when_the_last_worker_is_gone(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_BEAT", 0.2)
    of = plan(seeds=1, blocks=[], stages=[], recipe={**plan().changes, "epochs": 100})
    with workers(scheduler, tmp_path, 1) as processes_of:
        begun = tmp_path / "s" / "runs" / of.runs[0].name / "last.safetensors"
        again, event = [], Board.event

        def hear(board, name, word):
            event(board, name, word)
            if word["event"] == "again":
                again.append(word["message"])
                os.kill(os.getpid(), signal.SIGINT)
            elif begun.exists():
                processes_of["w0"].kill()

        monkeypatch.setattr(Board, "event", hear)
        progress = run(of, tmp_path / "s", scheduler=scheduler, progress=False)
    assert progress.interrupted and progress.states[of.runs[0].name].kind == "begun"
    assert again == ["its worker is gone"]


def test_runs_that_lost_sight_of_the_study_are_begun_again(scheduler, tmp_path, monkeypatch):
    """As when the study's machine slept: its tasks stop, and it goes on."""
    monkeypatch.setattr(cluster, "_BEAT", 2.0)
    of = plan(seeds=1, blocks=[], stages=[], recipe={**plan().changes, "epochs": 400})
    home = StudyFolder(tmp_path / "s")
    home.open(of)
    home.book(of, "test")
    again = []
    with workers(scheduler, tmp_path, 1), connect(scheduler) as client:

        def event(name, word):
            if word["event"] == "again":
                again.append(word["message"])
            elif word["event"] == "progress" and word["epochs"] >= 2 and not again:
                distributed.Variable(runs._topic, client=client).set("stop")

        runs = Cluster(tasks(tmp_path / "s", of), event, client)
        assert runs.run()
    assert "the study was silent for too long" in again
    assert home.state(of.runs[0]).kind == "done"
    home.close()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("reconnects", [None, (distributed.Variable, "set"),
                                        (distributed.Client, "processing")])  # fmt: skip
def test_a_lost_scheduler_stops_the_runs_in_order(tmp_path, monkeypatch, reconnects):
    monkeypatch.setattr(cluster, "_BEAT", 1.0)
    of = plan(seeds=1, recipe={**plan().changes, "epochs": 100})
    begun = tmp_path / "s" / "runs" / of.runs[0].name / "last.safetensors"
    with scheduling(tmp_path) as (address, process), workers(address, tmp_path, 1):

        def lose():
            wait_for(lambda: begun.exists())
            if reconnects:  # as when Dask's client is between two connections at this moment
                monkeypatch.setattr(*reconnects, timed_out)
            process.kill()

        def timed_out(*arguments, **options):
            raise OSError("Timed out trying to connect")

        threading.Thread(target=lose).start()
        with pytest.raises(ConnectionError, match="scheduler is gone"):
            run(of, tmp_path / "s", scheduler=address, progress=False)
        wait_for(lambda: not running_workers(tmp_path))
    assert not list(tmp_path.glob("s/runs/*/train.lock")), "it stopped in order"


def test_failures_stay_alone(scheduler, tmp_path):
    of = plan(blocks=["DIES", "NANS"], seeds=1, imports=["study.small", "study.trouble"])
    with workers(scheduler, tmp_path, 1):
        progress = run(of, tmp_path / "s", scheduler=scheduler, progress=False)
    states = {one.block: progress.states[one.name] for one in of.runs}
    assert states[None].kind == "done"
    assert states["DIES_1"].message.endswith("(exit code 3), 3 times")
    assert "the loss is NaN" in states["NANS_1"].message


def test_a_folder_that_the_workers_do_not_see(scheduler, tmp_path):
    refused = pytest.raises(CheckpointError, match=r"does not see .*study\.json")
    with workers(scheduler, tmp_path, 1), connect(scheduler) as client, refused:
        Cluster([], print, client).check(str(tmp_path / "elsewhere"))


def test_no_worker(scheduler, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    with connect(scheduler) as client:
        end = time.monotonic() + 60
        while client.scheduler_info()["workers"] and time.monotonic() < end:
            time.sleep(0.1)
        with pytest.raises(CheckpointError, match="the cluster has no worker"):
            Cluster([], print, client).check("anywhere")


def test_no_scheduler(monkeypatch):
    monkeypatch.setattr(cluster, "_ANSWER", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match=f"no Dask scheduler answers at 'tcp://127.0.0.1:{port}'"):
        connect(f"tcp://127.0.0.1:{port}")


def test_without_distributed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install distributed \(or attnnet\[clus"):
        connect("tcp://127.0.0.1:1")


def test_workers_are_of_this_machine(tmp_path):
    with pytest.raises(ValueError, match="expected one of them: workers are of this machine"):
        run(plan(), tmp_path / "s", 2, scheduler="tcp://127.0.0.1:1")


def test_dasks_own_number_of_threads_is_not_the_machines(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(cores, "free", lambda: 12)
    assert cluster._threads_of_machine() == 12
    monkeypatch.setenv("ATTNNET_NUM_THREADS", "5")
    assert cluster._threads_of_machine() == 5
