"""Single layers at the shapes that ResNet18 and VGG19 give them: against what the machine can do,
and beside other systems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from .. import create_model, optim
from ..nn import list_blocks
from ..tensor import Tensor
from .compare import compare
from .engine import Attnnet, Engine
from .layers import PARTS, Block, Convolution, Layer, Norm, Part, convolutions
from .machine import memory_gbs, peak_gflops
from .networks import LARGEST_BATCH
from .record import Record
from .runner import Runner
from .timing import interleaved

# Channels and side of the outputs of ResNet18's stages.
STAGES = ((64, 32), (128, 16), (256, 8), (512, 4))
# The largest root mean square of the difference of results, as a share of ours, that counts as
# the same layer. Where two values are nearly the largest, rounding decides which gets the gradient.
TOLERANCE = 1e-2


def operations(engines: Sequence[Engine], batch: int, rounds: int) -> Iterator[Record]:
    """Milliseconds of convolutions, batch norm and the optimiser, with roofline figures: billions
    of direct-equivalent operations a second and their share of the peak (Winograd's algorithms need
    fewer, so that more than 100 % is possible), or gigabytes a second of what must be read and
    written and their share of the memory's."""
    peak, bandwidth = peak_gflops(), memory_gbs()
    yield Record("machine", "multiply-adds, all threads", "attnnet", peak, "GFLOP/s")
    yield Record("machine", "adding two arrays", "attnnet", bandwidth, "GB/s")
    for shape in dict.fromkeys(convolutions("resnet18", batch) + convolutions("vgg19", batch)):
        for part in PARTS:
            yield from _layer("operations", shape, part, engines, rounds, peak, bandwidth)
    for channels, size in STAGES:
        for part in PARTS:
            norm = Norm((batch, channels, size, size))
            yield from _layer("operations", norm, part, engines, rounds, peak, bandwidth)
    yield from _optimiser(rounds, bandwidth)


def blocks(engines: Sequence[Engine], batch: int, rounds: int) -> Iterator[Record]:
    """Milliseconds of each attention block of the registry at the first two stages of ResNet18."""
    for name in list_blocks():
        for channels, size in STAGES[:2]:
            for part in PARTS:
                block = Block((batch, channels, size, size), name)
                yield from _layer("blocks", block, part, engines, rounds)


def _layer(
    section: str,
    layer: Layer,
    part: Part,
    engines: Sequence[Engine],
    rounds: int,
    peak: float = 0.0,
    bandwidth: float = 0.0,
) -> Iterator[Record]:
    taking_part = [e for e in engines if e.layers and e.precision == "float32"]
    layers = {e.name: layer if isinstance(e, Attnnet) else _smaller(layer) for e in taking_part}

    def make(engine: Engine) -> Callable[[], Runner]:
        return partial(engine.layer, layers[engine.name], part)

    times, notes = compare(taking_part, make, _wrong, rounds)
    for engine in taking_part:
        time, note, value = times.get(engine.name), notes.get(engine.name, ""), None
        if time is not None:
            share = layer.shape[0] / layers[engine.name].shape[0]
            value = 1e3 * time.median * share
            if isinstance(engine, Attnnet):
                note = _roofline(layer, part, time.median, peak, bandwidth)
            elif share != 1:
                note = f"{share:g} times that of a batch of {layers[engine.name].shape[0]}"
        yield Record(
            section,
            f"{layer.name}, {part}",
            engine.name,
            value,
            "ms",
            higher=False,
            spread=time.spread if time else None,
            note=note,
        )


def _smaller(layer: Layer) -> Layer:
    """The layer as systems take it that hold whole attention maps."""
    batch, *size = layer.shape
    if isinstance(layer, Block):
        batch = min(batch, LARGEST_BATCH.get(layer.block.split("_")[0], batch))
    return replace(layer, shape=(batch, *size))


def _wrong(theirs: np.ndarray, ours: np.ndarray, precision: str) -> str:
    ours = ours[: len(theirs)]  # a smaller batch holds the first of the images
    if theirs.shape != ours.shape:
        return f"a result of shape {theirs.shape}, expected {ours.shape}"
    gap = float(np.linalg.norm(theirs - ours) / np.linalg.norm(ours))
    return "" if gap <= TOLERANCE else f"its result is off by {100 * gap:.2g} %"


def _roofline(layer: Layer, part: Part, seconds: float, peak: float, bandwidth: float) -> str:
    if isinstance(layer, Convolution):
        products = 2 if part == "backward" and layer.wants_gradient else 1
        speed = products * layer.flops / seconds / 1e9
        share = 100 * speed / peak
        return f"{speed:.0f} GFLOP/s, {share:.0f} % of the peak, {layer.plan()['algorithm']}"
    if isinstance(layer, Norm):
        # Tensors read or written: statistics 1, normalise 3; sums 2, gradients 4.
        speed = (4 if part == "forward" else 6) * 4 * np.prod(layer.shape) / seconds / 1e9
        return f"{speed:.0f} GB/s, {100 * speed / bandwidth:.0f} % of the memory's"
    return ""


def _optimiser(rounds: int, bandwidth: float) -> Iterator[Record]:
    model = create_model("resnet18", None)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = Tensor(np.ones(parameter.shape, np.float32))
    step = optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4).step
    time = interleaved({"step": step}, rounds)["step"].median
    # Weight, gradient and momentum are read; weight and momentum are written.
    speed = 5 * sum(p.numel() for p in parameters) * 4 / time / 1e9
    note = f"{speed:.0f} GB/s, {100 * speed / bandwidth:.0f} % of the memory's"
    yield Record(
        "operations", "SGD step of resnet18", "attnnet", 1e3 * time, "ms", higher=False, note=note
    )
