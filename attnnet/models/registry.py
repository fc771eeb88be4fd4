"""The registry of networks: names and how to make each. There is no second list."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import unknown_name
from ..nn.module import Module
from . import resnet, vgg

_factories: dict[str, Callable[..., Module]] = {}
_aliases: dict[str, str] = {}


def register_model(name: str, factory: Callable[..., Module] | None = None) -> Any:
    """Give a network a name for ``create_model`` and the command line.

    Use it as a decorator, ``@attnnet.models.register_model("mynet")``, or with the factory as
    second argument. Registering one's own name again replaces it.

    Args:
        name: of the network, lower case.
        factory: called ``factory(block, **options)``; returns a Module.
    """
    if factory is None:
        return lambda given: register_model(name, given)
    if not callable(factory):
        raise TypeError(f"register_model({name!r}) needs a callable, got {type(factory).__name__}")
    _factories[name] = factory
    return factory


def list_models() -> list[str]:
    """Names of all networks."""
    return list(_factories)


def find_model(arch: str) -> str:
    """The registered name of a network: case does not matter, ``vgg19_bn`` is ``vgg19``.

    Raises:
        ValueError: for an unknown name; lists what exists and the nearest match.
    """
    lowered = {name.lower(): name for name in [*_factories, *_aliases]}
    found = lowered.get(str(arch).lower())
    if found is None:
        raise unknown_name("model", arch, _factories)
    return _aliases.get(found, found)


def has_option(arch: str, name: str) -> bool:
    """Whether ``create_model`` takes an option for this network.

    Raises:
        ValueError: for an unknown network.
    """
    parameters = inspect.signature(_factories[find_model(arch)]).parameters
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def create_model(arch: str, block: str | None = None, **options: Any) -> Module:
    """Make a network by name.

    Args:
        arch: ``"resnet18"``, ``"vgg19"`` and so on; see ``list_models()``.
        block: placement of attention blocks, such as ``"NEW_12"``; None for none.
        options: ``num_classes``, ``in_channels``, ``image_size``, and for VGG ``batch_norm`` and
            ``dropout``.

    Raises:
        ValueError: for an unknown network, block or option value.
    """
    return _factories[find_model(arch)](block, **options)


for _module in (resnet, vgg):
    for _name in sorted(vars(_module), key=lambda name: (len(name), name)):
        if _name.startswith(("resnet", "vgg")) and callable(getattr(_module, _name)):
            register_model(_name, getattr(_module, _name))
            if _module is vgg:
                _aliases[f"{_name}_bn"] = _name
