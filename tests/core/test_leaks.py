"""No call of the core leaves anything behind, whether it works or fails.

Every function is called thousands of times. Counted before and after: references to its arguments,
Python's objects and blocks of memory, the core's bytes and small objects, the process's pages.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time

import numpy as np
import pytest
from reference import bindings, processes

import attnnet
from attnnet import _core

MOST = 10_000  # calls of one kind,
SECONDS = 0.1  # or as many as take so long
WARM = 20
FUNCTIONS = bindings.functions()
MEMBERS = [name for name, value in vars(_core.Tensor).items()
           if type(value).__name__ in ("method_descriptor", "getset_descriptor")]


@pytest.mark.parametrize("name", [n for n, f in vars(_core).items() if callable(f)])
def test_every_function_has_an_entry(name):
    assert name == "Tensor" or name in bindings.CASES, \
        f"_core.{name} has no entry in tests/reference/bindings.py"


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_of_the_tensor_has_an_entry(name):
    assert name in bindings.MEMBERS, f"Tensor.{name} has no entry in tests/reference/bindings.py"


def test_no_entry_without_a_function():
    assert sorted(bindings.CASES) == sorted(n for n, f in vars(_core).items()
                                            if callable(f) and n != "Tensor")
    assert set(bindings.MEMBERS) <= set(vars(_core.Tensor))


def flattened(arguments):
    for argument in arguments:
        if isinstance(argument, (tuple, list)):
            yield from flattened(argument)
        elif not isinstance(argument, (bool, int, float, str, type, type(None))):
            yield argument


def resident() -> int:
    """Bytes of this process's pages; 0 where the system does not tell, or where a sanitizer keeps
    what was freed for a while, to see who still uses it."""
    if processes.UNDER_ASAN:
        return 0
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def reading(watched) -> dict[str, object]:
    gc.collect()
    stats = _core.memory_stats()
    return {
        "references": [sys.getrefcount(x) for x in watched],
        "bytes of the core": stats["in_use"],
        "objects of the core": stats["objects"],
        "gc objects": len(gc.get_objects()),
        "blocks of Python": sys.getallocatedblocks(),
        "resident": resident(),
    }


def assert_flat(call, watched, what):
    """Nothing grows while ``call`` runs many times. A leak of one reference, object or block a
    call is thousands of times what is allowed here."""
    for _ in range(WARM):
        call()
    calls, before, start = 0, reading(watched), time.perf_counter()
    while calls < MOST and (calls < 50 or time.perf_counter() - start < SECONDS):
        call()
        calls += 1
    after = reading(watched)
    context = f"{what}, {calls} calls"
    for exact in ("references", "bytes of the core", "objects of the core"):
        assert after[exact] == before[exact], f"{exact} ({context})"
    for nearly in ("gc objects", "blocks of Python"):  # caches of the interpreter move a little
        grown = after[nearly] - before[nearly]
        assert grown < max(calls // 4, 10), f"{grown} more {nearly} ({context})"
    grown = after["resident"] - before["resident"]
    assert grown < 512 * 1024 + 8 * calls, f"{grown} more resident bytes ({context})"


@pytest.fixture(autouse=True)
def _arguments_are_freed():
    """A core's reference too many shows once Python's are gone: the tensor's memory stays."""
    gc.collect()
    before = _core.memory_stats()
    yield
    gc.collect()
    after = _core.memory_stats()
    for key in ("in_use", "objects"):
        assert after[key] == before[key], f"{key}: arguments were not freed"


def run(function, arguments, undo):
    result = function(*arguments)
    if isinstance(result, attnnet.Tensor) and result.grad_fn is not None:
        result.backward(np.ones(result.shape, np.float32))
    if undo:
        undo()


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "load_blas"])
def test_calls_that_work_leave_nothing(name):
    function, case = FUNCTIONS[name]
    arguments = case.make()
    if name == "Tensor.backward":  # it uses the graph up
        x, dy = bindings.tensor(*arguments[1].shape), arguments[1]
        assert_flat(lambda: function(_core.unary("sigmoid", x), dy), (x, dy), name)
        return
    if name == "profile_stop":  # with events to hand over
        def call():
            _core.profile_start()
            _core.unary("sigmoid", x)
            function()

        x = bindings.tensor(3)
        assert_flat(call, (), name)
        return
    watched = list(flattened(arguments))
    assert_flat(lambda: run(function, arguments, case.undo), watched, name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_calls_that_fail_leave_nothing(name):
    function, case = FUNCTIONS[name]
    wrong, failed = list(bindings.wrong_calls(case)), 0
    if name == "load_blas":
        wrong.append(case.make())
    refused = []
    for arguments in wrong:
        try:
            run(function, arguments, case.undo)
        except Exception as error:
            assert not isinstance(error, SystemError), arguments
            refused.append(arguments)
            failed += 1
    assert failed >= 1

    def call():
        for arguments in refused:
            with contextlib.suppress(Exception):
                run(function, arguments, case.undo)

    watched = [x for arguments in refused for x in flattened(arguments)]
    assert_flat(call, watched, name)
