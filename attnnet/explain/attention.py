"""What the attention blocks themselves say: gates, masks, and what AA's positions attend to.

No other tool shows these: a class activation map asks where the answer came from, these are the
factors that the network itself multiplied by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from .. import functional as F
from ..models.classifier import Classifier
from ..nn.attention_augmented import AA
from ..nn.layers import positive
from ..nn.modes import evaluating
from ..nn.module import Module
from ..tensor import Tensor
from .image import apply_colormap, deprocess, html_image, stacked
from .inputs import pictures
from .layers import Layers, find_layers
from .maps import resize

_SHOWN = 8  # images of a batch that a notebook shows


@dataclass(frozen=True, repr=False, eq=False)
class AttentionMaps:
    """Gates of attention blocks for N images, by the block's name.

    Attributes:
        channel: (N, C) float32 in 0..1, of the blocks that weight channels.
        spatial: (N, h, w) float32 in 0..1, of the blocks that weight positions.
        images: (N, C, H, W) float32, normalised, as the network saw them.
    """

    channel: dict[str, np.ndarray]
    spatial: dict[str, np.ndarray]
    images: np.ndarray

    def masks(self, name: str) -> np.ndarray:
        """(N, H, W): the spatial mask of a block resized to the images (bilinear).

        Raises:
            ValueError: for a block without one.
        """
        if name not in self.spatial:
            have = ", ".join(self.spatial) or "none"
            raise ValueError(f"block {name!r} has no spatial mask; those with one: {have}")
        return resize(self.spatial[name], self.images.shape[2:])

    def __repr__(self) -> str:
        lines = [f"AttentionMaps of {len(self.images)} images"]
        for kind, gates in (("channel", self.channel), ("spatial", self.spatial)):
            for name, values in gates.items():
                shape = " x ".join(map(str, values.shape[1:]))
                low, mean, high = values.min(), values.mean(), values.max()
                lines.append(f"  {name} {kind} {shape}: {low:.3f} to {high:.3f}, mean {mean:.3f}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Images, and under them each spatial mask between its own least and largest value."""
        text = f"<pre>{escape(repr(self))}</pre>"
        if not self.spatial or not len(self.images) or self.images.shape[1] not in (1, 3):
            return text
        parts = [text, html_image(stacked([deprocess(self.images[:_SHOWN])]), "the images")]
        for name in self.spatial:
            masks = self.masks(name)[:_SHOWN]
            low, high = masks.min(), masks.max()
            spread = np.clip((masks - low) / max(high - low, 1e-7), 0, 1)
            masks = stacked([apply_colormap(spread, "viridis")])
            parts.append(f"<p>{escape(name)}</p>" + html_image(masks, f"spatial masks of {name}"))
        return "".join(parts)


def attention_maps(
    model: Module, images: Any, layers: Layers = None, batch_size: int = 128
) -> AttentionMaps:
    """The channel gates and spatial masks of attention blocks, for any images.

    Args:
        model, images, batch_size: as for :func:`attnnet.explain.cam`.
        layers: which blocks, by name ("layer1.0.attention", "features.6") or module; default all.

    Returns:
        :class:`AttentionMaps`. AA has no gates: see :func:`attention_rows`.

    Raises:
        ValueError: for a network without attention blocks, a name that does not exist or is no
            block with gates, a block that a forward does not call or calls more than once, and for
            images as ``cam``.
    """
    blocks = _blocks(model, layers)
    if layers is None:  # blocks of one's own need not have gates
        blocks = {name: block for name, block in blocks.items() if hasattr(block, "gates")}
    for name, block in blocks.items():
        if not hasattr(block, "gates"):
            raise ValueError(f"layer {name!r} is a {type(block).__name__}, which has no gates()")
    channel: dict[str, list[np.ndarray]] = {}
    spatial: dict[str, list[np.ndarray]] = {}

    def read(name: str, block: Module, x: Tensor) -> None:
        gates = block.gates(x)
        if not gates and layers is not None:  # asked for by name
            other = ": see attention_rows" if isinstance(block, AA) else ""
            raise ValueError(f"layer {name!r}: {type(block).__name__} has no gates{other}")
        if "channel" in gates:
            gate = gates["channel"].numpy()
            channel.setdefault(name, []).append(gate.reshape(gate.shape[:2]))
        if "spatial" in gates:
            spatial.setdefault(name, []).append(gates["spatial"].numpy()[:, 0])

    x = pictures(model, images)
    _watch(model, blocks, x, read, batch_size)
    return AttentionMaps(_joined(channel), _joined(spatial), x)


def attention_rows(
    model: Module,
    images: Any,
    query: tuple[int, int],
    layer: str | Module | None = None,
    batch_size: int = 128,
) -> np.ndarray:
    """What one position of an AA block attends to, in both of AA's forms.

    Args:
        model, images, batch_size: as for :func:`attnnet.explain.cam`.
        query: (row, column) of the position, at the block's own size.
        layer: the AA block, by name or module; default the network's only one.

    Returns:
        (N, heads, h, w) float32; each head's map adds up to 1.

    Raises:
        ValueError: where there is no AA block or several to choose from, for a layer of another
            kind, a block that a forward does not call or calls more than once, and for a position
            outside.
    """
    found = _blocks(model, layer)
    blocks = {name: block for name, block in found.items() if isinstance(block, AA)}
    if len(blocks) != 1:
        raise ValueError(
            f"attention_rows needs one AA block, found {', '.join(blocks) or 'none'}"
            + ("; choose by layer" if blocks else "")
        )
    (block,) = blocks.values()
    row, column = query
    if not (0 <= row < block.height and 0 <= column < block.width):
        raise ValueError(f"query {query} is outside of {block.height} x {block.width} positions")
    parts: list[np.ndarray] = []

    def read(name: str, block: AA, x: Tensor) -> None:
        kqv = block.kqv_conv(x)
        for image in range(x.shape[0]):
            rows = F.relative_attention_rows(
                kqv, block.rel_encoding_h, block.rel_encoding_w, block.heads, block.dk, block.dv,
                block.form == "original", image=image, query=row * block.width + column,
            )  # fmt: skip
            parts.append(rows.numpy().reshape(block.heads, block.height, block.width))

    _watch(model, blocks, pictures(model, images), read, batch_size)
    return np.stack(parts)


def _blocks(model: Module, layers: Layers) -> dict[str, Module]:
    if layers is not None:
        return find_layers(model, layers)
    blocks = model.attention_blocks() if isinstance(model, Classifier) else {}
    if not blocks:
        raise ValueError(f"this {type(model).__name__} has no attention blocks; name them by layer")
    return blocks


def _watch(
    model: Module,
    blocks: dict[str, Module],
    x: np.ndarray,
    read: Callable[[str, Any, Tensor], None],
    batch_size: int,
) -> None:
    """Run the network and call ``read(name, block, input)`` at each block, once a batch.

    Raises:
        ValueError: where a block is not called, or more than once.
    """
    seen: set[str] = set()

    def hook(name: str) -> Callable[..., None]:
        def look(block: Module, inputs: tuple[Any, ...], _: Any) -> None:
            if name in seen:
                raise ValueError(f"layer {name!r} is called more than once in a forward")
            seen.add(name)
            read(name, block, inputs[0])

        return look

    handles = [block.register_forward_hook(hook(name)) for name, block in blocks.items()]
    try:
        with evaluating(model):
            for start in range(0, len(x), positive(batch_size, "batch_size")):
                seen.clear()
                model(Tensor(x[start : start + batch_size]))
                for name in blocks:
                    if name not in seen:
                        raise ValueError(f"layer {name!r} takes no part in the network's forward")
    finally:
        for handle in handles:
            handle.remove()


def _joined(parts: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
