"""Containers: Sequential, which fuses convolution, batch norm and ReLU, and ModuleList."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from .fused import conv_bn
from .layers import BatchNorm2d, Conv2d, ReLU
from .module import Module


class _Listed(Module):
    """What both containers share: children under the names "0", "1", ..."""

    def _items(self) -> list[Module]:
        return [module for module in self._modules.values() if module is not None]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items())

    def _key(self, index: int) -> str:
        if not isinstance(index, int):
            raise TypeError(
                f"{type(self).__name__} index must be an int, not {type(index).__name__}"
            )
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"index {index} is out of range for {type(self).__name__} of {len(self)}"
            )
        return list(self._modules)[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(self._key(index), module)

    def _replace_all(self, modules: list[Module]) -> None:
        for name in list(self._modules):
            delattr(self, name)
        self.extend(modules)

    def append(self, module: Module) -> _Listed:
        """Add a module at the end; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> _Listed:
        """Add modules at the end; returns the container."""
        for module in modules:
            self.append(module)
        return self


class ModuleList(_Listed):
    """A list of modules that registers them. It has no forward of its own.

    Args:
        modules: the first members (default none).
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ModuleList(self._items()[index])
        return self._modules[self._key(index)]

    def insert(self, index: int, module: Module) -> None:
        """Put a module before a position; later ones move up by one name."""
        members = self._items()
        members.insert(index, module)
        self._replace_all(members)


class _ConvStep:
    """A convolution of a Sequential with the batch norm and ReLU that follow it, and the next
    convolution where it comes right behind them."""

    __slots__ = ("bn", "conv", "into", "relu")

    def __init__(self, conv: Module, bn: Module | None, relu: Module | None) -> None:
        self.conv, self.bn, self.relu, self.into = conv, bn, relu, None

    def __call__(self, x: Any) -> Any:
        return conv_bn(x, self.conv, self.bn, None, self.relu, self.into)


class Sequential(_Listed):
    """Modules called one after the other.

    A Conv2d followed by a BatchNorm2d, a ReLU, or both, runs fused (``fused.conv_bn``): fewer
    passes over memory, and the batch norm folded into the weights in evaluation without gradients.
    A hook on any of them is served by the unfused path.

    Args:
        modules: modules, or one mapping of names to modules.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for position, module in enumerate(modules):
                self.add_module(str(position), cast(Module, module))

    def add_module(self, name: str, module: Module | None) -> None:
        super().add_module(name, module)
        self.__dict__.pop("_plan", None)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self.__dict__.pop("_plan", None)

    def __delitem__(self, index: int) -> None:
        members = self._items()
        self._key(index)
        del members[index]
        self._replace_all(members)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))
        return self._modules[self._key(index)]

    def forward(self, x: Any) -> Any:
        steps = self.__dict__.get("_plan")
        if steps is None:
            steps = self.__dict__["_plan"] = _plan(self._items())
        for step in steps:
            x = step(x)
        return x


def _plan(modules: list[Module]) -> list[Any]:
    """Group convolutions with the batch norm and ReLU right behind them."""
    steps: list[Any] = []
    position = 0
    while position < len(modules):
        module = modules[position]
        position += 1
        if type(module) is Conv2d:
            bn = relu = None
            if position < len(modules) and type(modules[position]) is BatchNorm2d:
                bn = modules[position]
                position += 1
            if position < len(modules) and type(modules[position]) is ReLU:
                relu = modules[position]
                position += 1
            module = _ConvStep(module, bn, relu)
            if steps and type(steps[-1]) is _ConvStep:
                steps[-1].into = module.conv
        steps.append(module)
    return steps
