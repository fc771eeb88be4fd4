"""Placement names: which attention block stands at which stages.

``NEW_12`` puts NEW at stages 1 and 2; ``CBAM_1+SE_34`` mixes. A network's own name, such as
``RESNET`` or ``VGG19``, or None, means no block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import unknown_name
from ..nn.registry import find_block, list_blocks

_part = re.compile(r"(?P<block>.+?)_(?P<stages>[0-9]+)")
_NO_BLOCK = ("none", "base")


@dataclass(frozen=True)
class Placement:
    """Which block stands at each stage.

    Attributes:
        name: canonical, ``"CBAM_1+SE_34"``; the network's name where there is no block.
        blocks: stage number, from 1, to the block's registered name.
    """

    name: str
    blocks: dict[int, str]

    def at(self, stage: int) -> str | None:
        """The block's name at a stage, or None."""
        return self.blocks.get(stage)


def read_placement(
    text: str | None, stages: int, base: str, also_base: Iterable[str] = ()
) -> Placement:
    """Read a placement name.

    Args:
        text: ``"NEW_12"``, ``"CBAM_1+SE_34"``, a base name, or None. Case does not matter where
            one registered block fits.
        stages: how many stages the network has.
        base: what the network without a block is called in placements: ``"RESNET"``.
        also_base: further names that mean no block.

    Raises:
        ValueError: for an unknown block (lists what exists and the nearest match), missing,
            repeated or impossible stages.
        TypeError: for anything but a string or None.
    """
    if text is None:
        return Placement(base, {})
    if not isinstance(text, str):
        raise TypeError(f"block must be a name such as 'NEW_12', or None: got {text!r}")
    bases = [base, *also_base]
    if text.lower() in (*_NO_BLOCK, "", *(name.lower() for name in bases)):
        return Placement(base, {})
    blocks: dict[int, str] = {}
    for part in text.split("+"):
        name, digits = _split(part.strip(), text, stages, bases)
        for digit in digits:
            stage = int(digit)
            if not 1 <= stage <= stages:
                raise ValueError(
                    f"block {text!r}: there is no stage {stage}; stages are 1 to {stages}"
                )
            if stage in blocks:
                raise ValueError(f"block {text!r} names stage {stage} twice")
            blocks[stage] = name
    return Placement(_canonical(blocks), blocks)


def _split(part: str, text: str, stages: int, bases: list[str]) -> tuple[str, str]:
    """The registered name and the stage digits of one part."""
    match = _part.fullmatch(part)
    if match:
        return find_block(match["block"]).name, match["stages"]
    alone = [name for name in list_blocks() if name.lower() == part.lower()]
    if alone:
        raise ValueError(
            f"block {text!r} does not say where {alone[0]} stands: write for example "
            f"{alone[0]}_1 or {alone[0]}_12 (stages 1 to {stages})"
        )
    raise unknown_name(
        "block placement", part, [*bases, *(f"{name}_STAGES" for name in list_blocks())]
    )


def _canonical(blocks: dict[int, str]) -> str:
    """Stages in rising order, blocks in the order of their first stage."""
    stages_of: dict[str, str] = {}
    for stage in sorted(blocks):
        stages_of[blocks[stage]] = stages_of.get(blocks[stage], "") + str(stage)
    return "+".join(f"{name}_{stages}" for name, stages in stages_of.items())
