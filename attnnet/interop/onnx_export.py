"""Writes a model as an ONNX file, for other programs to run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from ..extras import need
from ..models.classifier import Classifier
from ..nn.layers import Linear
from ..nn.modes import evaluating
from ..nn.module import Module
from ..tensor import Tensor
from ..training.files import write_atomically
from . import onnx_modules  # noqa: F401  (registers the nodes of the modules)
from .onnx_graph import Graph

_LEAST_OPSET = 13


def export_onnx(
    model: Module,
    path: str | os.PathLike[str],
    input_shape: tuple[int, int, int] | None = None,
    opset: int = 17,
    dynamic_batch: bool = True,
) -> None:
    """Writes what a model computes in evaluation mode as an ONNX file, checked by ONNX's checker.

    The input is called ``images``, the output ``logits``; for a module that is no classifier
    ``x`` and ``y``. Weights keep the names of the state dict. Class names and normalisation, where
    the model knows them, go into the file's metadata as JSON. Hooks are left out.

    Args:
        model: a network, a block, or any module made of layers that are known; for a module of
            your own see ``attnnet.interop.onnx_nodes``.
        path: the file to write.
        input_shape: (C, H, W) of one image; default: what a network was made for.
        opset: version of ONNX's operators, at least 13, default 17.
        dynamic_batch: whether the file takes batches of any size (default) or of one image.

    Raises:
        ModuleNotFoundError: the package onnx is not installed (the extra ``onnx``).
        TypeError: nothing says how to write one of the modules; the message names it.
        ValueError: no input_shape for a module that is no network, or an opset out of range.
        OSError: the file cannot be written.
    """
    onnx = need("onnx")
    need("onnx.numpy_helper")
    newest = onnx.defs.onnx_opset_version()
    if not _LEAST_OPSET <= opset <= newest:
        raise ValueError(f"opset must be {_LEAST_OPSET} to {newest} (the newest here), got {opset}")
    is_network = isinstance(model, Classifier)
    if input_shape is None:
        if not is_network:
            raise ValueError(
                f"a {type(model).__name__} takes images of many sizes: give input_shape=(C, H, W)"
            )
        input_shape = (model.in_channels, *model.image_size)
    x = Tensor(np.zeros((1, *input_shape), np.float32))
    with evaluating(model), _inputs_of_linears(model) as dimensions:
        y = model(x)  # also says what is wrong with the shape, if anything is
    names = ("images", "logits") if is_network else ("x", "y")
    graph = Graph(opset, dimensions)
    last = graph.describe(model, names[0])
    graph.nodes.append(onnx.helper.make_node("Identity", [last], [names[1]], name=names[1]))
    batch = "N" if dynamic_batch else 1
    shapes = ([batch, *input_shape], [batch, *y.shape[1:]])
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(names, shapes, strict=True)
    ]
    constants = [onnx.numpy_helper.from_array(v, k) for k, v in graph.constants.items()]
    made = onnx.helper.make_graph(
        graph.nodes, type(model).__name__, values[:1], values[1:], constants
    )
    proto = _model(onnx, made, opset, _metadata(model) if is_network else {})
    write_atomically(os.fspath(path), proto.SerializeToString())


@contextmanager
def _inputs_of_linears(model: Module) -> Iterator[dict[Module, int]]:
    """Gets for each linear layer that is called inside how many dimensions its input has; the
    most, where it is called more than once."""
    found: dict[Module, int] = {}

    def look(linear: Module, _: Any, y: Any) -> None:
        if isinstance(y, Tensor):  # the output has as many
            found[linear] = max(found.get(linear, 0), y.ndim)

    with ExitStack() as stack:
        for part in model.modules():
            if isinstance(part, Linear):
                stack.enter_context(part.register_forward_hook(look))
        yield found


def _model(onnx: ModuleType, graph: Any, opset: int, metadata: dict[str, str]) -> Any:
    """The whole file, checked."""
    from .. import __version__

    imports = [onnx.helper.make_opsetid("", opset)]
    proto = onnx.helper.make_model(
        graph,
        opset_imports=imports,
        ir_version=onnx.helper.find_min_ir_version_for(imports),
        producer_name="attnnet",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _metadata(model: Classifier) -> dict[str, str]:
    facts = {"arch": model.arch, "block": model.block_name}
    if model.class_names is not None:
        facts["class_names"] = json.dumps(list(map(str, model.class_names)))
    if model.normalization is not None:  # NumPy's numbers, too
        mean, std = (list(map(float, numbers)) for numbers in model.normalization)
        facts["normalization"] = json.dumps({"mean": mean, "std": std})
    return facts
