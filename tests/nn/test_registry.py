"""The registry of blocks."""

from __future__ import annotations

import pytest

from attnnet import list_blocks, nn, register_block
from attnnet.nn import registry


@pytest.fixture
def clean():
    before = dict(registry._entries)
    yield
    registry._entries.clear()
    registry._entries.update(before)


def test_the_study_is_there():
    expected = {"SE", "SEC", "CA", "SA", "AA", "SE_SA", "SEC_SA", "CBAM", "NEW", "NAB"}
    assert expected <= set(list_blocks())
    for name in list_blocks():
        entry = registry.find_block(name)
        assert entry.summary or not entry.builtin, name
        block = nn.make_block(name, 32, 8, 8)
        assert isinstance(block, nn.Module), name


def test_names_are_found_in_any_case_and_by_alias():
    assert registry.find_block("cbam").name == "CBAM"
    assert registry.find_block("SER").name == registry.find_block("ser").name == "SE"
    assert nn.make_block("aa_original", 32, 5, 6).form == "original"
    with pytest.raises(ValueError, match=r"unknown attention block 'CBAN'. Did you mean 'CBAM'"):
        registry.find_block("CBAN")


def test_own_blocks(clean):
    @register_block("MINE")
    class Mine(nn.Module):
        """A block. More."""

        def __init__(self, channels, width):
            super().__init__()
            self.size = (channels, width)

    assert nn.make_block("mine", 16, 3, 5).size == (16, 5)
    assert registry.find_block("MINE").summary == "A block. More."
    register_block("BARE", type("Bare", (nn.Module,), {}))
    assert registry.find_block("BARE").summary == "", "not the base class's"
    register_block("MINE", lambda channels, **size: nn.Identity())  # once more: replaced
    assert isinstance(nn.make_block("MINE", 16, 3, 5), nn.Identity)
    register_block("Mine", lambda channels: nn.ReLU())  # only case tells them apart now
    assert isinstance(nn.make_block("Mine", 16, 3, 5), nn.ReLU)
    with pytest.raises(ValueError, match="unknown attention block 'mine'"):
        registry.find_block("mine")


@pytest.mark.parametrize("name", ["", "1A", "A_12", "A+B", "A-B", "A_", "Ä", None, 3])
def test_names_that_cannot_be(clean, name):
    with pytest.raises(ValueError, match="a block's name needs letters"):
        register_block(name, nn.Identity)


def test_other_errors(clean):
    with pytest.raises(ValueError, match="'new' is a built-in block"):
        register_block("new", nn.Identity)
    with pytest.raises(ValueError, match="'SER' is a built-in block"):
        register_block("SER", nn.Identity)
    with pytest.raises(TypeError, match="needs a class or function"):
        register_block("OWN", 3)
    register_block("OWN", lambda channels: "no module")
    with pytest.raises(TypeError, match="block 'OWN' must return an attnnet Module, got str"):
        nn.make_block("OWN", 16, 8, 8)
