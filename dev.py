#!/usr/bin/env python3
"""Sets attnnet up in a virtual environment of its own and does one job there.

    python3 dev.py demo            installs into .venv, trains on `shapes`, shows the result
    python3 dev.py test [ARGS...]  installs into .venv-test and runs the tests (pytest's ARGS)
    python3 dev.py test --torch    the same with PyTorch, ONNX Runtime, MPI, and the notebooks
    python3 dev.py notebooks       executes the lessons from nothing and stores their outputs
    python3 dev.py sanitize        compilers' warnings, static analysis, ThreadSanitizer, then the
                                   tests under Address-, UndefinedBehavior- and LeakSanitizer
                                   (--quick: some; [PART...] [-- ARGS...]: see
                                   tests/sanitizers/run.py)
    python3 dev.py coverage [ARGS...]
                                   how much of the C and the Python the tests reach, and what not
                                   (pytest's ARGS; needs gcc with gcov)
    python3 dev.py wheel           builds sdist and wheel, audits them, tests the wheel from
                                   another folder ([PYTHON...] [--numpy oldest newest] [--all]:
                                   see tests/installs/run.py)
    python3 dev.py docs            builds the documentation's site into site/; a warning is an error
                                   (serve: shows it, and follows changes)
    python3 dev.py fuzz [READER...] [--runs N | --seconds S] [--keep]
                                   gives hostile files to all that reads files, led by coverage
                                   where atheris can be had (see tests/fuzz/run.py)
    python3 dev.py properties [--examples N] [--seed S]
                                   every operation and block on random shapes against the float64
                                   twins, on each instruction set (see tests/properties/run.py)
    python3 dev.py networks [--hours H | --count N] [--seed S]
                                   trains random networks here and in PyTorch, and compares, for
                                   hours (see tests/properties/compare.py)
    python3 dev.py kill [--times N]
                                   kills trainings at random moments (default: 200 times)

Needs Python 3.10 or newer and a C compiler; nothing else on the machine is touched.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
# What the tests compare against, and what runs the notebooks.
MORE = [TORCH, "onnx==1.23.2", "onnxruntime==1.32.0", "nbclient", "ipykernel", "mpi4py==4.1.2",
        "mpich==5.0.2"]  # fmt: skip

# How the core is built for the sanitizers, and for valgrind, which brings its own.
SANITIZED = {
    "ATTNNET_CFLAGS": "-O1 -g -fno-wrapv -fno-omit-frame-pointer "
                      "-fsanitize=address,undefined,float-cast-overflow",
    "ATTNNET_LDFLAGS": "-fsanitize=address,undefined",
}
FOR_VALGRIND = {"ATTNNET_CFLAGS": "-O1 -g -DATTN_NO_CACHE"}
COUNTED = {"ATTNNET_CFLAGS": "-O1 --coverage", "ATTNNET_LDFLAGS": "--coverage"}


def environment(name: str, *packages: str, **variables: str) -> Path:
    """The folder of programs of a virtual environment with attnnet as it is now.

    Args:
        name: of the folder, in the repository. packages: what pip installs there.
        variables: of the environment that the core is built in.
    """
    folder = ROOT / name
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    if not (programs / "python").exists():
        print(f"making {folder.name} ...", flush=True)
        venv.create(folder, with_pip=True, clear=True)
    if any(package.startswith(".") for package in packages):
        print("building and installing attnnet ...", flush=True)
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], cwd=ROOT, check=True, env={**os.environ, **variables})
    return programs


def run(*words: str | Path) -> int:
    """Runs a program in the repository; its exit status."""
    return subprocess.run(words, cwd=ROOT).returncode


def script(path: str, name: str, *packages: str, **variables: str) -> Callable[[list[str]], int]:
    """The job of a script in the repository, in an environment as ``environment`` makes it."""
    def job(arguments: list[str]) -> int:
        python = environment(name, *packages, **variables) / "python"
        return run(python, ROOT / path, *arguments)

    return job


def demo(arguments: list[str]) -> int:
    """Trains the default network on images made on the spot."""
    return run(environment(".venv", ".[plots]") / "attnnet", "train", *arguments)


def test(arguments: list[str]) -> int:
    """Runs the tests against the installed package, not the source tree."""
    extra = MORE if "--torch" in arguments else []
    programs = environment(".venv-test", ".[dev]", *extra)
    return run(programs / "pytest", *(word for word in arguments if word != "--torch"))


def sanitize(arguments: list[str]) -> int:
    """Runs the core under what finds its errors."""
    name, variables = ".venv-sanitize", SANITIZED
    if "valgrind" in arguments:  # which brings its own
        name, variables = ".venv-valgrind", FOR_VALGRIND
    return script("tests/sanitizers/run.py", name, ".[dev]", **variables)(arguments)


def wheel(arguments: list[str]) -> int:
    """Builds, audits and tests what users install; needs no environment but its own."""
    return run(sys.executable, ROOT / "tests" / "installs" / "run.py", *arguments)


def docs(arguments: list[str]) -> int:
    """Builds the documentation's site, strictly."""
    # Only the tools: the reference is read from the sources, so that nothing need be compiled.
    text = (ROOT / "pyproject.toml").read_text()
    tools = re.findall(r'"([^"]+)"', re.search(r"^docs = \[(.*?)\]", text, re.M | re.S)[1])
    programs = environment(".venv-docs", *tools)
    job = ["serve"] if arguments[:1] == ["serve"] else ["build", "--strict", *arguments]
    return run(programs / "mkdocs", *job)


def fuzz(arguments: list[str]) -> int:
    """Runs the readers on hostile files."""
    job = script("tests/fuzz/run.py", ".venv-fuzz", ".[dev]", "atheris")
    try:
        return job(arguments)
    except subprocess.CalledProcessError:
        print("no atheris for this Python: mutations without coverage", flush=True)
        return script("tests/fuzz/run.py", ".venv-fuzz", ".[dev]")(arguments)


JOBS = {
    "demo": demo,
    "test": test,
    "notebooks": script("notebooks/execute.py", ".venv-notebooks", ".[plots]", "nbclient",
                        "ipykernel"),
    "sanitize": sanitize,
    "coverage": script("tests/sanitizers/covered.py", ".venv-coverage", ".[dev]",
                       "coverage>=7.10", **COUNTED),
    "wheel": wheel,
    "docs": docs,
    "fuzz": fuzz,
    "properties": script("tests/properties/run.py", ".venv-test", ".[dev]"),
    "networks": script("tests/properties/compare.py", ".venv-test", ".[dev]", TORCH),
    "kill": script("tests/faults/kill.py", ".venv-test", ".[dev]"),
}  # fmt: skip


def main() -> int:
    if sys.version_info < (3, 10):  # noqa: UP036  (run by whatever Python the user has)
        print("attnnet needs Python 3.10 or newer", file=sys.stderr)
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        print(__doc__)
        return 2
    try:
        return JOBS[sys.argv[1]](sys.argv[2:])
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return error.returncode


if __name__ == "__main__":
    sys.exit(main())
