"""Killed at any moment, a training goes on from its last whole checkpoint with the same bits."""

import os
import signal

import pytest

from . import kill, runs
from .storage import broken

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def expected():
    runs.images()
    return runs.answer_of(runs.straight)


def test_killed_at_random_moments(tmp_path, expected):
    """More of them: ``python3 dev.py kill --times 200``."""
    seen = kill.kill_often(8, tmp_path / "run", seed=17, expected=expected, longest=0.5)
    assert seen["kills"] == 8


def test_killed_between_any_two_operations_on_files(tmp_path, expected):
    """Before an open, a write, a sync, a rename or a link, over two checkpoints and an epoch."""
    run = tmp_path / "run"

    def job(act):
        with broken(act):
            runs.trainer(run, checkpoint_every=4).fit(stop_after=1)

    def names():
        seen = []
        job(lambda count, name: seen.append(name))
        return seen

    def again():  # each time from the beginning
        for name in os.listdir(run):
            os.unlink(run / name)

    # Of the writes that fill one file the first few stand for all.
    seen, reached = runs.answer_of(names), set()
    numbers = [n for n, name in enumerate(seen, 1) if name != "write" or seen[n - 3] != "write"]
    assert runs.check(run, expected) == "1/0" and len(numbers) > 40
    again()
    for number in numbers:

        def die(count, name, number=number):
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        pid = runs.forked(lambda die=die: job(die))
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)
        reached.add(runs.check(run, expected))
        again()
    assert reached == {"nothing yet", "0/4", "1/0"}
