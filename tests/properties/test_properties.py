"""Every operation and every block on random shapes against the float64 twins, on every instruction
set that this machine has.

A few examples each, the same in every run; ``dev.py properties`` runs many, others each time.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis draws the shapes")

from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st
from reference import blocks as twins
from reference import processes
from reference.compare import assert_close

import attnnet
from attnnet import _core
from attnnet import functional as F

from . import blocks, normalised, operations
from .problem import verify

# Set by run.py: how many examples each, at random.
MANY = os.environ.get("ATTNNET_EXAMPLES")
FEW = 15
ALONE = os.environ.get("ATTNNET_ISA")  # given: nobody asks for the other ones
PROBLEMS = operations.PROBLEMS | normalised.PROBLEMS
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "attnnet-hypothesis")


def examples(share: float = 1.0):
    """Settings of a test that takes ``1 / share`` times as long an example as the others."""
    count = max(1, round((int(MANY) if MANY else FEW) * share))
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=count, derandomize=not MANY, database=None, deadline=None,
                    suppress_health_check=slow, print_blob=False)  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
@examples()
@given(data=st.data())
def test_operation(name, data):
    verify(data.draw(PROBLEMS[name]), data)


@pytest.mark.parametrize("name", twins.BLOCKS)
@examples()
@given(data=st.data())
def test_block(name, data):
    blocks.verify(name, data)


@examples(3.0)
@given(case=normalised.inference())
def test_inference(case):
    call, expected, length, note = case
    assert_close(call(), expected, length, note, 1.0)


@pytest.mark.parametrize("algorithm", _core.convolution_algorithms())
@examples(2.0)
@given(data=st.data())
def test_convolutions_by_each_algorithm(algorithm, data):
    """Where the algorithm fits the shape; else the core's own choice."""
    name = data.draw(st.sampled_from(["conv2d", "convolution_norm", "deferred"]))
    problem = data.draw(PROBLEMS[name])
    _core.set_convolution_algorithm(algorithm)
    try:
        verify(problem, data)
    finally:
        _core.set_convolution_algorithm(os.environ.get("ATTNNET_CONVOLUTION"))


@pytest.mark.skipif(ALONE is not None, reason="this is the run on one instruction set")
@pytest.mark.parametrize("isa", [s for s in _core.config()["isa_available"]
                                 if s != _core.config()["isa"]])  # fmt: skip
def test_on_another_instruction_set(isa):
    """This file again; the set is chosen when attnnet is imported."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
               "-c", root / "pyproject.toml", "--rootdir", root, __file__]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True,
                          cwd=processes.neutral_folder(),
                          env=processes.environment(ATTNNET_ISA=isa))  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_it_is_the_instruction_set_that_was_asked_for():
    assert ALONE in (None, _core.config()["isa"])


ELSEWHERE = {
    # the blocks
    *("se", "sec", "ca", "sa", "new_block", "nab", "attention_augmented"),
    # what is looked at, without gradients
    *("block_gates", "relative_attention_rows"),
    "is_relu_guided",  # a mode
}


def test_every_operation_has_a_problem():
    public = {name for name, value in vars(F).items()
              if inspect.isfunction(value) and not name.startswith("_")
              and value.__module__.startswith("attnnet.functional")}  # fmt: skip
    assert public - set(PROBLEMS) - ELSEWHERE - {"next_draw"} == set()
    assert set(twins.BLOCKS) <= set(attnnet.list_blocks())
    assert np.all([hasattr(F, name) for name in ELSEWHERE])
