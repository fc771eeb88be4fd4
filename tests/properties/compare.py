"""Trains random networks in attnnet and in PyTorch, for hours; see ``dev.py networks``.

    compare.py [--hours H | --count N] [--seed S]

Each network has a seed, S and the numbers after it: S is printed, and is another one in every run
unless it is given. A failure is printed with its seed and the network; ``--seed`` of a failure with
``--count 1`` repeats it. Nothing is written.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="networks", description=__doc__.split("\n")[0])
    parser.add_argument("--hours", type=float, default=8.0, metavar="H")
    parser.add_argument("--count", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args(arguments)
    from properties import networks

    print(f"from seed {options.seed} on", flush=True)
    end, seed, failures = time.monotonic() + 3600 * options.hours, options.seed, []
    last = None if options.count is None else options.seed + options.count
    try:
        while seed < last if last is not None else time.monotonic() < end:
            try:
                networks.compare(seed)
            except Exception as failure:
                failures.append(seed)
                drawn = networks.draw_network(seed)
                print(f"seed {seed}: {type(failure).__name__}: {failure}\n    {drawn}", flush=True)
            seed += 1
    except KeyboardInterrupt:
        print("stopped")
    print(f"{seed - options.seed} networks, {len(failures)} failures: {failures}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
