"""PyTorch in the ways in which it is fastest on a CPU. Needs PyTorch."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
import torch._functorch.config as functorch
from torch.nn import functional as F

from ... import get_num_threads
from ...nn import Module
from ..engine import Engine, Job
from ..layers import Layer, LayerRunner, Part
from ..runner import Runner
from . import torch_layers, torch_networks


class TorchEngine(Engine):
    """One configuration of PyTorch.

    Args:
        name: its name in tables.
        channels_last: memory format of images and weights (NHWC).
        compile: through torch.compile; for evaluation with frozen weights.
        bfloat16: autocast of convolutions and matrix products.
    """

    layers = True

    def __init__(
        self,
        name: str,
        channels_last: bool = False,
        compile: bool = False,
        bfloat16: bool = False,
    ) -> None:
        self.name = name
        self.channels_last, self.compile, self.bfloat16 = channels_last, compile, bfloat16
        self.precision = "bfloat16" if bfloat16 else "float32"

    def train(self, job: Job) -> Runner:
        return _Training(self, job)

    def infer(self, job: Job) -> Runner:
        return _Inference(self, job)

    def layer(self, layer: Layer, part: Part) -> Runner:
        module = self.with_weights(torch_layers.build(layer), layer.module())
        x = [self.tensor(array).requires_grad_(layer.wants_gradient) for array in layer.arrays()]
        forward = module
        if self.compile:
            functorch.donated_buffer = False  # the backward pass is repeated
            forward = torch.compile(module)
        return LayerRunner(part, forward, x, module.parameters(), self.tensor)

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context that every forward runs in."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)

    def network(self, job: Job) -> torch.nn.Module:
        """The job's network in PyTorch, with the same weights."""
        model = torch_networks.create(job.arch, job.block, num_classes=job.classes)
        return self.with_weights(model, job.model())

    def with_weights(self, module: torch.nn.Module, ours: Module) -> torch.nn.Module:
        """The module with the weights of the one of this package, and with as many threads."""
        torch.set_num_threads(get_num_threads())
        state = {name: torch.tensor(value) for name, value in ours.state_dict().items()}
        module.load_state_dict(state)
        return module.to(memory_format=self.memory_format)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A tensor of the values, images (N, C, H, W) in the engine's memory format."""
        return torch.tensor(array).to(memory_format=self.memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


class _Inference(Runner):
    def __init__(self, engine: TorchEngine, job: Job) -> None:
        self.engine = engine
        self.model = engine.network(job).eval()
        self.images = engine.tensor(job.images)
        self.forward = self.model
        if engine.compile:
            torch._dynamo.reset()
            with torch._inductor.config.patch(freezing=True):
                self.forward = torch.compile(self.model)
                self.logits()

    def logits(self) -> np.ndarray:
        with torch.inference_mode(not self.engine.compile), torch.no_grad(), self.engine.autocast():
            return self.forward(self.images).float().numpy()

    def step(self) -> None:
        self.logits()


class _Training(Runner):
    def __init__(self, engine: TorchEngine, job: Job) -> None:
        self.engine = engine
        self.model = engine.network(job)
        self.images = engine.tensor(job.images)
        self.labels = torch.tensor(job.labels)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
        )
        self.forward = torch.compile(self.model) if engine.compile else self.model

    def logits(self) -> np.ndarray:
        with torch.no_grad(), self.engine.autocast():
            return self.model.eval()(self.images).float().numpy()

    def step(self) -> None:
        self.model.train()
        with self.engine.autocast():
            loss = F.cross_entropy(self.forward(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def engines() -> list[Engine]:
    """The configurations, the usual one first."""
    return [
        TorchEngine("torch"),
        TorchEngine("torch channels_last", channels_last=True),
        TorchEngine("torch compile", compile=True),
        TorchEngine("torch bf16", channels_last=True, bfloat16=True),
        TorchEngine("torch compile bf16", compile=True, bfloat16=True),
    ]
