"""The moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from .. import _core
from ..tensor import Tensor

if TYPE_CHECKING:
    from ..nn import Module


class AveragedModel:
    """A second model whose weights are the exponential moving average of a trained one's.

    After a step, ``average += (1 - keep) * (weight - average)`` for every parameter and for the
    batch norms' running statistics, so that mean and variance belong to about the weights that
    they normalise; counters are copied. ``keep`` is ``decay`` in the long run; until then it is
    n / (n + 9) at step n from 0, so that the first step copies and a short training does not end
    with a share of the weights that it began with. One pass over memory, in C.

    Args:
        model: the trained model. It is copied, without hooks.
        decay: above 0 and below 1; the average reaches back about 1 / (1 - decay) steps.

    Attributes:
        module: the model with the averaged weights, in eval mode.
        decay: may be changed between steps.
        n_averaged: how many steps are in the average.

    Paper: Polyak & Juditsky 1992; Tarvainen & Valpola 2017, "Mean teachers are better role
    models" (of weights, exponential). As ``torch.optim.swa_utils.AveragedModel`` with
    ``get_ema_multi_avg_fn(decay)`` and ``use_buffers=True``, but for the first steps.

    Raises:
        ValueError: ``decay`` is out of range.

    Example:
        >>> average = attnnet.optim.AveragedModel(model, decay=0.99)
        >>> optimizer.step()
        >>> average.update_parameters(model)
        >>> attnnet.evaluate(average.module, test)
    """

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        if isinstance(decay, (str, bool)) or not 0.0 < decay < 1.0:
            raise ValueError(f"decay must be above 0 and below 1, got {decay!r}")
        self.decay = float(decay)
        self.n_averaged = 0
        self.module = copy.deepcopy(model).eval()
        self.module.zero_grad()

    def update_parameters(self, model: Module) -> None:
        """Takes one more step of the trained model into the average.

        Raises:
            ValueError: the model is not built as the one that was copied; nothing is changed then.
        """
        mine, theirs = _members(self.module), _members(model)
        if [member.shape for member in mine] != [member.shape for member in theirs]:
            raise ValueError("update_parameters: the model is not built as the averaged one")
        pairs = list(zip(mine, theirs, strict=True))
        keep = min(self.decay, self.n_averaged / (self.n_averaged + 9.0))
        floats = [pair for pair in pairs if isinstance(pair[0], Tensor)]
        _core.average_step([a for a, _ in floats], [b for _, b in floats], 1.0 - keep)
        for own, other in pairs:
            if not isinstance(own, Tensor):
                own[...] = other
        self.n_averaged += 1
        for module in self.module.modules():  # packed for the last evaluation, and stale by now
            module.__dict__.pop("_folded", None)


def _members(model: Module) -> list[Any]:
    """Parameters and buffers in the model's order: tensors, and arrays (counters)."""
    return [*model.parameters(), *model.buffers()]
