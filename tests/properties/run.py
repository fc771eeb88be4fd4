"""Runs the property tests on many random examples; see ``dev.py properties``.

    run.py [--examples N] [--seed S] [-- PYTEST ARGS...]

N examples of every operation and block (default 500) on each instruction set of this machine, drawn
from a seed that is printed, and is another one in every run unless it is given. What fails is made
as small as it can be and printed; nothing is written.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="properties", description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=500, metavar="N")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args(arguments[:split])

    import attnnet

    # Not from the repository's root: that would take the package from the source tree.
    home = str(Path(attnnet.__file__).parents[1])
    failed = []
    for isa in attnnet._core.config()["isa_available"]:
        print(f"-- {isa}, seed {options.seed}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short",
                   "-c", ROOT / "pyproject.toml", "--rootdir", ROOT,
                   f"--hypothesis-seed={options.seed}", *arguments[split + 1 :],
                   HERE / "test_properties.py"]  # fmt: skip
        changes = {"ATTNNET_ISA": isa, "ATTNNET_EXAMPLES": str(options.examples),
                   "PYTHONPATH": home}  # fmt: skip
        if subprocess.run(command, cwd=tempfile.gettempdir(),
                          env={**os.environ, **changes}).returncode:  # fmt: skip
            failed.append(isa)
    print(f"seed {options.seed}: {'failed on ' + ', '.join(failed) if failed else 'all passed'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
