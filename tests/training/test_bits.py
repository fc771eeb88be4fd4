"""The same bits in every process and with any number of threads: training, evaluation, inference.

Other tests hold single operations to it; here whole networks of each family, with every block.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from reference import processes

import attnnet
from attnnet.nn.registry import find_block

from . import bits

THREADS = (1, 2, 3, 5)


def digests(threads: int) -> dict[str, dict[str, str]]:
    """What a fresh process comes to."""
    script = Path(bits.__file__)
    done = subprocess.run([sys.executable, script, str(threads)], capture_output=True, text=True,
                          cwd=processes.neutral_folder(), env=processes.environment())  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def first():
    return digests(THREADS[0])


@pytest.mark.parametrize("threads", THREADS)
def test_the_same_bits_in_another_process_with_any_number_of_threads(first, threads):
    other = digests(threads)
    for network, expected in first.items():
        for what, value in expected.items():
            assert other[network][what] == value, f"{network}: {what}, {threads} threads"


def test_every_block_is_there():
    placed = "+".join(block for block, _ in bits.NETWORKS.values()) + "_"
    ours = [name for name in attnnet.list_blocks() if find_block(name).builtin]  # no other test's
    assert len(ours) > 9 and [name for name in ours if f"{name}_" not in placed] == []


def test_no_two_digests_are_alike(first):
    """They are of numbers, not of nothing."""
    whole = [value for digest in first.values() for value in digest.values()]
    assert len(set(whole)) == len(whole)
