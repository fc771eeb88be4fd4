"""Where a NaN or an infinity first appeared: in the forward pass, layer by layer, or a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..nn import Module


LOSS_ITSELF = "the loss itself (all layers' outputs are finite)"


def first_bad_gradient(model: Module) -> str | None:
    """The parameter whose gradient is the first to have a NaN or an infinity; None: all finite.

    Backward goes from the last layer to the first, so the last parameter in the model's order is
    where it began. One norm over all gradients settles the usual case.
    """
    from .. import _core

    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if math.isfinite(_core.global_norm([grad for _, grad in named])):
        return None
    bad = [name for name, grad in named if not np.isfinite(grad.numpy()).all()]
    return bad[-1] if bad else None


def first_bad_parameter(model: Module) -> str | None:
    """The name of the first parameter that has a NaN or an infinity; None: all finite."""
    for name, parameter in model.named_parameters():
        if not np.isfinite(parameter.numpy()).all():
            return name
    return None


class BufferSnapshot:
    """The model's buffers (batch norm statistics) and the random state, to be put back.

    A step that is skipped, or repeated to look into it, must leave no trace in them.
    """

    def __init__(self, model: Module) -> None:
        from .. import get_rng_state

        self._model = model
        self._buffers = [(b, np.array(_values(b))) for _, b in model.named_buffers()]
        self._random = get_rng_state()

    def restore(self) -> None:
        """Puts everything back as it was."""
        from .. import set_rng_state

        for buffer, values in self._buffers:
            if hasattr(buffer, "copy_"):
                buffer.copy_(values)
            else:
                buffer[...] = values
        set_rng_state(self._random)


def _values(buffer: Any) -> np.ndarray:
    return buffer.numpy() if hasattr(buffer, "numpy") else buffer


def find_source(model: Module, images: np.ndarray, restore: Callable[[], None]) -> str:
    """Says where the forward pass of a batch first has a NaN or an infinity.

    Runs the batch again with a hook on every module; the first one to end with a non-finite output
    is the innermost place. ``restore`` puts the state before that pass back, before and after it.

    Args:
        model: in the mode it was in.
        images: the batch, (N, C, H, W).
        restore: puts buffers and random state back.

    Returns:
        A part of a sentence, for example ``"the output of layer2.0.conv1 (Conv2d)"``.
    """
    from .. import no_grad, tensor

    if not np.isfinite(images).all():
        return "the batch of images itself"
    broken = first_bad_parameter(model)
    if broken is not None:
        return f"the parameter {broken}, before the step: an earlier update broke it"
    found: list[str] = []

    def watch(name: str) -> Callable[[Module, Any, Any], None]:
        def hook(module: Module, inputs: Any, output: Any) -> None:
            if not found and not _finite(output):
                found.append(f"the output of {name or 'the model'} ({type(module).__name__})")

        return hook

    handles = [module.register_forward_hook(watch(n)) for n, module in model.named_modules()]
    restore()
    try:
        with no_grad():
            model(tensor(images))
    finally:
        for handle in handles:
            handle.remove()
        restore()
    return found[0] if found else LOSS_ITSELF


def _finite(output: Any) -> bool:
    """Whether a module's output, one tensor or several, is finite everywhere."""
    if isinstance(output, (tuple, list)):
        return all(_finite(item) for item in output)
    return not hasattr(output, "numpy") or bool(np.isfinite(output.numpy()).all())
