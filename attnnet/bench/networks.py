"""Training steps and inference of whole networks, beside other systems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np

from ..errors import unknown_name
from .compare import compare
from .engine import Attnnet, Engine, Job
from .footprint import MEMORY
from .machine import peak_gflops
from .record import Record
from .runner import Runner

TRAINING = (
    Job("resnet18", None, 128),
    Job("resnet18", "NEW_12", 128),
    Job("resnet18", "CBAM_12", 128),
    Job("resnet18", "SE_12", 128),
    Job("resnet18", "SEC_SA_12", 128),
    Job("resnet18", "AA_1", 128),
    Job("vgg19", None, 128, 10),
    Job("vgg19", "NEW_1", 128, 10),
    Job("resnet50", None, 64),
)
INFERENCE = (
    Job("resnet18", None, 128),
    Job("vgg19", None, 128, 10),
    Job("resnet18", None, 1),
    Job("vgg19", None, 1, 10),
)
# The largest difference of logits from ours that counts as the same network, as a share of the
# largest logit.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
# PyTorch's attention holds whole maps: 22 GiB at batch 128. There it is timed on a smaller batch,
# and images a second are what is compared.
LARGEST_BATCH = {"AA": 16}


def training(
    engines: Sequence[Engine], rounds: int, jobs: Sequence[Job] = TRAINING
) -> Iterator[Record]:
    """Images a second of training steps, which count as three evaluations."""
    for job in jobs:
        case = f"{job.network}, batch {job.batch}"
        yield from _compare("training", case, job, engines, rounds)


def inference(
    engines: Sequence[Engine], rounds: int, jobs: Sequence[Job] = INFERENCE
) -> Iterator[Record]:
    """Images a second at batch 128, milliseconds at batch 1."""
    for job in jobs:
        case = f"{job.network}, batch {job.batch}"
        yield from _compare("inference", case, job, engines, rounds)


def only(networks: Sequence[str], jobs: Sequence[Job]) -> list[Job]:
    """The jobs of the networks, each "ARCH" or "ARCH:BLOCK"; all for none."""
    return [job for job in jobs if not networks or _option(job) in networks]


def check(networks: Sequence[str]) -> None:
    """Raises a ValueError for a network that no section knows."""
    names = dict.fromkeys(_option(job) for job in (*TRAINING, *INFERENCE, *MEMORY))
    for network in networks:
        if network not in names:
            raise unknown_name("network", network, names)


def _option(job: Job) -> str:
    return job.network.replace(" ", ":")


def smaller(job: Job) -> Job:
    """The job as systems take it that hold whole attention maps."""
    for block, batch in LARGEST_BATCH.items():
        if job.block is not None and f"{block}_" in f"{job.block}_" and job.batch > batch:
            return Job(job.arch, job.block, batch, job.classes)
    return job


def _compare(
    section: Literal["training", "inference"],
    case: str,
    job: Job,
    engines: Sequence[Engine],
    rounds: int,
) -> Iterator[Record]:
    jobs = {e.name: job if isinstance(e, Attnnet) else smaller(job) for e in engines}

    def make(engine: Engine) -> Callable[[], Runner]:
        kind = engine.train if section == "training" else engine.infer
        return partial(kind, jobs[engine.name])

    times, notes = compare(engines, make, _wrong, rounds)
    for engine in engines:
        time, batch = times.get(engine.name), jobs[engine.name].batch
        value, note = None, notes.get(engine.name, "")
        if time is not None:
            value = 1e3 * time.median if job.batch == 1 else batch / time.median
            if batch != job.batch:
                note = f"at batch {batch}"
            elif isinstance(engine, Attnnet) and job.batch > 1:
                done = (3 if section == "training" else 1) * job.flops / time.median / 1e9
                share = 100 * done / peak_gflops()
                note = f"{done:.0f} direct-equivalent GFLOP/s, {share:.0f} % of the peak"
        yield Record(
            section,
            case,
            engine.name,
            value,
            "ms" if job.batch == 1 else "images/s",
            higher=job.batch != 1,
            precision=engine.precision,
            spread=time.spread if time else None,
            note=note,
        )


def _wrong(theirs: np.ndarray, ours: np.ndarray, precision: str) -> str:
    ours = ours[: len(theirs)]  # a smaller batch holds the first of the images
    if theirs.shape != ours.shape:
        return f"logits of shape {theirs.shape}, expected {ours.shape}"
    gap = float(np.abs(theirs - ours).max() / np.abs(ours).max())
    if not gap <= TOLERANCE[precision]:
        return f"its logits are off by {100 * gap:.2g} % of the largest"
    return ""
