"""A random network from a seed, trained for a few steps in attnnet and in PyTorch.

Needs PyTorch; import only behind ``pytest.importorskip("torch")``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from reference import networks, traces

import attnnet
from attnnet import nn
from attnnet.bench.peers import torch_blocks, torch_networks
from attnnet.models import registry as model_registry
from attnnet.models.resnet import BasicBlock, Bottleneck, ResNet
from attnnet.models.vgg import VGG
from attnnet.nn import registry as block_registry

from .own_blocks import Program, block_class, draw_program

BLOCKS = ("SE", "SEC", "CA", "SA", "AA", "CBAM", "NEW", "NAB", "SE_SA", "SEC_SA", "OWNA", "OWNB")
LEAST = {"SE": 8, "SEC": 8, "CA": 16, "AA": 32, "SE_SA": 8, "SEC_SA": 8, "CBAM": 16, "NEW": 8}
# Depths that no network has, so that the names are free.
BASIC, BOTTLENECK, PLAIN = "resnet9", "resnet99", "vgg9"
STEPS = 3


@dataclass(frozen=True)
class Network:
    """All that was drawn."""

    arch: str
    counts: tuple[int, ...]
    block: str | None
    narrow: int
    batch: int
    size: tuple[int, int]
    options: dict
    optimiser: dict
    own: dict[str, Program]
    smooth: bool
    threads: int


def draw_network(seed: int) -> Network:
    rng = np.random.default_rng(seed)
    arch = str(rng.choice([BASIC, BASIC, BOTTLENECK, PLAIN]))
    vgg = arch == PLAIN
    narrow = int(rng.integers(3 if vgg else 2, 9))
    counts = tuple(int(n) for n in rng.integers(1, 3, 5 if vgg else 4))
    low, high = (32, 45) if vgg else (5, 33)
    size = tuple(int(n) for n in rng.integers(low, high, 2))
    last = [-(-side // 8) for side in size]  # a ResNet's last stage
    batch = int(rng.integers(2, 6))
    if not vgg:  # batch norms over a few values are ill-conditioned
        batch = max(batch, -(-12 // (last[0] * last[1])))
    options = {"num_classes": int(rng.integers(2, 21)), "in_channels": int(rng.integers(1, 5))}
    smooth = bool(rng.random() < 0.85)
    if vgg:
        options["batch_norm"] = smooth or bool(rng.random() < 0.5)
    return Network(arch, counts, _placement(rng, arch, narrow, size), narrow, batch, size, options,
                   _optimiser(rng), {n: draw_program(rng) for n in ("OWNA", "OWNB")}, smooth,
                   int(rng.integers(1, 4)))  # fmt: skip


def _placement(rng, arch: str, narrow: int, size: tuple[int, int]) -> str | None:
    """A block that fits, or none, for each stage."""
    if arch == PLAIN:
        widths = [w // narrow for w in (64, 128, 256, 512, 512)]
    else:
        widths = [(64 << s) // narrow * (4 if arch == BOTTLENECK else 1) for s in range(4)]
    parts = []
    for stage, channels in enumerate(widths, 1):
        side = [n >> (stage - 1) if arch == PLAIN else -(-n >> (stage - 1)) for n in size]
        name = str(rng.choice(BLOCKS)) if rng.random() < 0.6 else None
        small = min(side) < 7 or channels > 130
        wide = side[0] * side[1] > 400
        if name is None or channels < LEAST.get(name, 1):
            continue
        if (name == "NAB" and small) or (name == "AA" and wide):
            continue
        parts.append(f"{name}_{stage}")
    return "+".join(parts) or None


def _optimiser(rng) -> dict:
    momentum = float(rng.choice([0.0, 0.9]))
    return {
        "adamw": bool(rng.random() < 0.3),
        "momentum": momentum,
        "nesterov": bool(momentum and rng.random() < 0.5),
        "weight_decay": float(rng.choice([0.0, 5e-4, 0.05])),
        "lr": float(10 ** rng.uniform(-4, -2.7)),
    }


@contextlib.contextmanager
def known(network: Network) -> Iterator[None]:
    """Both sides can make it by its name."""
    counts, torch_make = network.counts, torch_blocks.make

    def make(block=None, **options):
        if network.arch == PLAIN:
            return VGG(PLAIN, counts, block, **options)
        kind = BasicBlock if network.arch == BASIC else Bottleneck
        return ResNet(network.arch, kind, counts, block, **options)

    def make_block(name, channels, size):
        if name in network.own:
            return block_class(torch.nn, network.own[name])(channels)
        return torch_make(name, channels, size)

    depths = {int(name.removeprefix("resnet")): counts for name in (BASIC, BOTTLENECK)}
    with (
        mock.patch.dict(torch_networks.RESNET_BLOCKS, depths),
        mock.patch.dict(torch_networks.VGG_CONVS, {9: counts}),
        mock.patch.object(torch_blocks, "make", make_block),
        mock.patch.dict(model_registry._factories, {network.arch: make}),
        mock.patch.dict(block_registry._entries),
    ):
        for name, program in network.own.items():
            attnnet.register_block(name, block_class(nn, program))
        yield


def compare(seed: int) -> Network:
    """Fails unless the network of this seed does in attnnet what it does in PyTorch.

    From a smooth state (see ``reference.networks.make_case``): logits, gradients, losses, the
    steps' updates, evaluation. From the usual one: logits and the first loss, which are continuous.
    """
    network = draw_network(seed)
    threads = attnnet.get_num_threads(), torch.get_num_threads()
    attnnet.set_num_threads(network.threads)
    torch.set_num_threads(1)  # its threads spin, and starve where anything else runs
    try:
        with known(network):
            traces.on_any_seed(lambda s: _compare(network, s), seed)
    finally:
        attnnet.set_num_threads(threads[0])
        torch.set_num_threads(threads[1])
    return network


def _compare(network: Network, seed: int) -> None:
    n, multiple = network, traces.MULTIPLES[None]
    steps = STEPS if n.smooth else 1
    optimiser = dict(n.optimiser)
    c = networks.make_case(n.arch, n.block, n.batch, n.size, seed, n.smooth, optimiser.pop("lr"),
                           n.narrow, **n.options)  # fmt: skip
    vars(c).update(optimiser)
    theirs, exact = (networks.run_torch(c, d, steps) for d in (torch.float32, torch.float64))
    ours = networks.run_attnnet(c, steps)
    traces.check_logits(ours.logits, theirs.logits, exact.logits, multiple)
    traces.check_losses(ours.losses, theirs.losses, exact.losses, multiple)
    if n.smooth:
        networks.compare(ours.grads, theirs.grads, exact.grads, multiple, "gradients")
        moved = [networks.updates(t, c) for t in (ours, theirs, exact)]
        networks.compare(*moved, multiple, f"updates after {steps} steps")
    traces.check_evaluation(c, exact.state)
