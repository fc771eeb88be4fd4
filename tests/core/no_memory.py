"""Calls every function of the core while Python's own allocations fail, one after the other.

    no_memory.py [NAME...]

Beside test_python_memory.py, which starts it: a crash then ends this process, and the last line
that was printed names the call. What else is wrong is printed as ``WRONG ...``.
"""

from __future__ import annotations

import _testcapi
import faulthandler
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reference import bindings
from reference.memory import held

import attnnet
from attnnet import _core

QUIET = 12  # so many calls that no failure reached: all allocations have had their turn
MOST = 400


def failing(number: int, function, arguments, keep: list):
    """The exception's type when the allocation of that number fails (None: the call worked)."""
    _testcapi.set_nomemory(number, number + 1)
    try:
        keep[0] = function(*arguments)
    except BaseException as error:
        _testcapi.remove_mem_hooks()
        return type(error)
    _testcapi.remove_mem_hooks()
    return None


def every(what: str, function, make, allowed, undo=None) -> int:
    """Each allocation's turn; returns how many failures were seen."""
    seen, quiet, number, keep = 0, 0, 0, [None]
    while quiet < QUIET and number < MOST:
        arguments = make()
        if arguments is None:
            return seen
        kind = failing(number, function, arguments, keep)
        keep[0] = arguments = None
        if undo:
            undo()
        quiet = 0 if kind is MemoryError else quiet + 1
        seen += kind is MemoryError
        if kind not in allowed and kind is not MemoryError:
            print(f"WRONG {what}, allocation {number}: {kind}", flush=True)
        number += 1
    if number == MOST:
        print(f"WRONG {what}: no end of allocations", flush=True)
    return seen


def result_kind(function, arguments):
    try:
        function(*arguments)
    except Exception as error:
        return type(error)
    return None


def check(name: str) -> int:
    """One function: its good call, the way back through its result, its wrong calls."""
    function, case = bindings.functions()[name]
    undo = case.undo
    print(f"call {name}", flush=True)
    before = held()
    seen = every(name, function, case.make, (None,), undo)
    result = function(*case.make())
    shape = getattr(result, "shape", None)
    recorded = isinstance(result, attnnet.Tensor) and result.grad_fn is not None
    result = None
    if undo:
        undo()
    if recorded:
        dy = attnnet.Tensor(np.ones(shape, np.float32))
        print(f"backward of {name}", flush=True)
        seen += every(f"backward of {name}", lambda y: y.backward(dy),
                      lambda: (function(*case.make()),), (None,))  # fmt: skip
        dy = None
    # That of hooks is a Python function: its own frame's errors would be seen.
    wrong_calls = () if name == "Tensor._add_hook" else bindings.wrong_calls(case)
    for number, wrong in enumerate(wrong_calls):
        print(f"wrong call {number} of {name}", flush=True)
        expected = result_kind(function, wrong)
        if undo:
            undo()
        if expected in (None, MemoryError):  # believed: a good call, or a size that is not there
            continue
        seen += every(f"wrong call {number} of {name}", function, lambda: wrong,  # noqa: B023
                      (expected,), undo)  # fmt: skip
    wrong = wrong_calls = None
    if held() != before and name not in ("set_memory_limit", "empty_cache"):
        print(f"WRONG {name}: {before} held before, {held()} after", flush=True)
    return seen


def hooks() -> int:
    """A hook that is called, and one that is added, while memory is out."""
    print("call hooks", flush=True)

    def make():
        x = bindings.tensor(3, 4)
        y = _core.unary("sigmoid", x)
        y._add_hook(lambda grad: _core.unary("neg", grad))
        return (y,)

    dy = attnnet.Tensor(np.ones((3, 4), np.float32))
    seen = every("a hook", lambda y: y.backward(dy), make, (None,))
    called = []
    x = bindings.tensor(3, 4)
    for _ in range(300):  # beyond the numbers that Python keeps
        x._remove_hook(x._add_hook(print))
    kinds = [failing(n, x._add_hook, (called.append,), [None]) for n in range(QUIET)]
    x.sum().backward()
    worked = sum(kind is None for kind in kinds)
    if len(called) != worked:
        print(f"WRONG hooks: {len(called)} called, {worked} added", flush=True)
    return seen


def main(names: list[str]) -> None:
    faulthandler.enable()
    attnnet.set_num_threads(2)
    seen = hooks() if not names else 0
    for name in names or bindings.functions():
        if name != "load_blas":  # the library's own start
            seen += check(name)
    print(f"{seen} failures")


if __name__ == "__main__":
    main(sys.argv[1:])
