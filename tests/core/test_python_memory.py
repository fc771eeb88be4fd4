"""Python's own allocations fail, one after the other, in every call of the core: MemoryError or
success, never a crash, nothing left behind. (test_allocation_failure.py: the core's own.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reference import processes

testcapi = pytest.importorskip("_testcapi", reason="CPython's own test module makes memory fail")


@pytest.mark.skipif(not hasattr(testcapi, "set_nomemory"), reason="_testcapi has no set_nomemory")
def test_every_allocation_of_python_in_every_call():
    script = Path(__file__).with_name("no_memory.py")
    # A tool that counts lines allocates, too, and some crash where that fails.
    environment = {k: v for k, v in processes.environment().items() if "COVERAGE" not in k}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True,
                          cwd=processes.neutral_folder(), env=environment)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"in {lines[-1:]}: {done.stderr[-3000:]}"
    assert [line for line in lines if line.startswith("WRONG")] == []
    assert int(lines[-1].split()[0]) > 200
