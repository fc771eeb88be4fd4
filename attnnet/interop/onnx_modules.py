"""Which ONNX nodes each layer, attention block and network is, in evaluation mode."""

from __future__ import annotations

import numpy as np

from ..models.resnet import BasicBlock, Bottleneck, ResNet
from ..models.vgg import VGG
from ..nn import attention as blocks
from ..nn import layers, pooling
from ..nn.attention_augmented import AA
from ..nn.containers import Sequential
from ..nn.module import Module
from .onnx_graph import Graph, onnx_nodes

# Layers


@onnx_nodes(layers.Conv2d)
def _conv(graph: Graph, conv: layers.Conv2d, x: str) -> str:
    inputs = [x, graph.weight(conv, "weight")]
    if conv.bias is not None:
        inputs.append(graph.weight(conv, "bias"))
    return graph.node(
        "Conv", *inputs, kernel_shape=conv.kernel_size, strides=conv.stride,
        pads=conv.padding * 2, group=conv.groups,
    )  # fmt: skip


@onnx_nodes(layers.BatchNorm2d)
def _batch_norm(graph: Graph, bn: layers.BatchNorm2d, x: str) -> str:
    if bn.running_mean is None:
        raise TypeError("a BatchNorm2d without running statistics cannot be exported to ONNX")
    if bn.affine:
        scale, shift = graph.weight(bn, "weight"), graph.weight(bn, "bias")
    else:
        scale = graph.constant("weight", np.ones(bn.num_features))
        shift = graph.constant("bias", np.zeros(bn.num_features))
    mean, variance = graph.weight(bn, "running_mean"), graph.weight(bn, "running_var")
    return graph.node("BatchNormalization", x, scale, shift, mean, variance, epsilon=bn.eps)


@onnx_nodes(layers.Linear)
def _linear(graph: Graph, linear: layers.Linear, x: str) -> str:
    weight = graph.weight(linear, "weight")
    bias = [] if linear.bias is None else [graph.weight(linear, "bias")]
    if graph.dimensions.get(linear, 2) == 2:
        return graph.node("Gemm", x, weight, *bias, transB=1)
    y = graph.node("MatMul", x, graph.node("Transpose", weight, perm=[1, 0]))
    return graph.node("Add", y, *bias) if bias else y


@onnx_nodes(layers.ReLU)
def _relu(graph: Graph, module: Module, x: str) -> str:
    return graph.node("Relu", x)


@onnx_nodes(layers.Sigmoid)
def _sigmoid(graph: Graph, module: Module, x: str) -> str:
    return graph.node("Sigmoid", x)


@onnx_nodes(layers.Tanh)
def _tanh(graph: Graph, module: Module, x: str) -> str:
    return graph.node("Tanh", x)


@onnx_nodes(layers.Softmax)
def _softmax(graph: Graph, softmax: layers.Softmax, x: str) -> str:
    return graph.node("Softmax", x, axis=softmax.dim)


@onnx_nodes(layers.Dropout, layers.Identity)
def _nothing(graph: Graph, module: Module, x: str) -> str:
    return x


@onnx_nodes(layers.Flatten)
def _flatten(graph: Graph, flatten: layers.Flatten, x: str) -> str:
    if flatten.start_dim < 1:
        raise TypeError(f"Flatten(start_dim={flatten.start_dim}) joins images: no ONNX for that")
    return graph.node("Reshape", x, graph.ints(*[0] * flatten.start_dim, -1))


@onnx_nodes(pooling.MaxPool2d)
def _max_pool(graph: Graph, pool: pooling.MaxPool2d, x: str) -> str:
    return graph.node(
        "MaxPool", x, kernel_shape=pool.kernel_size, strides=pool.stride, pads=pool.padding * 2
    )


@onnx_nodes(pooling.AvgPool2d)
def _avg_pool(graph: Graph, pool: pooling.AvgPool2d, x: str) -> str:
    return graph.node(
        "AveragePool", x, kernel_shape=pool.kernel_size, strides=pool.stride,
        pads=pool.padding * 2, count_include_pad=1,
    )  # fmt: skip


@onnx_nodes(pooling.AdaptiveAvgPool2d, pooling.AdaptiveMaxPool2d)
def _adaptive_pool(graph: Graph, pool: Module, x: str) -> str:
    if pool.output_size != (1, 1):
        raise TypeError(f"ONNX has no adaptive pool to {pool.output_size}; only to (1, 1)")
    mean = isinstance(pool, pooling.AdaptiveAvgPool2d)
    return graph.node("GlobalAveragePool" if mean else "GlobalMaxPool", x)


# Networks


@onnx_nodes(Sequential, blocks._Chain)
def _one_after_the_other(graph: Graph, module: Module, x: str) -> str:
    for name, child in module._modules.items():
        if child is not None:
            x = graph.module(module, name, x)
    return x


def _in_turn(graph: Graph, module: Module, x: str, *names: str) -> str:
    """Children that ``forward`` calls one after the other; it may have others that it never does,
    and one that was set later than the rest stands behind them."""
    for name in names:
        x = graph.module(module, name, x)
    return x


@onnx_nodes(ResNet)
def _resnet(graph: Graph, model: ResNet, x: str) -> str:
    x = _in_turn(graph, model, x, "conv1", "bn1", "relu1", "layer1", "layer2", "layer3", "layer4")
    return _in_turn(graph, model, x, "avgpool", "flatten", "linear")


@onnx_nodes(VGG)
def _vgg(graph: Graph, model: VGG, x: str) -> str:
    return _in_turn(graph, model, x, "features", "flatten", "classifier")


@onnx_nodes(BasicBlock)
def _basic(graph: Graph, block: BasicBlock, x: str) -> str:
    out = _in_turn(graph, block, x, "conv1", "bn1", "relu1", "conv2", "bn2")
    return _leave(graph, block, out, x, "relu2")


@onnx_nodes(Bottleneck)
def _bottleneck(graph: Graph, block: Bottleneck, x: str) -> str:
    out = _in_turn(graph, block, x, "conv1", "bn1", "relu1", "conv2", "bn2", "relu2")
    return _leave(graph, block, _in_turn(graph, block, out, "conv3", "bn3"), x, "relu3")


def _leave(graph: Graph, block: Module, out: str, x: str, relu: str) -> str:
    """relu(attention(out + shortcut(x)))."""
    out = graph.node("Add", out, graph.module(block, "shortcut", x))
    if block.image_module is not None:
        out = graph.module(block, "image_module", out)
    return graph.module(block, relu, out)


# Attention blocks


@onnx_nodes(blocks._SpatialConv)
def _spatial_conv(graph: Graph, module: Module, x: str) -> str:
    return _in_turn(graph, module, x, "conv", "bn")


def _per_channel(graph: Graph, gate: str) -> str:
    """(N, C) -> (N, C, 1, 1)."""
    return graph.node("Unsqueeze", gate, graph.ints(2, 3))


def _excitation(graph: Graph, block: Module, x: str) -> str:
    """SE's gate, (N, C, 1, 1)."""
    pooled = graph.node("Reshape", graph.node("GlobalAveragePool", x), graph.ints(0, -1))
    return _per_channel(graph, graph.module(block, "fc", pooled))


@onnx_nodes(blocks.SE)
def _se(graph: Graph, block: blocks.SE, x: str) -> str:
    return graph.node("Add", x, graph.node("Mul", x, _excitation(graph, block, x)))


@onnx_nodes(blocks.SEC)
def _sec(graph: Graph, block: blocks.SEC, x: str) -> str:
    hidden = graph.module(block, "conv1", graph.node("GlobalAveragePool", x))
    gate = graph.module(block, "conv2", graph.node("Relu", hidden))
    return graph.node("Mul", x, graph.node("Sigmoid", gate))


@onnx_nodes(blocks.CA)
def _ca(graph: Graph, block: blocks.CA, x: str) -> str:
    total = ""
    for kind in block.pool_types:
        if kind in ("avg", "max"):
            pooled = graph.node("GlobalAveragePool" if kind == "avg" else "GlobalMaxPool", x)
        else:
            pooled = graph.reduce("ReduceL2" if kind == "lp" else "ReduceLogSumExp", x, 2, 3)
        part = graph.module(block, "mlp", pooled)
        total = graph.node("Add", total, part) if total else part
    return graph.node("Mul", x, _per_channel(graph, graph.node("Sigmoid", total)))


@onnx_nodes(blocks.SA)
def _sa(graph: Graph, block: blocks.SA, x: str) -> str:
    maps = graph.reduce("ReduceMax", x, 1), graph.reduce("ReduceMean", x, 1)
    gate = graph.module(block, "spatial", graph.node("Concat", *maps, axis=1))
    return graph.node("Mul", x, graph.node("Sigmoid", gate))


@onnx_nodes(blocks.NEW)
def _new(graph: Graph, block: blocks.NEW, x: str) -> str:
    a = graph.module(block, "sg", x)
    return graph.node("Add", a, graph.node("Mul", a, _excitation(graph, block, x)))


@onnx_nodes(blocks.NAB)
def _nab(graph: Graph, block: blocks.NAB, x: str) -> str:
    spatial, channel = graph.module(block, "sam", x), graph.module(block, "cam", x)
    return graph.node("Mul", graph.node("Mul", x, spatial), channel)


@onnx_nodes(AA)
def _aa(graph: Graph, block: AA, x: str) -> str:
    heads, height, width = block.heads, block.height, block.width
    places, paper = height * width, block.form == "paper"

    def split_heads(part: str) -> str:  # (N, d, H, W) -> (N, heads, HW, d/heads)
        if not paper:
            return graph.node("Reshape", part, graph.ints(0, heads, places, -1))
        part = graph.node("Reshape", part, graph.ints(0, heads, -1, places))
        return graph.node("Transpose", part, perm=[0, 1, 3, 2])

    sizes = graph.ints(block.dk, block.dk, block.dv)
    kqv = graph.module(block, "kqv_conv", x)
    k, q, v = map(split_heads, graph.node("Split", kqv, sizes, outputs=3, axis=1))
    q = graph.node("Mul", q, graph.constant("scale", (block.dk / heads) ** -0.5))
    logits = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 1, 3, 2]))
    terms = _position_terms(graph, block, q)
    if not paper:
        terms = graph.reduce("ReduceSum", terms, 1)
    weights = graph.node("Softmax", graph.node("Add", logits, terms), axis=-1)
    out = graph.node("MatMul", weights, v)  # (N, heads, HW, dv/heads)
    if paper:
        out = graph.node("Transpose", out, perm=[0, 1, 3, 2])
    out = graph.node("Reshape", out, graph.ints(0, block.dv, height, width))
    parts = graph.module(block, "conv_out", x), graph.module(block, "attn_out", out)
    return graph.node("Concat", *parts, axis=1)


def _position_terms(graph: Graph, block: AA, q: str) -> str:
    """Relative terms of scaled queries (N, heads, HW, d), for all keys: (N, heads, HW, HW)."""
    heads, height, width = block.heads, block.height, block.width
    q = graph.node("Reshape", q, graph.ints(0, heads, height, width, -1))  # (N, heads, y, x, d)
    # Rows: (x, d) times (d, Y) for each y. Columns: (y, d) times (d, X) for each x.
    rows = graph.node("MatMul", q, _table(graph, block, "h", height))
    q = graph.node("Transpose", q, perm=[0, 1, 3, 2, 4])
    columns = graph.node("MatMul", q, _table(graph, block, "w", width))
    columns = graph.node("Transpose", columns, perm=[0, 1, 3, 2, 4])
    rows = graph.node("Unsqueeze", rows, graph.ints(5))  # (N, heads, y, x, Y, 1)
    columns = graph.node("Unsqueeze", columns, graph.ints(4))  # (N, heads, y, x, 1, X)
    terms = graph.node("Add", rows, columns)
    return graph.node("Reshape", terms, graph.ints(0, heads, height * width, height * width))


def _table(graph: Graph, block: AA, axis: str, length: int) -> str:
    """(L, d, L): [query, :, key] is row key - query + L - 1 of the position table."""
    table = getattr(block, f"rel_encoding_{axis}").detach().numpy()
    places = np.arange(length)
    rows = table[places[None, :] - places[:, None] + length - 1]  # (query, key, d)
    return graph.constant(f"rel_{axis}", rows.transpose(0, 2, 1))
