"""Whole networks run side by side: PyTorch in float64 and float32, and attnnet.

Needs PyTorch; import only behind ``pytest.importorskip("torch")``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch

import attnnet
from attnnet.bench.peers import torch_networks

from .compare import EPS32, relative_l2
from .narrow import narrowed


@dataclass
class Case:
    """One network with its first state, one batch, and how it is trained."""

    arch: str
    block: str | None
    state: dict[str, np.ndarray]  # float32 values, the same for all
    x: np.ndarray
    target: np.ndarray
    options: dict
    lr: float
    narrow: int  # divides every width
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    adamw: bool = False  # in place of SGD, with an epsilon that rounding does not reach

    def optimiser(self, library, model):
        """The one of the library that is given."""
        parameters, decay = model.parameters(), self.weight_decay
        if self.adamw:
            return library.AdamW(parameters, lr=self.lr, eps=1e-3, weight_decay=decay)
        return library.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=decay,
                           nesterov=self.nesterov)  # fmt: skip


@dataclass
class Trace:
    """What a run left: of the first step, and after the last."""

    logits: np.ndarray
    losses: list[float]
    grads: dict[str, np.ndarray]
    state: dict[str, np.ndarray]


def _smoothed(key: str, value: np.ndarray, keys, rng) -> np.ndarray:
    layer, kind = key.rsplit(".", 1)
    if key.endswith(("conv_out.bias", "attn_out.bias")):  # AA's output meets a ReLU without BN
        return 6 * rng.choice([-1.0, 1.0], value.shape)
    if f"{layer}.running_mean" not in keys or layer.endswith("spatial.bn"):
        return value
    if kind == "weight":
        return rng.uniform(0.2, 0.4, value.shape)
    if kind != "bias":
        return value
    size = rng.uniform(2, 3, value.shape)
    if "shortcut" in layer:
        return size
    last = "bn3" if f"{layer.rsplit('.', 1)[0]}.bn3.weight" in keys else "bn2"
    if layer.startswith("layer") and layer.endswith(last):
        # what is added to it may be as large, and is positive: shut it by far
        return np.where(rng.random(value.shape) < 0.75, size, -20.0)
    return size * rng.choice([-1.0, 1.0], value.shape)


def make_case(arch, block, batch, size, seed=0, smooth=True, lr=1e-3, narrow=1, **options) -> Case:
    """A network in PyTorch's own first state, or in a smooth one.

    Where a ReLU's input is near zero, rounding decides whether it passes; among a million of them
    a few always are, and each moves the gradients of two right implementations apart by a
    thousandth, at random. In a *smooth* state the batch norms' biases hold every ReLU either open
    or shut by far, so that what is compared is the arithmetic.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    options = {"image_size": size, "num_classes": 10, **options}
    if arch.startswith("vgg"):
        options["dropout"] = 0.0
    model = torch_networks.create(arch, block, narrow=narrow, **options)
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    if smooth:
        state = {
            k: np.asarray(_smoothed(k, v, state, rng), v.dtype) for k, v in state.items()
        }
    sides = (size, size) if isinstance(size, int) else size
    x = rng.standard_normal((batch, options.get("in_channels", 3), *sides)).astype(np.float32)
    target = rng.integers(0, options["num_classes"], batch)
    return Case(arch, block, state, x, target, options, lr, narrow)


def torch_model(c: Case, dtype, state=None):
    with torch.device("meta"):  # no initialisation for nothing
        model = torch_networks.create(c.arch, c.block, narrow=c.narrow, **c.options)
    tensors = {k: torch.tensor(v) for k, v in (state or c.state).items()}
    floats = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    model.load_state_dict(floats, assign=True)
    return model


def attnnet_model(c: Case, state=None):
    with narrowed(c.narrow):
        model = attnnet.create_model(c.arch, c.block, **c.options)
    missing, unexpected = model.load_state_dict(state or c.state)
    assert not missing and not unexpected, (missing, unexpected)
    return model


def run_torch(c: Case, dtype, steps: int) -> Trace:
    model = torch_model(c, dtype).train()
    x, target = torch.tensor(c.x, dtype=dtype), torch.tensor(c.target)
    optimiser = c.optimiser(torch.optim, model)
    losses = []
    for step in range(steps):
        optimiser.zero_grad()
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits, target)
        loss.backward()
        if step == 0:
            first = logits.detach().numpy().copy()
            grads = {k: p.grad.numpy().copy() for k, p in model.named_parameters()}
        optimiser.step()
        losses.append(loss.item())
    return Trace(first, losses, grads, {k: v.numpy() for k, v in model.state_dict().items()})


def run_attnnet(c: Case, steps: int) -> Trace:
    model = attnnet_model(c).train()
    optimiser = c.optimiser(attnnet.optim, model)
    losses = []
    for step in range(steps):
        optimiser.zero_grad()
        logits = model(attnnet.Tensor(c.x))
        loss = attnnet.functional.cross_entropy(logits, c.target)
        loss.backward()
        if step == 0:
            first = np.array(logits.detach().numpy())
            grads = {k: np.array(p.grad.numpy()) for k, p in model.named_parameters()}
        optimiser.step()
        losses.append(loss.item())
    return Trace(first, losses, grads, model.state_dict())


def kind_of(key: str, value: np.ndarray) -> tuple[str, int]:
    """Tensors of one kind are those whose keys differ in numbers only."""
    return re.sub(r"\d+", "", key), value.ndim


def is_noise(key: str, exact: dict[str, np.ndarray]) -> bool:
    """A bias in front of a batch norm: its true gradient is zero, what comes is rounding."""
    weight = exact.get(key.removesuffix("bias") + "weight")
    return (
        key.endswith("bias")
        and weight is not None
        and np.linalg.norm(exact[key]) <= 1e-9 * np.linalg.norm(weight)
    )


def compare(ours, theirs, exact, multiple: float, what: str, floor: float = 0.0):
    """Fail unless every array of ``ours`` is as near ``exact`` as PyTorch's float32 one, nearly.

    The gap of PyTorch's float32 from its float64 is taken as the largest among arrays of one
    kind, and of a few numbers at least as the median of all: it may be small by luck.

    Args:
        ours, theirs, exact: {key: array} of attnnet, of PyTorch in float32 and in float64.
        multiple: of the gap that is granted.
        what: is compared, for the message.
        floor: granted in any case.

    Returns:
        {key: (our error, PyTorch's gap)}.
    """
    assert set(ours) == set(exact), set(ours) ^ set(exact)
    keys = [k for k in exact if not is_noise(k, exact)]
    own = {k: relative_l2(theirs[k], exact[k]) for k in keys}
    median = float(np.median(list(own.values())))
    gaps: dict = {}
    for key in keys:
        kind = kind_of(key, exact[key])
        gaps[kind] = max(gaps.get(kind, 2 * EPS32), own[key])
    measured = {}
    bad = []
    for key in keys:
        error = relative_l2(ours[key], exact[key])
        gap = gaps[kind_of(key, exact[key])]
        gap = max(gap, median) if exact[key].size <= 16 else gap
        measured[key] = (error, gap)
        if not (error <= max(multiple * gap, floor)):  # written so that NaN fails
            bad.append(f"{key}: {error:.1e}, PyTorch {gap:.1e}")
    for key in set(exact) - set(keys):
        weight = exact[key.removesuffix("bias") + "weight"]
        noise = float(np.abs(ours[key]).max())
        limit = multiple * max(
            float(np.abs(theirs[key]).max()), 16 * EPS32 * float(np.abs(weight).max())
        )
        if not (noise <= limit):
            bad.append(f"{key}: {noise:.1e} where zero is right, granted {limit:.1e}")
    if bad:
        raise AssertionError(f"{what}: {len(bad)} of {len(exact)} too far:\n" + "\n".join(bad[:12]))
    return measured


def updates(trace: Trace, c: Case) -> dict[str, np.ndarray]:
    """How far the steps moved each parameter and running statistic."""
    return {
        k: np.asarray(v, np.float64) - c.state[k]
        for k, v in trace.state.items()
        if not k.endswith("num_batches_tracked")
    }
