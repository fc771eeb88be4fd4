"""Single layers at the shapes that networks give them: their inputs, weights and operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .. import _core, create_model, manual_seed, no_grad
from ..nn import BatchNorm2d, Conv2d, Module
from ..nn.registry import make_block
from ..tensor import Tensor
from .runner import Runner

Part = Literal["forward", "backward"]
PARTS: tuple[Part, Part] = ("forward", "backward")


@dataclass(frozen=True)
class Layer(ABC):
    """A layer and its input: the same weights, inputs and gradients of the output for everyone.

    Attributes:
        shape: of the input, (N, C, H, W).
    """

    shape: tuple[int, int, int, int]

    @property
    @abstractmethod
    def name(self) -> str:
        """For tables."""

    @abstractmethod
    def build(self) -> Module:
        """The layer."""

    @property
    def inputs(self) -> int:
        """How many tensors of `shape` it takes."""
        return 1

    @property
    def wants_gradient(self) -> bool:
        """Whether anybody asks for the input's gradient: not for that of images."""
        return self.shape[1] > 3

    def module(self) -> Module:
        """The layer with its weights of seed 0."""
        manual_seed(0)
        return self.build()

    def arrays(self) -> list[np.ndarray]:
        """The inputs, standard normal."""
        return [normal(seed, self.shape) for seed in range(self.inputs)]


@dataclass(frozen=True)
class Convolution(Layer):
    """A convolution without bias, its weights (K, C, R, S)."""

    weight: tuple[int, int, int, int]
    stride: int
    padding: int

    @property
    def name(self) -> str:
        """For example "conv 3x3 64->128 at 32x32, stride 2"."""
        k, c, r, s = self.weight
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return f"conv {r}x{s} {c}->{k} at {_size(self)}{stride}"

    def build(self) -> Module:
        k, c, r, _ = self.weight
        return Conv2d(c, k, r, self.stride, self.padding, bias=False)

    @property
    def flops(self) -> float:
        """Operations of the direct algorithm, a multiply-add being two."""
        n, _, h, w = self.shape
        k, c, r, s = self.weight
        p = (h + 2 * self.padding - r) // self.stride + 1
        q = (w + 2 * self.padding - s) // self.stride + 1
        return 2.0 * n * p * q * k * c * r * s

    def plan(self) -> dict[str, Any]:
        """How the core computes it in training."""
        stride, padding = (self.stride,) * 2, (self.padding,) * 2
        return _core.convolution_plan(self.shape, self.weight, stride, padding, 1, False)


@dataclass(frozen=True)
class Norm(Layer):
    """relu(batch_norm(x) + residual) in training."""

    @property
    def name(self) -> str:
        """For example "batch norm + add + ReLU 64 at 32x32"."""
        return f"batch norm + add + ReLU {self.shape[1]} at {_size(self)}"

    @property
    def inputs(self) -> int:
        return 2

    def build(self) -> Module:
        return _NormAddReLU(self.shape[1])


class _NormAddReLU(BatchNorm2d):
    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.normalise(x, residual, relu=True)


@dataclass(frozen=True)
class Block(Layer):
    """An attention block of the registry."""

    block: str

    @property
    def name(self) -> str:
        """For example "CBAM 64 at 32x32"."""
        return f"{self.block} {self.shape[1]} at {_size(self)}"

    def build(self) -> Module:
        return make_block(self.block, *self.shape[1:])


class LayerRunner(Runner):
    """Any system at work on one part of a layer: tensors of all have the same methods.

    Args:
        part: of the work.
        forward: the layer.
        x: its inputs.
        parameters: its weights.
        tensor: makes a tensor of the system.
    """

    def __init__(
        self,
        part: Part,
        forward: Callable[..., Any],
        x: Sequence[Any],
        parameters: Iterable[Any],
        tensor: Callable[[np.ndarray], Any],
    ) -> None:
        self.part, self.forward, self.x = part, forward, x
        self.leaves = [*x, *parameters]
        self.y = forward(*x)
        self.dy = tensor(normal(9, tuple(self.y.shape)))

    def logits(self) -> np.ndarray:
        """The output, or the gradient of what first wants one: the input, else the weights."""
        if self.part == "forward":
            return self.forward(*self.x).detach().numpy()
        self.step()
        return next(leaf for leaf in self.leaves if leaf.requires_grad).grad.numpy()

    def step(self) -> None:
        if self.part == "forward":
            self.forward(*self.x)
            return
        for leaf in self.leaves:
            leaf.grad = None
        self.y.backward(self.dy, retain_graph=True)


def convolutions(arch: str, batch: int) -> list[Convolution]:
    """The different convolutions of a network, in the order of its layers."""
    found: dict[Convolution, None] = {}

    def note(module: Module, inputs: tuple, output: Tensor) -> None:
        shape = (batch, *inputs[0].shape[1:])
        found[Convolution(shape, module.weight.shape, module.stride[0], module.padding[0])] = None

    model = create_model(arch, None).eval()
    for module in model.modules():
        if type(module) is Conv2d:
            module.register_forward_hook(note)
    with no_grad():
        model(Tensor(np.zeros((1, 3, 32, 32), np.float32)))
    return list(found)


def _size(layer: Layer) -> str:
    return f"{layer.shape[2]}x{layer.shape[3]}"


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 numbers of the standard normal distribution, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
