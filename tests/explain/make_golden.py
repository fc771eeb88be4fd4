"""Writes golden.npz: maps by pytorch-grad-cam, for tests that run without it.

    pip install grad-cam==1.5.7 torch==2.13.0
    cd tests && python -m explain.make_golden
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from . import cases, tool


def main() -> None:
    if version("grad-cam") != cases.TOOL_VERSION:
        raise SystemExit(f"needs grad-cam {cases.TOOL_VERSION}, this is {version('grad-cam')}")
    stored = {}
    for case in cases.CASES:
        stored[str(case)] = tool.of_case(case, case.network(), case.images())
    np.savez_compressed(cases.STORED, **stored)
    print(f"{len(stored)} maps, {cases.STORED.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
