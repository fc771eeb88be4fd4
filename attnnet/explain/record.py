"""One forward and one backward of a network, and what was seen on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..autograd import enable_grad
from ..nn.modes import evaluating
from ..nn.module import Module
from ..tensor import Tensor
from .targets import Target


@dataclass
class Record:
    """What was seen. Arrays are float32, N the images of the batch.

    Attributes:
        logits: (N, K). target: the target, with predicted classes written down.
        activations, gradients: by layer, its output and the score's gradient there.
        input_gradient: the score's gradient at the images, (N, C, H, W), or None.
    """

    logits: np.ndarray
    target: Target
    activations: dict[str, np.ndarray] = field(default_factory=dict)
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    input_gradient: np.ndarray | None = None


def record(
    model: Module,
    layers: Mapping[str, Module],
    images: np.ndarray,
    target: Target,
    gradients: bool = True,
    at_input: bool = False,
) -> Record:
    """Run the network once forward and, for gradients, once backward, in evaluation mode.

    Images of a batch do not see each other in evaluation mode, so the gradient of the sum of their
    scores holds each image's own. Nothing is recorded before the first layer asked for: up to
    there the network runs as in inference, and the backward ends there. Modes, gradients and
    ``requires_grad`` of the model are as before afterwards.

    Args:
        model: the network. layers: what to look at, by name. images: (N, C, H, W) float32.
        target: what to explain. gradients: whether those at the layers are needed.
        at_input: whether the gradient at the images is needed.

    Raises:
        ValueError: where a layer is not called, is called twice, or gives no tensor; where the
            logits are no (N, K) or not finite; and for a target that does not exist.
    """
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(_frozen(model))

        def keep(name: str, output: Any) -> Tensor:
            if name in seen:
                raise ValueError(f"layer {name!r} is called more than once in a forward")
            if not isinstance(output, Tensor):
                raise ValueError(f"layer {name!r} gives a {type(output).__name__}, not a tensor")
            if gradients and not output.requires_grad:  # the first one: recording begins here
                stack.enter_context(enable_grad())
                output = output.detach().requires_grad_()
            elif gradients:
                output.retain_grad()
            seen[name] = output
            return output

        for name, module in layers.items():
            hook = module.register_forward_hook(lambda _m, _x, y, name=name: keep(name, y))
            stack.enter_context(hook)
        x = Tensor(images)
        if at_input:
            stack.enter_context(enable_grad())
            x.requires_grad_()
        logits = model(x)
        result = Record(_checked(logits), target.fixed(logits.numpy()))
        missing = [name for name in layers if name not in seen]
        if missing:
            raise ValueError(f"layer {missing[0]!r} takes no part in the network's forward")
        result.activations = {name: seen[name].detach().numpy() for name in layers}
        if gradients or at_input:
            result.target.scores(logits).sum().backward()
        if gradients:
            result.gradients = {name: _gradient(seen[name]) for name in layers}
        if at_input:
            result.input_gradient = _gradient(x)
    return result


def score_batches(
    model: Module, images: np.ndarray, target: Target, batch_size: int
) -> np.ndarray:
    """Scores of many images, (N,) float32, in evaluation mode, without gradients."""
    parts = [np.zeros(0, np.float32)]
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            logits = model(Tensor(images[rows]))
            parts.append(target.of(rows).fixed(logits.numpy()).scores(logits).numpy())
    return np.concatenate(parts)


def _checked(logits: Any) -> np.ndarray:
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the network must give logits (N, K), got {got}")
    values = logits.detach().numpy()
    if not np.isfinite(values).all():
        raise ValueError("the network's output is not finite: there is nothing to explain")
    return values


def _gradient(tensor: Tensor) -> np.ndarray:
    """The gradient that arrived; zeros where the score does not depend on the tensor."""
    if tensor.grad is None:
        return np.zeros(tensor.shape, np.float32)
    return tensor.grad.numpy()


@contextmanager
def _frozen(model: Module) -> Iterator[None]:
    """No gradients for parameters inside; those that they have, and their place on the tape of a
    loss that is still to go backward, stay."""
    asking = [part for part in model.parameters() if part.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_()
