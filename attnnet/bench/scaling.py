"""How the cost grows: with the batch, the depth, attention blocks; and what more threads save."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from .. import get_num_threads, set_num_threads
from .engine import Attnnet, Job
from .record import Record
from .timing import interleaved

BATCHES = (8, 16, 32, 64, 128, 256, 512)
DEPTHS = (18, 34, 50, 101, 152)
BLOCKS = {"resnet18": ("SE_12", "SEC_SA_12", "CBAM_12", "NEW_12"), "vgg19": ("NEW_1",)}
USUAL_BATCH = 128


def scaling(rounds: int) -> Iterator[Record]:
    """Training steps: milliseconds an image over batch sizes of ResNet18 and over depths, what
    blocks add to the base, and the speed of 1, 2, 4 ... threads over that of one."""
    for batch in BATCHES:
        seconds = _step(Job("resnet18", None, batch), rounds)
        yield _record(f"resnet18, batch {batch}", 1e3 * seconds / batch, "ms an image")
    for depth in DEPTHS:
        job = Job(f"resnet{depth}", None, 32)
        seconds = _step(job, rounds)
        note = f"{3 * job.flops / seconds / 1e9:.0f} direct-equivalent GFLOP/s"
        yield _record(f"resnet{depth}, batch 32", 1e3 * seconds / job.batch, "ms an image", note)
    for arch, blocks in BLOCKS.items():
        yield from _blocks(arch, blocks, rounds)
    yield from _threads(rounds)


def _blocks(arch: str, blocks: Sequence[str], rounds: int) -> Iterator[Record]:
    """Each round's step over the base's of the same round: a machine's speed changes meanwhile."""
    jobs = [Job(arch, block, USUAL_BATCH) for block in (None, *blocks)]
    steps = {job.network: Attnnet().train(job).step for job in jobs}
    base, *others = interleaved(steps, rounds).values()
    for job, timing in zip(jobs[1:], others, strict=True):
        ratios = [one / plain for one, plain in zip(timing.rounds, base.rounds, strict=True)]
        more = 100 * (statistics.median(ratios) - 1)
        case = f"{job.network}, batch {job.batch}"
        yield Record("scaling", case, "attnnet", more, "% over the base", higher=False)


def _threads(rounds: int) -> Iterator[Record]:
    most, counts = get_num_threads(), [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    runner = Attnnet().train(Job("resnet18", None, USUAL_BATCH))

    def with_threads(count: int) -> None:
        set_num_threads(count)
        runner.step()

    try:
        work = {str(count): lambda count=count: with_threads(count) for count in counts}
        times = interleaved(work, rounds)
    finally:
        set_num_threads(most)
    for count, timing in times.items():
        speed = times["1"].median / timing.median
        case = f"resnet18, batch {USUAL_BATCH}, threads {count}"
        yield Record("scaling", case, "attnnet", speed, "x one")


def _step(job: Job, rounds: int) -> float:
    return interleaved({"step": Attnnet().train(job).step}, rounds)["step"].median


def _record(case: str, value: float, unit: str, note: str = "") -> Record:
    return Record("scaling", case, "attnnet", value, unit, higher=False, note=note)
