"""Operations at the shapes that ResNet18 and VGG19 give them, against what the machine can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .. import _core, create_model, functional, no_grad, optim
from ..nn import Conv2d, Module, list_blocks
from ..nn.registry import make_block
from ..tensor import Tensor
from .machine import memory_gbs, peak_gflops
from .record import Record
from .timing import interleaved


@dataclass(frozen=True)
class Convolution:
    """A convolution of a network: (N, C, H, W) and (K, C, R, S)."""

    x: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: int
    padding: int

    @property
    def flops(self) -> float:
        """Operations of the direct algorithm, a multiply-add being two."""
        n, _, h, w = self.x
        k, c, r, s = self.weight
        p = (h + 2 * self.padding - r) // self.stride + 1
        q = (w + 2 * self.padding - s) // self.stride + 1
        return 2.0 * n * p * q * k * c * r * s

    @property
    def name(self) -> str:
        """For example "conv 3x3 64->128 at 32x32, stride 2"."""
        k, c, r, s = self.weight
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return f"conv {r}x{s} {c}->{k} at {self.x[2]}x{self.x[3]}{stride}"


def convolutions(arch: str, batch: int) -> list[Convolution]:
    """The different convolutions of a network, in the order of its layers."""
    found: dict[Convolution, None] = {}

    def note(module: Module, inputs: tuple, output: Tensor) -> None:
        x = (batch, *inputs[0].shape[1:])
        found[Convolution(x, module.weight.shape, module.stride[0], module.padding[0])] = None

    model = create_model(arch, None).eval()
    for module in model.modules():
        if type(module) is Conv2d:
            module.register_forward_hook(note)
    with no_grad():
        model(Tensor(np.zeros((1, 3, 32, 32), np.float32)))
    return list(found)


def operations(batch: int, rounds: int) -> Iterator[Record]:
    """Times of convolutions, batch norm, blocks and the optimiser, with roofline figures: billions
    of direct-equivalent operations a second and their share of the peak (Winograd's algorithms need
    fewer, so that more than 100 % is possible), or gigabytes a second of what must be read and
    written and their share of the memory's. Convolutions: their error against float64, too."""
    peak, bandwidth = peak_gflops(), memory_gbs()
    yield Record("machine", "multiply-adds, all threads", "attnnet", peak, "GFLOP/s")
    yield Record("machine", "adding two arrays", "attnnet", bandwidth, "GB/s")
    for shape in dict.fromkeys(convolutions("resnet18", batch) + convolutions("vgg19", batch)):
        yield from _convolution(shape, rounds, peak)
    for channels, size in ((64, 32), (128, 16), (256, 8), (512, 4)):
        yield from _elementwise(batch, channels, size, rounds, bandwidth)
    yield from _optimiser(rounds, bandwidth)


def blocks(batch: int, rounds: int) -> Iterator[Record]:
    """Each attention block of the registry at the first two stages of ResNet18."""
    for name in list_blocks():
        for channels, size in ((64, 32), (128, 16)):
            block = make_block(name, channels, size, size)
            x = _random(batch, channels, size, size)
            for part, time in _both_ways(lambda x, block=block: block(x), x, rounds):
                case = f"{name} {channels} at {size}x{size}, {part}"
                yield Record("blocks", case, "attnnet", 1e3 * time, "ms", higher=False)


def _random(*shape: int) -> Tensor:
    rng = np.random.default_rng(0)
    return Tensor(rng.standard_normal(shape, dtype=np.float32), requires_grad=True)


def _both_ways(
    forward: Callable[[Tensor], Tensor], x: Tensor, rounds: int
) -> Iterator[tuple[str, float]]:
    """("forward" | "backward", seconds)."""
    y = forward(x)
    dy = _random(*y.shape).detach()

    def backward() -> None:
        y.backward(dy, retain_graph=True)
        x.grad = None

    work = {"forward": lambda: forward(x), "backward": backward}
    for part, timing in interleaved(work, rounds).items():
        yield part, timing.median


def _convolution(shape: Convolution, rounds: int, peak: float) -> Iterator[Record]:
    x, weight = _random(*shape.x), _random(*shape.weight)
    x.requires_grad_(shape.x[1] > 3)  # nobody asks for the gradient of the images
    plan = _core.convolution_plan(
        shape.x, shape.weight, (shape.stride,) * 2, (shape.padding,) * 2, 1, False
    )

    def forward(x: Tensor) -> Tensor:
        return functional.conv2d(x, weight, None, shape.stride, shape.padding)

    for part, time in _both_ways(forward, x, rounds):
        products = 1 if part == "forward" or shape.x[1] == 3 else 2
        speed = products * shape.flops / time / 1e9
        note = f"{1e3 * time:.2f} ms, {100 * speed / peak:.0f} % of the peak, {plan['algorithm']}"
        if part == "forward":
            note += f", relative error {_error(shape):.1e}"
        yield Record(
            "operations", f"{shape.name}, {part}", "attnnet", speed, "GFLOP/s", note=note
        )
        weight.grad = None


def _error(shape: Convolution) -> float:
    """Root mean square of the error of one image's output, over that of the output in float64."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, *shape.x[1:]), dtype=np.float32)
    weight = rng.standard_normal(shape.weight, dtype=np.float32)
    y = functional.conv2d(Tensor(x), Tensor(weight), None, shape.stride, shape.padding).numpy()
    p = shape.padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape.weight[2:], axis=(2, 3))
    windows = windows[:, :, :: shape.stride, :: shape.stride]
    exact = np.einsum("nchwrs,kcrs->nkhw", windows, weight.astype(np.float64), optimize=True)
    return float(np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)))


def _elementwise(
    batch: int, channels: int, size: int, rounds: int, bandwidth: float
) -> Iterator[Record]:
    x, residual = _random(batch, channels, size, size), _random(batch, channels, size, size)
    mean, one = (Tensor(np.full(channels, value, np.float32)) for value in (0, 1))
    weight, bias = _random(channels), _random(channels)

    def bn(x: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, one, weight, bias, True, residual=residual, relu=True)

    # Tensors read or written: statistics 1, normalise 3; sums 2, gradients 4.
    for part, time in _both_ways(bn, x, rounds):
        speed = (4 if part == "forward" else 6) * x.numel() * 4 / time / 1e9
        case = f"batch norm + add + ReLU {channels} at {size}x{size}, {part}"
        note = f"{1e3 * time:.2f} ms, {100 * speed / bandwidth:.0f} % of the memory's"
        yield Record("operations", case, "attnnet", speed, "GB/s", note=note)


def _optimiser(rounds: int, bandwidth: float) -> Iterator[Record]:
    model = create_model("resnet18", None)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = Tensor(np.ones(parameter.shape, np.float32))
    step = optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4).step
    time = interleaved({"step": step}, rounds)["step"].median
    # Weight, gradient and momentum are read; weight and momentum are written.
    speed = 5 * sum(p.numel() for p in parameters) * 4 / time / 1e9
    note = f"{1e3 * time:.2f} ms, {100 * speed / bandwidth:.0f} % of the memory's"
    yield Record("operations", "SGD step of resnet18", "attnnet", speed, "GB/s", note=note)
