"""Kills a training at random moments and looks at what is left; see ``dev.py kill``.

    kill.py [--times N] [--seconds S] [--seed SEED]

A tiny training writes a checkpoint every second step. It is killed (SIGKILL), what is on disk is
compared with an undisturbed training at the same place, bit for bit, and a new process goes on from
there to be killed again. Where one comes to its end, the next training begins.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from faults import runs  # noqa: E402


def kill_often(times: int, folder: Path, seed: int, expected: dict, longest: float) -> Counter:
    """Kills so many times; what was seen, counted.

    Args:
        folder: of the training; emptied after each that came to its end.
        expected: what ``runs.straight`` gave. longest: seconds until a kill, at most.

    Raises:
        AssertionError: what is on disk is not what it should be; the seed is in the message.
    """
    chance, seen = random.Random(seed), Counter()
    while seen["kills"] < times:
        pid = runs.forked(lambda: runs.trainer(folder).fit())
        time.sleep(chance.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        try:
            if os.WIFSIGNALED(status):
                seen["kills"] += 1
                seen["while writing"] += any(folder.glob(".*.tmp*"))
                where = runs.check(folder, expected)
                seen["with a checkpoint"] += where != "nothing yet"
                continue
            assert os.WEXITSTATUS(status) == 0, "the training failed"
            runs.check_end(folder, expected)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, after {seen['kills']} kills: {error}") from error
        seen["ends"] += 1
        shutil.rmtree(folder)
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    runs.images()
    began = time.perf_counter()
    expected = runs.answer_of(runs.straight)
    took = time.perf_counter() - began
    with tempfile.TemporaryDirectory(prefix="kill-") as parent:
        seen = kill_often(options.times, Path(parent) / "run", seed, expected, took)
    print(f"{seen['kills']} kills, {seen['while writing']} of them while a file was written, "
          f"{seen['with a checkpoint']} with a checkpoint on disk; each loaded and was, bit for "
          f"bit, what the undisturbed training was there; {seen['ends']} trainings came to their "
          f"end with the same bits; {time.perf_counter() - began:.0f} s")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
