"""Studies: runs in processes, killed, failing, interrupted; whatever happens, the same figures."""

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from reference import processes

import attnnet
from attnnet.errors import CheckpointError, DataError
from attnnet.study import execute, run
from attnnet.study.execute import Task
from attnnet.study.folder import StudyFolder
from attnnet.study.predictions import FILE as PREDICTIONS
from attnnet.study.runner import Pool, run_here, shares
from attnnet.study.worker import Worker
from attnnet.training import Trainer, checkpoint
from attnnet.training.lock import FolderLock
from study.small import plan

TROUBLE = ["study.small", "study.trouble"]
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The plan done in this process, without any trouble."""
    folder = tmp_path_factory.mktemp("straight") / "study"
    assert run(plan(), folder, 0, progress=False).count("done") == 4
    return folder


def figures(folder, of=None):
    """What the runs said and measured, without what depends on the clock."""
    home, found = StudyFolder(folder), {}
    for one in (of or plan()).runs:
        assert home.done(one) is not None, one.name
        result, said = home.done(one)
        said = [x if name == "images" else x.tobytes() for name, x in vars(said).items()]
        weights = checkpoint.load(home.of(one)).weights
        summary = {k: v for k, v in result["summary"].items() if k != "seconds"}
        kept = ("recipe", "ece", "parameters", "multiply_adds", "localisation", "skipped")
        found[one.name] = (
            summary, {k: result[k] for k in kept}, said,
            {k: v.tobytes() for k, v in weights.items()},
        )  # fmt: skip
    return found


def record(into):
    return lambda name, word: into.append((name, word))


def tasks(folder, of):
    return [
        Task(one.name, str(folder / "runs" / one.name), one.recipe.to_dict(),
             imports=of.imports) for one in of.runs
    ]  # fmt: skip


def test_two_at_once_are_the_same_as_one_after_another(tmp_path, straight, capsys):
    progress = run(plan(), tmp_path / "s", 2, progress="lines")
    assert progress.count("done") == 4 and not progress.interrupted
    assert figures(tmp_path / "s") == figures(straight)
    out = capsys.readouterr().out
    assert {line.split(":")[0] for line in out.splitlines() if ": done (" in line} == {
        one.name for one in plan().runs
    }  # fmt: skip
    assert ": done (4 of 4 runs done)\n" in out
    log = (tmp_path / "s" / "runs" / "small-SE_1-shapes-s43" / "log.txt").read_text()
    assert "accuracy: " in log and "1 thread\n" in log


def test_a_run_is_a_training_like_any_other(straight, tmp_path):
    one = plan().runs[1]
    history = attnnet.train(one.recipe, tmp_path / "alone", progress=False)
    result, said = StudyFolder(straight).done(one)
    assert result["summary"]["test_top1"] == history.summary["test_top1"]
    assert result["summary"]["chosen_on"] == "validation"
    assert result["parameters"] == sum(
        p.numel() for p in attnnet.load(tmp_path / "alone").parameters()
    )
    assert len(said.labels) == 80
    assert 100 * said.right.mean() == pytest.approx(history.summary["test_top1"])


def test_what_is_done_is_not_done_again(straight):
    stamps = {path: path.stat().st_mtime_ns for path in straight.glob("runs/*/*")}
    before = figures(straight)
    assert run(plan(), straight, 1, progress=False).count("done") == 4
    assert {path: path.stat().st_mtime_ns for path in straight.glob("runs/*/*")} == stamps
    assert figures(straight) == before


@pytest.mark.parametrize("how", ["lost", "cut off"])
@pytest.mark.parametrize("files", [(PREDICTIONS,), ("result.json",), (PREDICTIONS, "result.json")])
def test_figures_are_made_anew_without_training(tmp_path, straight, files, how):
    of = plan(seeds=1, blocks=[], stages=[])
    folder = tmp_path / "s"
    run(of, folder, 0, progress=False)
    (one,) = of.runs
    for path in (folder / "runs" / one.name / name for name in files):
        if how == "lost":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    stamp = (folder / "runs" / one.name / "last.safetensors").stat().st_mtime_ns
    run(of, folder, 0, progress=False)
    assert figures(folder, of)[one.name] == figures(straight)[one.name]
    assert (folder / "runs" / one.name / "last.safetensors").stat().st_mtime_ns == stamp


def test_a_killed_worker_loses_nothing(tmp_path):
    of = plan(recipe={**plan().changes, "epochs": 80}, seeds=1)
    killed, events, pids = [], [], {}

    def event(name, word):
        events.append((name, word["event"]))
        if word["event"] == "start":
            pids[name] = word["pid"]
        middle = word["event"] == "progress" and 3 <= word["epochs"] < 70
        if middle and name not in killed and "SE_1" in name:
            os.kill(pids[name], signal.SIGKILL)
            killed.append(name)

    assert Pool(tasks(tmp_path / "s", of), event, 2, 2).run()
    (name,) = killed
    assert events.count((name, "again")) == 1 and events.count((name, "start")) == 2
    log = (tmp_path / "s" / "runs" / name / "log.txt").read_text()
    assert "goes on at epoch" in log and "goes on at epoch 1," not in log
    run(of, tmp_path / "straight", 0, progress=False)
    assert figures(tmp_path / "s", of) == figures(tmp_path / "straight", of)


def test_failures_are_shown_and_do_not_stop_the_others(tmp_path):
    of = plan(blocks=["DIES", "FULL", "NANS"], seeds=1, imports=TROUBLE)
    events = []
    Pool(tasks(tmp_path / "s", of), record(events), 2, 2, retries=1).run()
    home = StudyFolder(tmp_path / "s")
    states = {one.block: home.state(one) for one in of.runs}
    assert states[None].kind == "done"
    assert states["DIES_1"].message == (
        "its process ended without a word (exit code 3), 2 times"
    )
    assert states["FULL_1"].message == "OSError: [Errno 28] No space left on device"
    assert "the loss is NaN at epoch 1, step 1 of 6" in states["NANS_1"].message
    assert states["NANS_1"].final and not states["FULL_1"].final
    starts = [name for name, word in events if word["event"] == "start"]
    assert sorted(starts) == sorted(
        [one.name for one in of.runs] + [one.name for one in of.runs if one.block == "DIES_1"]
    )


def test_a_second_start_repeats_what_may_go_well_now(tmp_path, capsys):
    of = plan(blocks=["FULL", "NANS"], seeds=1, imports=TROUBLE)
    assert run(of, tmp_path / "s", 0, progress=False).count("failed") == 2
    capsys.readouterr()
    progress = run(of, tmp_path / "s", 0, progress="lines")
    out = capsys.readouterr().out
    assert "FULL_1-shapes-s42: started" in out and "NANS_1-shapes-s42: started" not in out
    assert "failed: small-NANS_1-shapes-s42: the loss is NaN" in str(progress)


def test_two_studies_in_one_folder_are_refused(tmp_path, straight):
    home = StudyFolder(straight)
    home.open(plan())
    with pytest.raises(CheckpointError, match=f"another study.*process {os.getpid()}"):
        run(plan(), straight, 0, progress=False)
    home.close()
    with pytest.raises(CheckpointError, match=r"has the run small-SE_1-shapes-s42, which is not"):
        run(plan(blocks=["SEC"]), straight, 0, progress=False)
    with pytest.raises(CheckpointError, match=r"lr is 0.002 there, 0.1 here"):
        run(plan(recipe={**plan().changes, "lr": 0.1}), straight, 0, progress=False)
    (tmp_path / "letters").write_text("dear")
    (tmp_path / ".letters.tmp").write_text("dea")
    with pytest.raises(CheckpointError, match="holds other things, but no study"):
        run(plan(), tmp_path, 0, progress=False)
    assert (tmp_path / ".letters.tmp").exists(), "not ours to remove"
    with pytest.raises(CheckpointError, match="holds no study"):
        StudyFolder(tmp_path).plan()


def test_a_plan_may_grow(tmp_path):
    few = plan(seeds=1, blocks=[], stages=[])
    run(few, tmp_path / "s", 0, progress=False)
    more = plan(seeds=1)
    assert run(more, tmp_path / "s", 0, progress=False).count("done") == 2
    record = json.loads((tmp_path / "s" / "study.json").read_text())
    assert record["plan"] == more.to_dict() and len(record["commands"]) == 1
    with pytest.raises(CheckpointError, match="another study"):
        run(few, tmp_path / "s", 0, progress=False)


COMMAND = (
    f"import sys; sys.path.insert(0, {TESTS!r}); from attnnet.cli import main; "
    "sys.exit(main(sys.argv[1:]))"
)
OPTIONS = """study --imports study.small --networks small --datasets shapes --blocks SE --stages 1
    --seeds 2 --output s --no-progress --set epochs=60 batch_size=32 limit_train=200 limit_test=80
    warmup_epochs=0.5 --workers 2"""


def start(folder, words):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words.split()], cwd=folder, env=processes.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def running_workers(folder):
    """Processes that hold a run's lock below a folder."""
    found = []
    for lock in Path(folder).glob("s/runs/*/train.lock"):
        owner = json.loads(lock.read_text() or "{}")
        if owner and Path(f"/proc/{owner['pid']}").exists():
            found.append(owner["pid"])
    return found


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def of_options():
    return plan(recipe={
        "epochs": 60, "batch_size": 32, "limit_train": 200, "limit_test": 80, "warmup_epochs": 0.5,
    })  # fmt: skip


@pytest.fixture(scope="module")
def straight_options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options") / "study"
    run(of_options(), folder, 0, progress=False)
    return folder


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_anywhere_it_goes_on_to_the_same_figures(tmp_path, number, straight_options):
    process = start(tmp_path, OPTIONS)
    begun = tmp_path / "s" / "runs" / "small-base-shapes-s42" / "last.safetensors"
    wait_for(lambda: begun.exists() or process.poll() is not None)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number, err
        assert "to go on: attnnet study --resume s\n" in out
        assert not running_workers(tmp_path), "they ended before the study did"
    else:
        assert process.returncode == -signal.SIGKILL
        wait_for(lambda: not running_workers(tmp_path))  # they notice that nobody listens
    assert not begun.with_name("result.json").exists(), "it was stopped in the middle"
    process = start(tmp_path, "study --resume s --no-progress --imports study.small")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2 and "--imports would change it" in err
    process = start(tmp_path, "study --resume s --no-progress")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "4 of 4 runs done" in out, err
    assert "goes on at epoch" in begun.with_name("log.txt").read_text()
    assert figures(tmp_path / "s", of_options()) == figures(straight_options, of_options())


def test_cores_are_dealt_anew_while_a_run_goes(tmp_path):
    of = plan(recipe={**plan().changes, "epochs": 60}, seeds=1, blocks=[], stages=[])
    (task,) = tasks(tmp_path / "s", of)
    heard = queue.Queue()
    worker = Worker(dataclasses.replace(task, threads=1), heard.put)
    assert heard.get(timeout=300)["event"] == "start"
    worker.deal(2)
    while heard.get(timeout=300)["event"] != "end":
        pass
    assert StudyFolder(tmp_path / "s").done(of.runs[0])[0]["threads"] == 2


def test_a_run_that_has_just_ended_may_be_dealt_cores(tmp_path, straight):
    """Its pipe is closed before its end is heard of."""
    heard = queue.Queue()
    worker = Worker(tasks(straight, plan())[0], heard.put)
    while heard.get(timeout=300)["event"] != "end":
        pass
    worker.deal(7)


def test_threads_of_runs_in_this_process(tmp_path):
    of, before = plan(seeds=1, blocks=[], stages=[]), attnnet.get_num_threads()
    try:
        run(of, tmp_path / "s", 0, threads=3, progress=False)
        assert StudyFolder(tmp_path / "s").done(of.runs[0])[0]["threads"] == 3
    finally:
        attnnet.set_num_threads(before)


def test_where_the_data_are_is_remembered(tmp_path):
    of = plan(seeds=1, blocks=[], stages=[])
    for data, expected in (("there", "there"), (None, "there"), ("elsewhere", "elsewhere")):
        run(of, tmp_path / "s", 0, data=data, progress=False)
        assert StudyFolder(tmp_path / "s").read()["data"] == os.path.abspath(expected)


def test_a_folder_where_a_study_was_killed_at_its_first_write(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".study.json.1.0.tmp").write_bytes(b"{")
    of = plan(seeds=1, blocks=[], stages=[])
    assert run(of, tmp_path / "s", 0, progress=False).count("done") == 1
    assert not list((tmp_path / "s").glob(".*.tmp"))


@pytest.mark.parametrize("changes", [{"limit_train": 40, "crop_padding": 32,
                                      "padding_mode": "reflect"}])  # fmt: skip
def test_what_the_images_do_not_allow_is_refused_before_anything_starts(tmp_path, changes):
    of = plan(recipe={**plan().changes, **changes})
    with pytest.raises((ValueError, DataError)):
        run(of, tmp_path / "s", 0, progress=False)
    assert not list((tmp_path / "s").glob("runs/*"))
    assert run(plan(seeds=1), tmp_path / "s", 0, progress=False).count("done") == 2, "mended"


def test_a_failure_that_the_disk_has_no_room_for_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "write_failure", lambda folder, kind, message: None)
    of = plan(blocks=["FULL"], seeds=1, imports=TROUBLE)
    progress = run(of, tmp_path / "s", 0, progress=False)
    assert progress.count("failed") == 1 and progress.count("done") == 1
    assert "failed: small-FULL_1-shapes-s42: OSError: [Errno 28]" in str(progress)


def test_a_request_to_stop_reaches_a_run_before_its_first_step(tmp_path, monkeypatch):
    """As when Ctrl-C comes while images are loaded."""
    load, asked = Trainer.prepare, []

    def prepare(trainer):
        load(trainer)
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGINT))

    monkeypatch.setattr(Trainer, "prepare", prepare)
    progress = run(plan(seeds=1), tmp_path / "s", 0, progress=False)
    assert progress.interrupted and progress.count("done") == 0
    assert run(plan(seeds=1), tmp_path / "s", 0, progress=False).count("done") == 2


def test_a_locked_run_is_waited_for_until_ctrl_c(tmp_path, monkeypatch):
    of = plan(seeds=1, blocks=[], stages=[])
    home = StudyFolder(tmp_path / "s")
    home.open(of)
    home.book(of, "test")
    home.close()
    folder = home.of(of.runs[0])
    os.makedirs(folder)
    lock = FolderLock(folder, "train.lock", "training")

    def waits(do):
        clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: do())
        monkeypatch.setattr(execute, "time", clock)

    waits(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert run(of, tmp_path / "s", 0, progress=False).interrupted
    waits(lock.release)
    assert run(of, tmp_path / "s", 0, progress=False).count("done") == 1


@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_what_shows_the_events_fails_and_the_runs_end_in_order(tmp_path, capsys, stopping, here):
    of = plan(recipe={**plan().changes, "epochs": 400}, seeds=1, blocks=[], stages=[])
    (task,) = tasks(tmp_path / "s", of)
    asked = []

    def event(name, word):
        if asked:
            raise BrokenPipeError
        if word["event"] == "progress" and word["epochs"] >= 2:
            asked.append(word)
            if not stopping:
                raise BrokenPipeError
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(BrokenPipeError):
        run_here([task], event) if here else Pool([task], event, 1, 1).run()
    home = StudyFolder(tmp_path / "s")
    assert home.state(of.runs[0]).kind == "begun", "no failure of the run"
    assert here or "interrupted in epoch" in Path(home.of(of.runs[0], "log.txt")).read_text()


def test_cores_are_shared_out():
    assert shares(8, 3) == [3, 3, 2] and shares(2, 4) == [1, 1, 1, 1] and shares(5, 1) == [5]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"workers": -1}, "workers is -1; expected a whole number of at least 0"),
     ({"threads": 0}, "threads is 0; expected a whole number of at least 1")],
)  # fmt: skip
def test_wrong_numbers(tmp_path, options, expected):
    with pytest.raises(ValueError, match=expected):
        run(plan(), tmp_path / "s", **options)
