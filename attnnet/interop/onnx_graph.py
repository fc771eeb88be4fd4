"""An ONNX graph while it is being built, and the registry of what each module adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn.module import Module
from ..tensor import Tensor

if TYPE_CHECKING:
    import onnx

Describer = Callable[["Graph", Any, str], str]

_describers: dict[type[Module], Describer] = {}
# A subclass that changes one of these computes something else than its base.
_COMPUTING = ("forward", "fused", "reference")


def onnx_nodes(*kinds: type[Module]) -> Callable[[Describer], Describer]:
    """Say which ONNX nodes a module is, so that ``export_onnx`` can write it.

    Use it as a decorator on a function ``(graph, module, x)``, which is called with the name of
    the input and returns the name of the output::

        @attnnet.interop.onnx_nodes(Gate)
        def gate(graph, module, x):
            pooled = graph.node("GlobalAveragePool", x)
            return graph.node("Mul", x, graph.node("Sigmoid", graph.module(module, "conv", pooled)))

    Args:
        kinds: classes; subclasses that compute the same way are covered too.
    """

    def register(describe: Describer) -> Describer:
        _describers.update(dict.fromkeys(kinds, describe))
        return describe

    return register


def _describer(module: Module) -> Describer | None:
    kind = type(module)
    for base in kind.__mro__:
        if base in _describers:
            same = all(getattr(kind, n, None) is getattr(base, n, None) for n in _COMPUTING)
            return _describers[base] if same else None
    return None


class Graph:
    """Nodes and constants, named after the modules that they come from.

    Attributes:
        opset: the version of ONNX's operators that the nodes are of.
        dimensions: of the inputs of linear layers, how many, as a forward has shown (default:
            nothing is known).
    """

    def __init__(self, opset: int, dimensions: Mapping[Module, int] | None = None) -> None:
        self.opset = opset
        self.dimensions = dimensions or {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._path: list[str] = []

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node.

        Args:
            op: ONNX's name of the operator. inputs: names. outputs: how many it has, default 1.
            attributes: of the operator.

        Returns:
            The name of its output; a tuple of names where there are several.
        """
        from onnx import helper

        name = ".".join([*self._path, f"{op}_{len(self.nodes)}"])
        results = (name,) if outputs == 1 else tuple(f"{name}.{i}" for i in range(outputs))
        self.nodes.append(helper.make_node(op, inputs, results, name=name, **attributes))
        return name if outputs == 1 else results

    def weight(self, module: Module, name: str) -> str:
        """The name of a parameter or buffer of the module that is being described."""
        full = ".".join([*self._path, name])
        value = getattr(module, name)
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        self.constants[full] = np.array(array, order="C")
        return full

    def constant(self, name: str, values: Any) -> str:
        """The name of a constant of the module that is being described; floats are float32."""
        array = np.asarray(values)
        full = ".".join([*self._path, name])
        self.constants[full] = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        return full

    def ints(self, *values: int) -> str:
        """The name of a constant vector of whole numbers, shared by all that need the same."""
        name = "ints_" + "_".join(map(str, values))
        self.constants[name] = np.array(values, np.int64)
        return name

    def reduce(self, op: str, x: str, *axes: int) -> str:
        """A reduction over axes, which stay with length 1."""
        if self.opset >= 18 or op == "ReduceSum":
            return self.node(op, x, self.ints(*axes), keepdims=1)
        return self.node(op, x, axes=axes, keepdims=1)

    def module(self, parent: Module, name: str, x: str) -> str:
        """Add what a child module computes.

        Args:
            parent: the module that is being described. name: its child's. x: the input's name.

        Raises:
            TypeError: where nobody has said which nodes the child is.
        """
        self._path.append(name)
        try:
            return self.describe(parent._modules[name], x)
        finally:
            self._path.pop()

    def describe(self, module: Module, x: str) -> str:
        """Add what a module computes; see ``module``."""
        describe = _describer(module)
        if describe is None:
            kind = type(module).__name__
            raise TypeError(
                f"{'.'.join(self._path) or 'the module'} is a {kind}, and nothing says which ONNX "
                f"nodes that is. Write a function (graph, module, x) that returns the output's "
                f"name and decorate it with @attnnet.interop.onnx_nodes({kind}); or make the block "
                "a Sequential of layers."
            )
        return describe(self, module, x)
