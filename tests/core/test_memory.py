"""Memory: what is freed is used again, joined with its neighbours, and can be given back."""

import numpy as np
import pytest

import attnnet
from attnnet import Tensor

pytestmark = pytest.mark.own_process  # what others left alive lies between what is freed here

MEBIBYTE = 1 << 20


def held():
    stats = attnnet.memory_stats()
    return stats["in_use"] + stats["cached"]


def blank(mebibytes):
    return Tensor(np.zeros(int(mebibytes * MEBIBYTE) // 4, np.float32))


def keeps() -> bool:
    blank(3)
    return attnnet.memory_stats()["cached"] > 0


@pytest.mark.parametrize("order", ["forwards", "backwards", "odd ones first"])
def test_freed_neighbours_become_one_block(order):
    parts = [blank(1 + i / 8) for i in range(16)]
    before = held()
    indices = {
        "forwards": list(range(16)),
        "backwards": list(range(15, -1, -1)),
        "odd ones first": [*range(1, 16, 2), *range(0, 16, 2)],
    }[order]
    for i in indices:
        parts[i] = None
    whole = blank(sum(1 + i / 8 for i in range(16)))
    assert held() <= before + MEBIBYTE / 8
    del whole


def test_a_large_free_block_serves_small_ones():
    large = blank(32)
    before = held()
    del large
    parts = [blank(1) for _ in range(31)]
    assert held() <= before
    del parts


def test_random_sizes_take_little_more_than_is_in_use():
    rng = np.random.default_rng(3)
    live, most = {}, 0
    for step in range(600):
        if len(live) > 20:
            del live[rng.choice(list(live))]
        live[step] = blank(float(rng.uniform(0.05, 3)))
        live[step].zero_()
        most = max(most, attnnet.memory_stats()["in_use"])
    assert held() <= 1.35 * most
    values = {step: float(step) for step in live}
    for step, tensor in live.items():  # no block overlaps another
        tensor.copy_(np.full(tensor.shape, values[step], np.float32))
    for step, tensor in live.items():
        assert (tensor.numpy() == values[step]).all()


@pytest.mark.skipif(not keeps(), reason="built to keep nothing, for a sanitizer or valgrind")
def test_empty_cache_gives_back_all_that_is_free():
    keep = [blank(3) for _ in range(8)]
    del keep[::2]
    assert attnnet.memory_stats()["cached"] >= 12 * MEBIBYTE
    attnnet.empty_cache()
    assert attnnet.memory_stats()["cached"] == 0
    for tensor in keep:
        assert (tensor.numpy() == 0).all()
    again = [blank(3) for _ in range(4)]
    assert all((tensor.numpy() == 0).all() for tensor in again + keep)


def test_more_than_the_machine_has_is_refused_at_once():
    x = Tensor(np.zeros((1, 1), np.float32))
    with pytest.raises(MemoryError, match="out of memory"):
        attnnet.functional.pad(x, (0, 2**43))  # 32 TiB, in a process that must live on
