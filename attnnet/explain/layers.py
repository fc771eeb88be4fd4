"""Which layers are looked at: by name, by module, or found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..models.resnet import ResNet
from ..models.vgg import VGG
from ..nn.module import Module
from ..nn.pooling import MaxPool2d

Layers = str | Module | Sequence[str | Module] | None


def find_layers(model: Module, layers: Layers = None) -> dict[str, Module]:
    """The modules to look at, by name, in the order given.

    Args:
        model: the network.
        layers: dotted names such as ``"layer4"``, ``"layer1.0.attention"`` (a ResNet's block, in
            state dicts and ``named_modules`` ``layer1.0.image_module``) or ``"features.49"``,
            modules of the model, or several of these; None for the last layer that keeps a
            picture: ``layer4`` of a ResNet, what stands before the last pool of a VGG.

    Raises:
        ValueError: for a name that does not exist (with the nearest one), a module that is not
            the model's, a layer named twice, none, or a network of which it is not known where to
            look.
        TypeError: for anything else.
    """
    if layers is None:
        name = last_layer(model)
        return {name: model.get_submodule(name)}
    if isinstance(layers, (str, Module)):
        layers = [layers]
    found: dict[str, Module] = {}
    for entry in layers:
        name, module = _find(model, entry)
        if any(module is other for other in found.values()):
            raise ValueError(f"layers: {name!r} is given twice")
        found[name] = module
    if not found:
        raise ValueError("layers: none given; leave it out for the default layer")
    return found


def _find(model: Module, entry: Any) -> tuple[str, Module]:
    if isinstance(entry, str):
        return entry, model.get_submodule(entry)
    if isinstance(entry, Module):
        for name, module in model.named_modules():
            if module is entry:
                return name, entry
        raise ValueError(f"layers: this {type(entry).__name__} is no module of the model")
    raise TypeError(f"layers must be names or modules of the model, got {type(entry).__name__}")


def last_layer(model: Module) -> str:
    """The name of the last layer whose output is a picture; see ``find_layers``.

    Raises:
        ValueError: for a network that is neither a ResNet nor a VGG.
    """
    if isinstance(model, ResNet):
        return "layer4"
    if isinstance(model, VGG):
        pools = [i for i, part in enumerate(model.features) if isinstance(part, MaxPool2d)]
        return f"features.{pools[-1] - 1}"
    names = [name for name, _ in model.named_modules() if name]
    raise ValueError(
        f"which layer of this {type(model).__name__} to look at is not known: give layers, "
        f"one or more of {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
    )
