"""A process that makes three training steps and prints its peak memory in bytes.

    python -m attnnet.bench.child ENGINE THREADS ARCH BLOCK BATCH CLASSES
"""

import sys

from .. import set_num_threads
from .engine import Job
from .footprint import peak_memory
from .run import find_engine


def main(words: list[str]) -> None:
    """Runs; `words` as in the module's text."""
    name, threads, arch, block, batch, classes = words
    set_num_threads(int(threads))
    job = Job(arch, None if block == "none" else block, int(batch), int(classes))
    runner = find_engine(name, int(threads)).train(job)
    for _ in range(3):
        runner.step()
    print(peak_memory())


if __name__ == "__main__":
    main(sys.argv[1:])
