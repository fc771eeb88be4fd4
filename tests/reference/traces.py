"""What a network did in attnnet against what it did in PyTorch: losses, logits, evaluation.

Needs PyTorch; import only behind ``pytest.importorskip("torch")``.
"""

from __future__ import annotations

import contextlib
import os

import numpy as np
import torch

import attnnet
from attnnet import _core

from .compare import EPS32, relative_l2
from .networks import attnnet_model, torch_model

MULTIPLES = {"im2col": 8, None: 40}  # convolution algorithm (None: as chosen) -> of the gap


def on_any_seed(check, first=0):
    """Runs ``check(seed)`` until it passes, three times at most, from seed ``first`` on.

    A maximum in a pool whose two largest are equal to rounding can fall either way, which no
    smooth state prevents. That happens at one seed in many; what fails at three is wrong.
    """
    failures = []
    for seed in range(first, first + 3):
        try:
            return check(seed)
        except AssertionError as failure:
            failures.append(f"seed {seed}: {failure}")
    raise AssertionError("\n".join(failures))


@contextlib.contextmanager
def convolutions_by(algorithm):
    _core.set_convolution_algorithm(algorithm)
    try:
        yield
    finally:
        _core.set_convolution_algorithm(os.environ.get("ATTNNET_CONVOLUTION"))


def check_losses(ours, theirs, exact, multiple):
    gap = max(abs(a / b - 1) for a, b in zip(theirs, exact, strict=True))
    for step, (a, b) in enumerate(zip(ours, exact, strict=True)):
        error = abs(a / b - 1)
        if not (error <= multiple * max(gap, 2 * EPS32)):
            raise AssertionError(f"loss of step {step}: {a} against {b}, PyTorch's gap {gap:.1e}")


def check_logits(ours, theirs, exact, multiple, what="logits"):
    gap = max(relative_l2(theirs, exact), 2 * EPS32)
    error = relative_l2(ours, exact)
    if not (error <= multiple * gap):
        raise AssertionError(f"{what}: {error:.1e}, PyTorch's gap {gap:.1e}")


def check_evaluation(c, state):
    """Logits in eval mode, with batch norm folded (no_grad) and as it stands (with gradients)."""
    state = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in state.items()}
    results = []
    with torch.no_grad():
        for dtype in (torch.float32, torch.float64):
            model = torch_model(c, dtype, state).eval()
            results.append(model(torch.tensor(c.x, dtype=dtype)).numpy())
    model = attnnet_model(c, state).eval()
    for algorithm, multiple in MULTIPLES.items():
        with convolutions_by(algorithm):
            with attnnet.no_grad():
                y = model(attnnet.Tensor(c.x)).numpy()
            check_logits(y, *results, multiple, "logits in evaluation")
            y = model(attnnet.Tensor(c.x)).detach().numpy()
            check_logits(y, *results, multiple, "logits in evaluation, with gradients")
