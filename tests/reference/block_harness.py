"""Runs an attention block of attnnet beside its twin, forward and backward."""

from __future__ import annotations

import numpy as np

from attnnet import nn

from . import blocks, golden
from .compare import assert_close
from .harness import make


def build(name, channels, height, width, state, training, **options):
    """The block with the state loaded."""
    size = {"height": height, "width": width} if name in ("AA", "NAB") else {}
    block = getattr(nn, name)(channels, **size, **options)
    result = block.load_state_dict(state)
    assert not result.missing_keys and not result.unexpected_keys
    return block.train(training)


def lengths_of(name, shape):
    """Reduction lengths (of y, of gradients): the longest chain of sums on the way to each."""
    n, c, h, w = shape
    forward = c * (49 if name == "NAB" else 9) + h * w
    return forward, forward + n * h * w


def check(name, shape, x, state, dy, training, layout, method="__call__", **options):
    """One forward and backward of a block against its twin.

    Args:
        method: which way through the block: "__call__", "reference", or "then_relu", behind which
            the twin gets a ReLU as well.
    """
    block = build(name, *shape[1:], state, training, **options)
    leaf = make(x, layout, requires_grad=True)
    expected, backward, after = blocks.twin(name, x, state, training, **options)
    forward, back = lengths_of(name, shape)
    then_relu = method == "then_relu"
    y = block.then_relu(leaf, nn.ReLU()) if then_relu else getattr(block, method)(leaf)
    assert_close(y, np.maximum(expected, 0.0) if then_relu else expected, forward, "y")
    y.backward(make(dy, layout))
    dx, grads = backward(np.where(expected > 0, dy, 0.0) if then_relu else np.float64(dy))
    assert_close(leaf.grad, dx, back, "dx")
    parameters = dict(block.named_parameters())
    assert set(parameters) == set(grads)
    for key, value in grads.items():
        assert_close(parameters[key].grad, value, back, key, scale_of(key, grads, dy, shape))
    buffers = block.state_dict()
    for key, value in after.items():
        assert_close(buffers[key], value, forward, key)
    for key in buffers:
        if key.endswith("num_batches_tracked"):
            assert buffers[key] == state[key] + training, key
    return block


def scale_of(key, grads, dy, shape):
    """What errors are measured against where the terms of a gradient may cancel.

    A bias in front of a batch norm has none at all: there it is its weight's gradient. The two
    single numbers of a batch norm are sums of as many terms, of about 0.1, as dy has elements; and
    where an image has one row, AA's row terms only shift all logits alike (of a single pixel, all
    terms do).
    """
    if golden.is_zero_gradient(key):
        return float(np.abs(grads[key.replace("bias", "weight")]).max())
    for pair in (("bn.weight", "bn.bias"), ("rel_encoding_h", "rel_encoding_w")):
        if key.endswith(pair):
            largest = max(float(np.abs(grads[k]).max()) for k in grads if k.endswith(pair))
            terms = 0.1 * np.sqrt(np.size(dy)) if pair[0] == "bn.weight" else 0.0
            terms = 1.0 if "rel" in key and shape[2:] == (1, 1) else terms
            return max(largest, terms)
    return 0.0
