"""The command line as a process of its own: python -m, signals, pipes that close."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from reference import processes

from attnnet.training import checkpoint as checkpoints

TESTS = pathlib.Path(__file__).parents[1]
# The tiny network of the training's tests, registered before the command runs.
TINY = (
    f"import sys; sys.path.insert(0, {str(TESTS)!r}); import training.tiny; "
    "from attnnet.cli import main; sys.exit(main(sys.argv[1:]))"
)
OPTIONS = """--arch tiny --block none --batch-size 8 --limit-train 400 --limit-test 40 --epochs 2
    --warmup-epochs 0.5 --no-progress --output run"""
ENVIRONMENT = processes.environment()


def start(folder, words):
    return subprocess.Popen(
        [sys.executable, "-c", TINY, "train", *words.split()],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_python_m_attnnet():
    command = [sys.executable, "-m", "attnnet", "--version"]
    result = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, cwd=processes.neutral_folder()
    )
    assert result.returncode == 0 and result.stdout.startswith("attnnet ")


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m attnnet list | true"
    result = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=processes.neutral_folder(),
    )
    assert result.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_and_go_on_with_the_command_it_names(tmp_path, number):
    straight = start(tmp_path, OPTIONS)
    _, err = straight.communicate(timeout=300)
    assert straight.returncode == 0, err
    os.rename(tmp_path / "run", tmp_path / "straight")
    process = start(tmp_path, OPTIONS)
    lines = [process.stdout.readline() for _ in range(4)]  # those that open the log
    assert lines[2] == "output: run\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number and err == ""
    said = re.search(r"interrupted in epoch \d, after \d+ of 50 steps; to go on: (.*)", out)
    assert said[1] == "attnnet train --resume run --imports training.tiny"
    resumed = start(tmp_path, said[1].removeprefix("attnnet train "))
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    one = checkpoints.load(tmp_path / "straight").weights
    two = checkpoints.load(tmp_path / "run").weights
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


MINE = """
import attnnet
import study.small

@attnnet.register_block("MINE")
class Mine(attnnet.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gain = attnnet.nn.Parameter([1.0] * channels)

    def forward(self, x):
        return x * self.gain.reshape(1, -1, 1, 1)
"""


def test_an_own_block_from_a_file_beside_works_in_every_command(tmp_path):
    """As the installed program runs: Python looks for modules beside it, not where one stands."""
    program = tmp_path / "bin" / "attnnet"
    program.parent.mkdir()
    program.write_text("import sys\nfrom attnnet.cli import main\nsys.exit(main())\n")
    (tmp_path / "mine.py").write_text(MINE)
    paths = os.pathsep.join([ENVIRONMENT["PYTHONPATH"], str(TESTS)])

    def run(words):
        done = subprocess.run(
            [sys.executable, str(program), *words.split()], cwd=tmp_path, text=True,
            capture_output=True, env={**ENVIRONMENT, "PYTHONPATH": paths},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    options = "--limit-train 64 --limit-test 20 --batch-size 16 --no-progress --output run"
    trained = f"train --arch small --block MINE_1 --epochs 2 --stop-after 1 {options}"
    code, said = run(trained)
    assert code == 2 and "'small'" in said, said
    code, said = run(f"{trained} --imports mine")
    assert code == 0, said
    hint = re.search(r"to go on: attnnet (.*)", said)[1]
    assert hint == "train --resume run --imports study.small,mine"
    assert run(f"{hint} --no-progress")[0] == 0
    assert "'MINE'" in run("evaluate run --imports study.small")[1]
    layer = "--layers features"
    pair = f"compare run run --labels a b {layer}"
    for words in ("evaluate run", f"infer run {layer}", f"cam run {layer}", pair, "list blocks"):
        code, said = run(f"{words} --imports mine")
        assert code == 0, said
    assert "MINE" in said
    code, said = run("evaluate run --imports mien")
    assert code == 2 and "--imports names 'mien', which Python does not find" in said
    plan = "study --networks small --datasets shapes --blocks MINE --stages 1 --seeds 1 --list"
    assert run(f"{plan} --imports mine")[0] == 0


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    process = start(tmp_path, OPTIONS)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "Permission denied" in err


def test_killed_while_writing_it_resumes_from_the_last_whole_checkpoint(tmp_path):
    process = start(tmp_path, f"{OPTIONS} --checkpoint-every 1")
    while not (tmp_path / "run" / "last.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.communicate()
    step = checkpoints.load(tmp_path / "run").meta["position"]["batch"]
    assert step >= 1
    resumed = start(tmp_path, "--resume run")
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0 and "epoch 2/2" in out, err
