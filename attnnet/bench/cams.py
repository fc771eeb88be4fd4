"""Class activation maps, beside pytorch-grad-cam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..explain import CAM, cam
from ..explain.maps import layer_alone
from ..tensor import Tensor
from .engine import Job
from .record import Record
from .timing import BETWEEN_SYSTEMS, interleaved

METHODS = ("gradcam", "gradcam++", "layercam", "eigencam")
JOB = Job("resnet18", None, 64)
LAYER = "layer4"  # its output is that of the last block
TOLERANCE = 0.01  # the largest difference of maps, which are 0 to 1, that counts as the same map


def cams(vs: Sequence[str], rounds: int, job: Job = JOB) -> Iterator[Record]:
    """Images a second of whole calls: batch in, maps of the images' size out.

    Args:
        vs: systems to compare with, of which "grad-cam" makes maps.
        rounds: as in :func:`interleaved`.
        job: the network and the batch.
    """
    for method in METHODS:
        ours = _ours(job, method)
        lookers: dict[str, Callable[[], object]] = {"attnnet": ours}
        notes: dict[str, str] = {}
        if "grad-cam" in vs:
            notes["grad-cam"] = _add_tool(lookers, ours, job, method)
        times = interleaved(lookers, rounds, rest=BETWEEN_SYSTEMS)
        for engine in ("attnnet", *notes):
            time = times.get(engine)
            yield Record(
                "cams",
                f"{method} of {job.network}, batch {job.batch}",
                engine,
                job.batch / time.median if time else None,
                "images/s",
                spread=time.spread if time else None,
                note=notes.get(engine, ""),
            )


def _ours(job: Job, method: str) -> Callable[[], CAM]:
    model, images = job.model().eval(), Tensor(job.images)
    return lambda: cam(model, images, method, LAYER)


def _add_tool(
    lookers: dict[str, Callable[[], object]], ours: Callable[[], CAM], job: Job, method: str
) -> str:
    """Adds the tool's way where its maps are ours; else what is wrong."""
    try:
        from .peers.grad_cam import looker

        look = looker(job, method, LAYER)
        gap = _gap(look(), ours())
    except Exception as error:  # another system's failure must not end the benchmark
        return f"failed: {type(error).__name__}: {error}"
    if not gap <= TOLERANCE:
        return f"not timed: its maps are off by {gap:.2g}"
    lookers["grad-cam"] = look
    return ""


def _gap(theirs: np.ndarray, ours: CAM) -> float:
    """The largest difference. The sign of a principal component is arbitrary, and the tool's is
    any: there the nearer of both counts for each image."""
    gaps = np.abs(theirs - ours.maps).max((1, 2))
    if ours.method.principal:
        turned = layer_alone(-ours.layer_maps[LAYER], ours.maps.shape[1:])
        gaps = np.minimum(gaps, np.abs(theirs - turned).max((1, 2)))
    return float(gaps.max())
