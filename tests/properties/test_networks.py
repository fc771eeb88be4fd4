"""A few random networks against PyTorch; ``dev.py networks`` goes on for hours."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="PyTorch is what random networks are compared with")

from . import networks

SEEDS = (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_network_trains_as_in_torch(seed):
    print(networks.compare(seed))


def test_every_kind_is_drawn():
    """Families, blocks and optimisers all occur among the first few hundred seeds."""
    drawn = [networks.draw_network(seed) for seed in range(300)]
    assert {n.arch for n in drawn} == {networks.BASIC, networks.BOTTLENECK, networks.PLAIN}
    placed = "+".join(n.block or "" for n in drawn)
    assert [name for name in networks.BLOCKS if f"{name}_" not in placed] == []
    assert {n.optimiser["adamw"] for n in drawn} == {n.smooth for n in drawn} == {True, False}
