"""What test_mpi.py lets several processes do at once: a training told by one JSON argument.

Its keys: ``recipe``: changes to that of ``tiny``; ``train``, ``test``: numbers of images, ``side``
their size; ``output``, ``resume``: of the trainer; ``results``: a folder that each rank writes to;
``trouble``: {"rank", "step", "what"}, see ``TROUBLE``; ``each``: changes by rank.
"""

import json
import os
import signal
import sys
import zlib

import numpy as np

import attnnet
from attnnet.data import from_arrays
from attnnet.training import Trainer, ranks, trainer
from training import tiny


def images(count, side, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return from_arrays(pixels, rng.integers(0, 10, count), [str(i) for i in range(10)])


def fail(made):
    raise ZeroDivisionError("made up")


def change_a_weight(made):
    parameter = next(made.model.parameters())
    parameter.copy_(parameter.numpy() * 1.001)


TROUBLE = {
    "terminate": lambda made: os.kill(os.getpid(), signal.SIGTERM),
    "kill": lambda made: os.kill(os.getpid(), signal.SIGKILL),
    "fail": fail,
    "change": change_a_weight,
    "nan": lambda made: tiny.poison(next(made.model.parameters())),
}


def make_trouble(rank, step, what):
    """Before a step of the first epoch, in one process."""
    real = trainer.train_step

    def train_step(made, batch):
        if (made.ranks.rank, made.epoch, made.batch) == (rank, 0, step):
            TROUBLE[what](made)
        return real(made, batch)

    trainer.train_step = train_step


def main():
    job = json.loads(sys.argv[1])
    rank = ranks.find_ranks().rank
    job |= job.get("each", {}).get(str(rank), {})
    if "trouble" in job:
        make_trouble(**job["trouble"])
    side = job.get("side", 16)
    data = images(job.get("train", 50), side, 0), images(job.get("test", 20), side, 1)
    options = {"data": data, "progress": "lines"}
    if job.get("resume"):
        made = Trainer.resume(job["resume"], job.get("output"), **options)
    else:
        recipe = tiny.recipe(dataset="arrays", **job.get("recipe", {}))
        made = Trainer(recipe, job.get("output", False), **options)
    made.prepare()
    told = {"threads": attnnet.get_num_threads(), "size": made.ranks.size}
    before = made.model.state_dict()
    told["evaluation"] = made.evaluate(data[1], together=True).to_dict()
    history = made.fit()
    weights = made.model.state_dict()
    told["interrupted"], told["rows"] = history.interrupted, history.plain_rows()
    told["crc"] = [zlib.crc32(np.ascontiguousarray(a).tobytes()) for a in weights.values()]
    told["summary"] = history.summary
    if rank == 0:
        np.savez(os.path.join(job["results"], "before.npz"), **before)
        np.savez(os.path.join(job["results"], "after.npz"), **weights)
    with open(os.path.join(job["results"], f"{rank}.json"), "w") as file:
        json.dump(told, file)


if __name__ == "__main__":
    main()
