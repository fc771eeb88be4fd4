"""How much of the sources the tests reach, C and Python; see ``dev.py coverage``.

    covered.py [PYTEST ARGS...]

Needs an extension that was built with --coverage, and the packages coverage and pytest. Prints a
figure for each folder of the core and each module of the package that is not wholly reached, the
functions of C that nothing called, and the lines of Python that nothing ran. A kernel is compiled
once an instruction set: its line counts where one of them ran it. Processes that the tests start
count, but not those that they kill.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
[run]
source_pkgs = attnnet
data_file = {folder}/data
parallel = true
patch = subprocess
omit = */attnnet/bench/*
[report]
skip_covered = true
show_missing = true
"""


def gather() -> tuple[dict[str, dict[int, bool]], dict[str, dict[str, bool]]]:
    """{file: {line: reached}}, {file: {function: called}} of all that gcov's files say."""
    lines: dict = defaultdict(dict)
    functions: dict = defaultdict(dict)
    for data in sorted((ROOT / "build").rglob("*.gcda")):
        done = subprocess.run(["gcov", "--json-format", "--stdout", data], cwd=ROOT,
                              capture_output=True, text=True, check=True)  # fmt: skip
        for file in json.loads(done.stdout)["files"]:
            name = os.path.relpath(ROOT / file["file"], ROOT)
            if not name.startswith("csrc"):
                continue
            for line in file["lines"]:
                number = line["line_number"]
                reached = line["count"] > 0 or lines[name].get(number, False)
                lines[name][number] = reached
            for function in file["functions"]:
                # avx2_relu and baseline_relu are one kernel
                called = function["execution_count"] > 0
                key = f"{function['start_line']}"
                before = functions[name].get(key, (None, False))
                functions[name][key] = (function["name"], called or before[1])
    return lines, functions


def show(lines: dict, functions: dict) -> None:
    by_folder: dict = defaultdict(list)
    for name, reached in lines.items():
        by_folder[os.path.dirname(name)] += reached.values()
    every = [hit for hits in by_folder.values() for hit in hits]
    if not every:
        print("C: nothing was counted; was the extension built with --coverage?")
        return
    print(f"C: {100 * sum(every) / len(every):.1f} % of {len(every)} lines")
    for folder, hits in sorted(by_folder.items()):
        print(f"    {folder:<16}{100 * sum(hits) / len(hits):6.1f} % of {len(hits)}")
    print("not called:")
    for name, found in sorted(functions.items()):
        idle = [function for function, called in found.values() if not called]
        if idle:
            print(f"    {name}: {', '.join(sorted(idle))}")


def main(arguments: list[str]) -> int:
    for old in (ROOT / "build").rglob("*.gcda"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings"
        settings.write_text(SETTINGS.format(folder=folder))
        tool = [sys.executable, "-m", "coverage"]
        # Not `python -m pytest`: that would take the package from the source tree.
        code = subprocess.run(
            [*tool, "run", f"--rcfile={settings}", Path(sys.executable).with_name("pytest"), "-q",
             "-p", "no:cacheprovider", *(arguments or ["tests"])], cwd=ROOT).returncode  # fmt: skip
        show(*gather())
        subprocess.run([*tool, "combine", "--quiet", f"--rcfile={settings}"], cwd=ROOT)
        print("Python:", flush=True)
        subprocess.run([*tool, "report", f"--rcfile={settings}"], cwd=ROOT)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
