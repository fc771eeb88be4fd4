"""The ways to compute a convolution: how fast each is, and how exact."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from .. import _core
from ..tensor import Tensor
from .engine import Attnnet
from .exact import convolve, relative_error
from .layers import PARTS, Convolution, normal
from .record import Record
from .timing import interleaved

T = TypeVar("T")

# 3x3 convolutions of each stage of ResNet18, of VGG's last, and the first at stride 2:
# (C, H, K, stride).
SHAPES = (
    (64, 32, 64, 1), (128, 16, 128, 1), (256, 8, 256, 1), (512, 4, 512, 1), (512, 2, 512, 1),
    (64, 32, 128, 2),
)  # fmt: skip
ERROR_BATCH = 8  # of the comparison with float64


def algorithms(batch: int, rounds: int) -> Iterator[Record]:
    """Each algorithm at each shape that it fits: milliseconds of a batch, and the relative error
    (root mean square, against float64) of the output and of the gradients of a batch of 8."""
    for channels, size, out, stride in SHAPES:
        shapes = [(n, channels, size, size) for n in (batch, ERROR_BATCH)]
        large, small = (Convolution(s, (out, channels, 3, 3), stride, 1) for s in shapes)
        found = [name for name in _core.convolution_algorithms() if _fits(name, large)]
        for part in PARTS:
            make = partial(Attnnet().layer, large, part)  # records what the backward pass does
            steps = {name: _by(name, make).step for name in found}
            work = {name: partial(_by, name, step) for name, step in steps.items()}
            times = interleaved(work, rounds)
            for name, time in times.items():
                yield _record(f"{large.name}, {part}", name, 1e3 * time.median, "ms")
        for name in found:
            for what, error in _by(name, partial(_errors, small)).items():
                yield _record(f"{large.name}, error of the {what}", name, 1e7 * error, "1e-7")


def _by(name: str, call: Callable[[], T]) -> T:
    """What the call returns with this algorithm wherever it fits."""
    _core.set_convolution_algorithm(name)
    try:
        return call()
    finally:
        _core.set_convolution_algorithm(os.environ.get("ATTNNET_CONVOLUTION"))


def _fits(name: str, layer: Convolution) -> bool:
    return _by(name, layer.plan)["algorithm"] == name


def _errors(layer: Convolution) -> dict[str, float]:
    module = layer.module()
    x = Tensor(layer.arrays()[0], requires_grad=True)
    y = module(x)
    dy = normal(1, y.shape)
    y.backward(Tensor(dy))
    exact = convolve(layer, x.numpy(), module.weight.numpy(), dy)
    found = {"output": y, "gradient": x.grad, "weights' gradient": module.weight.grad}
    return {
        what: relative_error(tensor.numpy(), right)
        for (what, tensor), right in zip(found.items(), exact, strict=True)
    }


def _record(case: str, name: str, value: float, unit: str) -> Record:
    return Record("algorithms", case, name, value, unit, higher=False)
