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
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# What the tests compare against, and what runs the notebooks.
MORE = ["torch==2.13.0", "onnx==1.23.2", "onnxruntime==1.32.0", "nbclient", "ipykernel",
        "mpi4py==4.1.2", "mpich==5.0.2"]  # fmt: skip


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


def demo(arguments: list[str]) -> int:
    """Trains the default network on images made on the spot."""
    programs = environment(".venv", ".[plots]")
    return subprocess.run([programs / "attnnet", "train", *arguments], cwd=ROOT).returncode


def test(arguments: list[str]) -> int:
    """Runs the tests against the installed package, not the source tree."""
    extra = MORE if "--torch" in arguments else []
    programs = environment(".venv-test", ".[dev]", *extra)
    rest = [argument for argument in arguments if argument != "--torch"]
    return subprocess.run([programs / "pytest", *rest], cwd=ROOT).returncode


def notebooks(arguments: list[str]) -> int:
    """Executes the lessons and stores them with their outputs."""
    programs = environment(".venv-notebooks", ".[plots]", "nbclient", "ipykernel")
    script = ROOT / "notebooks" / "execute.py"
    return subprocess.run([programs / "python", script, *arguments], cwd=ROOT).returncode


def sanitize(arguments: list[str]) -> int:
    """Runs the core under what finds its errors."""
    if "valgrind" in arguments:
        programs = environment(".venv-valgrind", ".[dev]", **FOR_VALGRIND)
    else:
        programs = environment(".venv-sanitize", ".[dev]", **SANITIZED)
    runner = ROOT / "tests" / "sanitizers" / "run.py"
    return subprocess.run([programs / "python", runner, *arguments], cwd=ROOT).returncode


def coverage(arguments: list[str]) -> int:
    """Counts what the tests reach."""
    programs = environment(".venv-coverage", ".[dev]", "coverage>=7.10", **COUNTED)
    runner = ROOT / "tests" / "sanitizers" / "covered.py"
    return subprocess.run([programs / "python", runner, *arguments], cwd=ROOT).returncode


def wheel(arguments: list[str]) -> int:
    """Builds, audits and tests what users install; needs no environment but its own."""
    runner = ROOT / "tests" / "installs" / "run.py"
    return subprocess.run([sys.executable, runner, *arguments], cwd=ROOT).returncode


def docs(arguments: list[str]) -> int:
    """Builds the documentation's site, strictly."""
    # Only the tools: the reference is read from the sources, so that nothing need be compiled.
    text = (ROOT / "pyproject.toml").read_text()
    tools = re.findall(r'"([^"]+)"', re.search(r"^docs = \[(.*?)\]", text, re.M | re.S)[1])
    programs = environment(".venv-docs", *tools)
    job = ["serve"] if arguments[:1] == ["serve"] else ["build", "--strict", *arguments]
    return subprocess.run([programs / "mkdocs", *job], cwd=ROOT).returncode


def fuzz(arguments: list[str]) -> int:
    """Runs the readers on hostile files."""
    try:
        programs = environment(".venv-fuzz", ".[dev]", "atheris")
    except subprocess.CalledProcessError:
        print("no atheris for this Python: mutations without coverage", flush=True)
        programs = environment(".venv-fuzz", ".[dev]")
    runner = ROOT / "tests" / "fuzz" / "run.py"
    return subprocess.run([programs / "python", runner, *arguments], cwd=ROOT).returncode


def kill(arguments: list[str]) -> int:
    """Kills trainings and goes on with them."""
    programs = environment(".venv-test", ".[dev]")
    runner = ROOT / "tests" / "faults" / "kill.py"
    return subprocess.run([programs / "python", runner, *arguments], cwd=ROOT).returncode


def properties(arguments: list[str]) -> int:
    """Runs the property tests on many examples."""
    programs = environment(".venv-test", ".[dev]")
    runner = ROOT / "tests" / "properties" / "run.py"
    return subprocess.run([programs / "python", runner, *arguments], cwd=ROOT).returncode


def networks(arguments: list[str]) -> int:
    """Trains random networks beside PyTorch's."""
    programs = environment(".venv-test", ".[dev]", *(p for p in MORE if p.startswith("torch")))
    runner = ROOT / "tests" / "properties" / "compare.py"
    return subprocess.run([programs / "python", runner, *arguments], cwd=ROOT).returncode


def main() -> int:
    jobs = {
        "demo": demo, "test": test, "notebooks": notebooks, "sanitize": sanitize, "wheel": wheel,
        "docs": docs, "fuzz": fuzz, "kill": kill, "properties": properties, "networks": networks,
        "coverage": coverage,
    }  # fmt: skip
    if sys.version_info < (3, 10):  # noqa: UP036  (run by whatever Python the user has)
        print("attnnet needs Python 3.10 or newer", file=sys.stderr)
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in jobs:
        print(__doc__)
        return 2
    try:
        return jobs[sys.argv[1]](sys.argv[2:])
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return error.returncode


if __name__ == "__main__":
    sys.exit(main())
