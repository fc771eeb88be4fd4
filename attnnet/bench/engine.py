"""What takes part in a comparison of whole networks, and what is asked of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import create_model, functional, manual_seed, no_grad, optim
from ..nn import Module
from ..tensor import Tensor
from .layers import Layer, LayerRunner, Part
from .runner import Runner


@dataclass(frozen=True)
class Job:
    """A network and a batch: the same weights, images and labels for everyone.

    The weights are attnnet's initial ones of seed 0, the batch norms' statistics those after two
    steps of training, so that evaluation computes with ordinary numbers.
    """

    arch: str
    block: str | None
    batch: int
    classes: int = 100

    @property
    def network(self) -> str:
        """For example "resnet18 NEW_12"."""
        return self.arch if self.block is None else f"{self.arch} {self.block}"

    @cached_property
    def flops(self) -> float:
        """Operations of an evaluation of the batch by the definition, a multiply-add being two."""
        summary = create_model(self.arch, self.block, num_classes=self.classes).summary((3, 32, 32))
        return 2.0 * summary.total_multiply_adds * self.batch

    @cached_property
    def images(self) -> np.ndarray:
        """(batch, 3, 32, 32), standard normal."""
        rng = np.random.default_rng(0)
        return rng.standard_normal((self.batch, 3, 32, 32), dtype=np.float32)

    @cached_property
    def labels(self) -> np.ndarray:
        """(batch,), integers."""
        return np.random.default_rng(1).integers(0, self.classes, self.batch)

    def model(self) -> Module:
        """The network with its first weights."""
        manual_seed(0)
        model = create_model(self.arch, self.block, num_classes=self.classes)
        images = np.random.default_rng(2).standard_normal((16, 3, 32, 32), dtype=np.float32)
        with no_grad():
            for _ in range(2):
                model(Tensor(images))
        return model


class Engine(ABC):
    """A way to train or to evaluate a network.

    Attributes:
        name: for tables, for example "torch channels_last".
        precision: "float32" or "bfloat16".
        trains: whether it can; all can infer.
        layers: whether it runs single layers, too.
    """

    name: str
    precision: str = "float32"
    trains: bool = True
    layers: bool = False

    @abstractmethod
    def train(self, job: Job) -> Runner:
        """Training with SGD, momentum .9, weight decay 5e-4."""

    @abstractmethod
    def infer(self, job: Job) -> Runner:
        """Evaluation without gradients."""

    def layer(self, layer: Layer, part: Part) -> Runner:
        """One part of a layer, recorded for the backward pass; where `layers` is true."""
        raise TypeError(f"{self.name} runs no single layers")


class Attnnet(Engine):
    """This package."""

    name = "attnnet"
    layers = True

    def train(self, job: Job) -> Runner:
        return _Training(job)

    def infer(self, job: Job) -> Runner:
        return _Inference(job)

    def layer(self, layer: Layer, part: Part) -> Runner:
        module = layer.module()
        x = [Tensor(array, layer.wants_gradient) for array in layer.arrays()]
        return LayerRunner(part, module, x, module.parameters(), Tensor)


class _Inference(Runner):
    def __init__(self, job: Job) -> None:
        self.job, self.model = job, job.model().eval()

    def logits(self) -> np.ndarray:
        with no_grad():
            return self.model.eval()(Tensor(self.job.images)).numpy()

    def step(self) -> None:
        self.logits()


class _Training(_Inference):
    def __init__(self, job: Job) -> None:
        super().__init__(job)
        parameters = self.model.parameters()
        self.optimizer = optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step(self) -> None:
        self.model.train()
        loss = functional.cross_entropy(self.model(Tensor(self.job.images)), self.job.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
