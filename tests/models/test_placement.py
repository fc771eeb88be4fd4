"""Placement names."""

from __future__ import annotations

import pytest

from attnnet.models import read_placement
from attnnet.nn import list_blocks


def read(text, stages=4):
    return read_placement(text, stages, "RESNET", ["RESNET18"])


@pytest.mark.parametrize(
    ("text", "name", "blocks"),
    [
        ("NEW_12", "NEW_12", {1: "NEW", 2: "NEW"}),
        ("SE_SA_3", "SE_SA_3", {3: "SE_SA"}),
        ("SEC_SA_41", "SEC_SA_14", {1: "SEC_SA", 4: "SEC_SA"}),
        ("CBAM_1+SE_34", "CBAM_1+SE_34", {1: "CBAM", 3: "SE", 4: "SE"}),
        ("se_4 + cbam_1", "CBAM_1+SE_4", {1: "CBAM", 4: "SE"}),
        ("SE_1+SE_2", "SE_12", {1: "SE", 2: "SE"}),
        ("SE_13+NEW_2", "SE_13+NEW_2", {1: "SE", 2: "NEW", 3: "SE"}),
        ("SER_2", "SE_2", {2: "SE"}),
        ("AA_ORIGINAL_1", "AA_ORIGINAL_1", {1: "AA_ORIGINAL"}),
        ("nab_1", "NAB_1", {1: "NAB"}),
    ],
)
def test_reading(text, name, blocks):
    placement = read(text)
    assert placement.name == name and placement.blocks == blocks
    assert read(placement.name) == placement
    assert placement.at(9) is None


@pytest.mark.parametrize("text", [None, "", "RESNET", "resnet", "RESNET18", "none", "Base"])
def test_no_block(text):
    placement = read(text)
    assert placement.name == "RESNET" and placement.blocks == {}


def test_any_block_at_any_stages():
    for block in list_blocks():
        for stages in ("1", "5", "13", "12345"):
            placement = read(f"{block}_{stages}", stages=5)
            assert placement.blocks == {int(s): block for s in stages}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NEWW_12", "unknown attention block 'NEWW'. Did you mean 'NEW'"),
        ("NEW_5", "'NEW_5': there is no stage 5; stages are 1 to 4"),
        ("NEW_0", "there is no stage 0"),
        ("NEW_11", "names stage 1 twice"),
        ("CBAM_12+SE_23", "names stage 2 twice"),
        ("NEW", "does not say where NEW stands: write for example NEW_1"),
        ("cbam_1+new", "does not say where NEW stands"),
        ("VGG19", "unknown block placement 'VGG19'.*Known: RESNET, RESNET18, SE_STAGES"),
        ("RESNT", "unknown block placement 'RESNT'. Did you mean 'RESNET'"),
        ("NEW_1+", "unknown block placement ''"),
        ("_12", "unknown block placement '_12'"),
    ],
)
def test_errors(text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_wrong_type():
    with pytest.raises(TypeError, match="block must be a name such as 'NEW_12', or None: got 12"):
        read(12)
