"""Random numbers of the core: known answers, ranges, moments, independence of length."""

import numpy as np
import pytest

from attnnet import _core

from . import twin

# D. E. Shaw Research, Random123, kat_vectors: philox4x32 10
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]
SEEDS = [(0, 0), (42, 7), (2**64 - 1, 2**63)]


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_the_twin_gives_the_published_words(counter, key, expected):
    assert twin.philox(counter, key) == expected


@pytest.mark.parametrize("seed, counter", SEEDS)
def test_uniform_is_the_twins_words(seed, counter):
    words = [w for b in range(3) for w in twin.block(seed, twin.FILL, counter, b)]
    expected = np.float32([(w >> 8) / 2**24 for w in words])
    assert np.array_equal(_core.random_uniform((12,), 0, 1, seed, counter), expected)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 2.0), (1e8, 1e8 + 8), (-3e-39, 1e-39)])
def test_uniform_stays_below_its_upper_end(low, high):
    x = _core.random_uniform((200_000,), low, high, 5, 6)
    assert x.min() >= np.float32(low)
    assert x.max() < np.float32(high)


def test_uniform_of_an_empty_range_is_its_lower_end():
    assert set(_core.random_uniform((5,), 2.0, 2.0, 1, 1).tolist()) == {2.0}


def test_moments():
    n = 400_000
    u, x = _core.random_uniform((n,), -1, 2, 8, 9), _core.random_normal((n,), 1, 2, 8, 9)
    # Five standard errors of each estimate.
    assert not abs(u.mean() - 0.5) > 5 * np.sqrt(0.75 / n)
    assert not abs(x.mean() - 1) > 5 * 2 / np.sqrt(n)
    assert not abs(x.std() - 2) > 5 * 2 / np.sqrt(2 * n)
    assert not abs(((x - 1) / 2 > 1.959964).mean() - 0.025) > 5 * np.sqrt(0.025 / n)


@pytest.mark.parametrize("draw", [_core.random_uniform, _core.random_normal])
def test_a_longer_draw_begins_like_a_shorter_one(draw):
    longest = draw((17,), 0, 1, 3, 4)
    for n in range(17):
        assert np.array_equal(draw((n,), 0, 1, 3, 4), longest[:n])


@pytest.mark.parametrize("seed, epoch", SEEDS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 50, 101])
def test_permutation_is_the_twins(n, seed, epoch):
    assert np.array_equal(_core.permutation(n, seed, epoch), twin.permutation(n, seed, epoch))


def test_every_place_is_equally_likely():
    n, rounds = 6, 6000
    counts = np.zeros((n, n))
    for epoch in range(rounds):
        counts[np.arange(n), _core.permutation(n, 11, epoch)] += 1
    chi2 = ((counts - rounds / n) ** 2 / (rounds / n)).sum()
    assert not chi2 > 60, f"chi2 {chi2:.1f} of 25 degrees of freedom"


def test_permutation_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="n is -1"):
        _core.permutation(-1, 0, 0)
    with pytest.raises(ValueError, match="seed"):
        _core.permutation(3, -1, 0)
    with pytest.raises(TypeError, match="missing"):
        _core.permutation(3, 1)
