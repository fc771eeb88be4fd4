"""Which network a state dict is of, read from its names and shapes.

The names are those of the study's checkpoints (and of every network here): a ResNet has
``layer{1-4}.{i}.conv1.weight``, its blocks under ``image_module``; a VGG has ``features.N``, which
counts convolution, batch norm, ReLU, block and pool each as one. One difference: SE_SA and SEC_SA
are one entry of ``features`` here and two in the study's VGG files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..models import resnet, vgg
from ..nn.attention import SE_SA, SEC_SA
from ..nn.module import Module
from ..nn.registry import BlockEntry, find_block, list_blocks, make_block
from ..nn.state import entries

State = Mapping[str, np.ndarray]

# Two blocks with the same names: a file of the study holds the second.
_STUDY_FORM = {"AA": "AA_ORIGINAL"}
# What wraps a model in PyTorch and leaves its name in the keys.
_WRAPPERS = {"module", "_orig_mod"}
_RESIDUAL = re.compile(r"layer([1-4])\.(\d{1,3})\.(.+)")
_FEATURE = re.compile(r"features\.(\d{1,3})\.(.+)")
_COUNTER = "num_batches_tracked"


def unwrapped(state: State) -> dict[str, np.ndarray]:
    """The state under names without the ``module.`` that DataParallel puts before or into them.

    Raises:
        CheckpointError: where two names become one.
    """
    plain = {
        ".".join(part for part in key.split(".") if part not in _WRAPPERS): value
        for key, value in state.items()
    }
    if len(plain) != len(state):
        raise CheckpointError("the weights are there twice, with and without 'module.'.")
    return plain


def recognise(state: State) -> dict[str, Any]:
    """What ``create_model`` needs to make the network that an unwrapped state dict is of.

    Raises:
        CheckpointError: it is neither a ResNet nor a VGG of the kinds known here.
    """
    empty = [key for key, value in state.items() if value.size == 0]
    if empty:
        raise CheckpointError(f"{empty[0]} is empty: no network has such a weight.")
    if any(_RESIDUAL.fullmatch(key) for key in state):
        return _resnet(state)
    if any(_FEATURE.fullmatch(key) for key in state):
        return _vgg(state)
    raise CheckpointError(
        "the names are neither those of a ResNet nor of a VGG "
        f"({', '.join(list(state)[:5])}, ...). Make the model and give it as model=."
    )


def torch_names(model: Module) -> dict[str, str]:
    """Each key of a model's state dict to the key that the study's PyTorch code has for it."""
    blocks = model.attention_blocks() if isinstance(model, vgg.VGG) else {}
    pairs = [int(name.rpartition(".")[2]) for name, block in blocks.items()
             if isinstance(block, (SE_SA, SEC_SA))]  # fmt: skip
    names = {}
    for key, _ in entries(model):
        names[key] = key
        feature = _FEATURE.fullmatch(key) if pairs else None
        if feature:
            place, rest = int(feature[1]), feature[2]
            shifted = place + sum(pair < place for pair in pairs)
            if place in pairs:
                half, rest = rest.split(".", 1)
                shifted += int(half)
            names[key] = f"features.{shifted}.{rest}"
    return names


def _shape(state: State, key: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a weight that must be there.

    Raises:
        CheckpointError: it is missing, or has another number of dimensions.
    """
    if key not in state:
        raise CheckpointError(f"{key} is missing.")
    shape = state[key].shape
    if len(shape) != dimensions:
        raise CheckpointError(f"{key} has shape {shape}, expected {dimensions} dimensions.")
    return shape


# ResNet


def _resnet(state: State) -> dict[str, Any]:
    parts: dict[tuple[int, int], list[str]] = {}
    for key in state:
        match = _RESIDUAL.fullmatch(key)
        if match:
            parts.setdefault((int(match[1]), int(match[2])), []).append(match[3])
    counts = tuple(sum(stage == s for stage, _ in parts) for s in (1, 2, 3, 4))
    bottleneck = any("conv3.weight" in names for names in parts.values())
    kind = resnet.Bottleneck if bottleneck else resnet.BasicBlock
    archs = [name for name, made in resnet.DEPTHS.items() if made == (kind, counts)]
    if not archs:
        raise CheckpointError(
            f"a ResNet of {'-'.join(map(str, counts))} blocks ({kind.__name__}) is not known: "
            f"known are {', '.join(resnet.DEPTHS)}."
        )
    config: dict[str, Any] = {
        "arch": archs[0],
        "num_classes": _shape(state, "linear.weight", 2)[0],
        "in_channels": _shape(state, "conv1.weight", 4)[1],
    }
    head = "image_module."
    blocks: dict[Any, Any] = {}
    for (stage, index), names in sorted(parts.items()):
        inner = [name.removeprefix(head) for name in names if name.startswith(head)]
        place = f"layer{stage}.{index}.image_module"
        block = _block_of(inner, place) if inner else None
        if blocks.setdefault(stage, block) != block:
            raise CheckpointError(
                f"{place} holds {block or 'no block'}, the other blocks of its stage hold "
                f"{blocks[stage] or 'none'}."
            )
        if block and "image_size" not in config and "rel_encoding_h" in inner:
            config["image_size"] = _table_size(state, place, stage)
    return config | {"block": _placement(blocks)}


def _placement(blocks: Mapping[int, str | None]) -> str | None:
    return "+".join(f"{name}_{stage}" for stage, name in blocks.items() if name) or None


def _table_size(state: State, place: str, stage: int) -> tuple[int, int]:
    """The image size that the position tables of an AA block were made for."""
    shapes = [_shape(state, f"{place}.rel_encoding_{axis}", 2) for axis in "hw"]
    height, width = ((rows + 1) // 2 << (stage - 1) for rows, _ in shapes)
    return height, width


# VGG


def _vgg(state: State) -> dict[str, Any]:
    numbered: dict[int, list[str]] = {}
    for key in state:
        match = _FEATURE.fullmatch(key)
        if match:
            numbered.setdefault(int(match[1]), []).append(match[2])
    convs = [n for n, names in sorted(numbered.items()) if set(names) == {"weight", "bias"}]
    archs = [name for name, counts in vgg.DEPTHS.items() if sum(counts) == len(convs)]
    if not archs:
        raise CheckpointError(
            f"a VGG of {len(convs)} convolutions is not known: known are {', '.join(vgg.DEPTHS)}."
        )
    norms = [n for n, names in numbered.items() if "running_mean" in names]
    config: dict[str, Any] = {
        "arch": archs[0],
        "num_classes": _shape(state, "classifier.6.weight", 2)[0],
        "in_channels": _shape(state, f"features.{convs[0]}.weight", 4)[1],
        "batch_norm": bool(norms),
    }
    blocks, conv = {}, 0
    others = sorted(set(numbered) - set(convs) - set(norms))
    for stage, count in enumerate(vgg.DEPTHS[archs[0]], 1):
        conv += count
        last = convs[conv - 1]
        end = convs[conv] if conv < len(convs) else max(numbered) + 1
        places = [n for n in others if last < n < end]
        if places:
            place = f"features.{places[0]}"
            blocks[stage] = _block_of(_joined(numbered, places), place)
            if "image_size" not in config and "rel_encoding_h" in numbered[places[0]]:
                config["image_size"] = _table_size(state, place, stage)
    config.setdefault("image_size", _linear_size(_shape(state, "classifier.1.weight", 2)[1]))
    return config | {"block": _placement(blocks)}


def _joined(numbered: Mapping[int, list[str]], places: list[int]) -> list[str]:
    """The names inside a block; one that takes two entries is a chain of "0" and "1"."""
    if len(places) == 1:
        return numbered[places[0]]
    return [f"{half}.{name}" for half, place in enumerate(places) for name in numbered[place]]


def _linear_size(columns: int) -> tuple[int, int]:
    """The image size that the first linear layer was made for, if the images were square."""
    cells = columns // vgg.WIDTHS[-1]
    side = isqrt(cells)
    if side < 1 or columns != vgg.WIDTHS[-1] * side * side:
        raise CheckpointError(
            f"classifier.1.weight has {columns} columns, which fits no square image: give "
            "image_size=(height, width)."
        )
    return side << len(vgg.WIDTHS), side << len(vgg.WIDTHS)


# Blocks


def _block_of(names: Iterable[str], place: str) -> str:
    """The registered block whose state dict has these names.

    Raises:
        CheckpointError: there is none.
    """
    wanted = _without_counters(names)
    for name in list_blocks():
        if _names_in(find_block(name)) == wanted:
            return _STUDY_FORM.get(name, name)
    raise CheckpointError(
        f"{place} holds no block that is known ({', '.join(sorted(wanted)[:6])}). Known are "
        f"{', '.join(list_blocks())}; register a block of your own first."
    )


@lru_cache(maxsize=256)
def _names_in(entry: BlockEntry) -> frozenset[str]:
    """The names in a block's state dict, found by making a small one."""
    try:
        return _without_counters(make_block(entry.name, 64, 8, 8).state_dict())
    except Exception:  # a user's factory may fail as it likes: then it is not this block
        return frozenset()


def _without_counters(names: Iterable[str]) -> frozenset[str]:
    """PyTorch before 0.4.1 did not count batches."""
    return frozenset(name for name in names if name.rpartition(".")[2] != _COUNTER)
