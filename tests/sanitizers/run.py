"""Runs the core under warnings, static analysis, sanitizers and valgrind; see ``dev.py sanitize``.

    run.py [--quick] [PART...] [-- PYTEST ARGS...]

Parts: warnings (gcc and clang, -Wall -Wextra -Werror), lint (clang-tidy with .clang-tidy, cppcheck,
ruff; those that the machine has), threads (ThreadSanitizer over threads.c),
address (the tests under Address-, UndefinedBehavior- and LeakSanitizer, with an extension that was
built for them), portable (kernels.c, for this machine and, emulated, for aarch64), valgrind (a
smoke set, with an extension built with -DATTN_NO_CACHE). Without a part: all but the last. --quick
leaves out `portable`, and takes the tests that reach most of the C code in a short time.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
QUICK = ["tests/core/test_leaks.py", "tests/core/test_autograd.py", "tests/core/test_tensor.py",
         "tests/core/test_dlpack.py", "tests/ops/test_inputs.py", "tests/data/test_augment.py"]
SMOKE = ["tests/core/test_tensor.py", "tests/data/test_augment.py", "tests/ops/test_inputs.py"]
POOL = ["base/threads.c", "base/memory.c", "base/arena.c", "base/status.c", "base/random.c",
        "base/profile.c", "data/augment.c"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"]
FINDING = re.compile(r"runtime error:|ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|"
                     r"ERROR SUMMARY: [1-9]")


def run(*command: object, **variables: str) -> int:
    return subprocess.run([str(c) for c in command], cwd=ROOT,
                          env={**os.environ, **variables}).returncode


def x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def sources(kernels: bool) -> list[Path]:
    """The files that are compiled once an instruction set, or the others."""
    return [p for p in sorted((ROOT / "csrc").glob("*/*.c"))
            if (p.parent.name == "kernels" and p.name != "dispatch.c") == kernels]


def included() -> list[str]:
    import numpy

    return [f"-I{sysconfig.get_path('include')}", f"-I{numpy.get_include()}"]


def warnings() -> int:
    """Every file of the core by each compiler that is there; no code is made."""
    failed = 0
    for compiler in ("gcc", "clang"):
        if shutil.which(compiler) is None:
            print(f"{compiler} is not installed: not run", flush=True)
            continue
        for kernels in (True, False):
            options = ["-DATTN_ISA=avx512", *AVX512] if x86() else ["-DATTN_ISA=baseline"]
            options = (options if kernels else []) + ["-DATTN_HAVE_X86_SETS=1"] * x86()
            failed |= run(compiler, "-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
                          *options, *included(), *sources(kernels))
    return failed


def lint() -> int:
    """What reads the sources for errors; a tool that is not there is said to be missing."""
    failed = 0
    for tool, check in (("clang-tidy", tidy), ("cppcheck", cppcheck), ("ruff", ruff)):
        beside = Path(sys.executable).with_name(tool)  # in the virtual environment
        program = str(beside) if beside.exists() else shutil.which(tool)
        if program is None:
            print(f"{tool} is not installed: not run", flush=True)
            continue
        code = check(program)
        print(f"{tool}: {'findings' if code else 'nothing found'}", flush=True)
        failed |= code
    return failed


def tidy(program: str) -> int:
    # Scratch memory is measured by laying it out from NULL, and sums are those of at least one
    # part: in kernels the analyzer follows paths that no caller takes.
    fewer = ["--checks=-clang-analyzer-core.NullDereference,-clang-analyzer-core.uninitialized.*"]
    options = ["-std=gnu11", *["-DATTN_HAVE_X86_SETS=1"] * x86(), *included(),
               "-DATTN_ISA=baseline", "-include", HERE / "analyzer.h"]
    commands = [(program, "--quiet", *(fewer if kernels else []), file, "--", *options)
                for kernels in (False, True) for file in sources(kernels)
                if file.name != "status.c"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return int(any(pool.map(lambda command: quietly(*command), commands)))


def cppcheck(program: str) -> int:
    return quietly(program, "--quiet", "--std=c11", "--platform=unix64", "--library=python",
                   "--enable=warning,performance,portability", "--error-exitcode=1",
                   f"--suppressions-list={HERE / 'cppcheck.supp'}", "-DATTN_ISA=baseline",
                   *["-DATTN_HAVE_X86_SETS=1"] * x86(), "-I", ROOT / "csrc", ROOT / "csrc")


def ruff(program: str) -> int:
    return quietly(program, "check", "--quiet", "--no-cache", ".")


def quietly(*command: object) -> int:
    """Runs it; its output is shown only where it found something."""
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print((done.stdout + done.stderr)[-20_000:], flush=True)
    return done.returncode


def threads(option: str = "-fsanitize=thread", *before: str) -> int:
    """threads.c, built and run."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "threads"
        built = run(os.environ.get("CC", "gcc"), "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra",
                    option, "-pthread", HERE / "threads.c",
                    *(ROOT / "csrc" / source for source in POOL), "-o", program, "-lm")
        return built or run(*before, program, TSAN_OPTIONS="halt_on_error=0:exitcode=66")


def portable() -> int:
    """kernels.c with the whole core but Python's part, built and run."""
    cross = [shutil.which(program) for program in ("aarch64-linux-gnu-gcc", "qemu-aarch64")]
    machines = [(os.environ.get("CC", "gcc"), [])]
    if all(cross):
        machines.append((cross[0], [cross[1]]))
    else:
        print("no cross compiler and emulator for aarch64: not run", flush=True)
    files = [p for kind in (True, False) for p in sources(kind) if p.parent.name != "python"]
    failed = 0
    for compiler, emulator in machines:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "kernels"
            failed |= run(compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror",
                          "-fno-math-errno", "-ffp-contract=fast", "-DATTN_ISA=baseline", "-static",
                          HERE / "kernels.c", *files, "-o", program, "-lm", "-pthread", "-ldl")
            failed |= failed or run(*emulator, program)
    return failed


def library(name: str) -> str:
    found = subprocess.run([os.environ.get("CC", "gcc"), f"-print-file-name={name}"],
                           capture_output=True, text=True, check=True)
    return found.stdout.strip()


def pytest(arguments: list[str], *before: str, finds: Callable[[str], list[str]] = FINDING.findall,
           **variables: str) -> int:
    """The tests, with what a sanitizer writes to stderr kept and looked through."""
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        # Not `python -m pytest`: that would take the package from the source tree.
        program = Path(sys.executable).with_name("pytest")
        command = [*before, sys.executable, program, "-q", "-p", "no:cacheprovider", "-p",
                   "no:faulthandler", "--capture=sys", *arguments]
        code = subprocess.run(command, cwd=ROOT, stderr=log,
                              env={**os.environ, **variables}).returncode
        log.seek(0)
        text = log.read()
    found = finds(text)
    if code or found:
        print("\n\n".join(found)[-10_000:], text[-20_000:], sep="\n\n", file=sys.stderr)
    print(f"{len(found)} findings")
    return code or bool(found)


def address(arguments: list[str]) -> int:
    return pytest(
        arguments,
        LD_PRELOAD=f"{library('libasan.so')} {library('libubsan.so')}",
        ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1:strict_string_checks=1:"
                     "malloc_context_size=4:exitcode=99",
        UBSAN_OPTIONS="print_stacktrace=1",
        LSAN_OPTIONS=f"suppressions={HERE / 'lsan.supp'}:print_suppressions=0",
    )


def valgrind(arguments: list[str]) -> int:
    """threads.c and the smoke set. The pool's threads live as long as the process: what belongs to
    them is only possibly lost."""
    checked = ["valgrind", "--num-callers=20", "--fullpath-after="]
    alone = threads("-DATTN_NO_CACHE", *checked, "--error-exitcode=98", "--fair-sched=yes",
                    "--leak-check=full", "--show-leak-kinds=definite",
                    "--errors-for-leak-kinds=definite")
    return alone or pytest(arguments, *checked, finds=through_the_core, PYTHONMALLOC="malloc",
                           ATTNNET_ISA="avx2")


def through_the_core(text: str) -> list[str]:
    """Of valgrind's reports those with the core in their stack: Python 3.11 has some of its own,
    from its start on (``int.from_bytes`` of zeros), and so has the C library."""
    reports = re.sub(r"^==\d+== ?", "", text, flags=re.MULTILINE).split("\n\n")
    return [report for report in reports if re.search(r"csrc/\w+/\w+\.[ch]:\d+\)", report)]


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parts, chosen = arguments[:split], arguments[split + 1 :]
    quick = "--quick" in parts
    usual = ["warnings", "lint", "threads", *["portable"] * (not quick), "address"]
    parts = [p for p in parts if p != "--quick"] or usual
    jobs = {
        "warnings": warnings,
        "lint": lint,
        "threads": threads,
        "portable": portable,
        "address": lambda: address(chosen or (QUICK if quick else ["tests"])),
        "valgrind": lambda: valgrind(chosen or SMOKE),
    }
    failed = 0
    for part in parts:
        if part not in jobs:
            print(__doc__)
            return 2
        print(f"-- {part}", flush=True)
        failed |= bool(jobs[part]())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
