"""Random problems with batch norms: alone, and behind convolutions as one operation.

The second is what networks run: in training with the batch norm's addition and ReLU, with the
normalised activation between two convolutions left out (``attnnet/nn/fused.py``), and in inference
folded into packed weights.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from reference import ops
from reference.compare import assert_close
from reference.harness import draw as values

import attnnet
from attnnet import _core
from attnnet import functional as F

from .operations import both, convolution_rounding, convolutions, image_shapes
from .problem import CHANNELS, SEEDS, Problem


class Statistics:
    """Running statistics, and what becomes of them."""

    def __init__(self, seed: int, channels: int, momentum: float = 0.1) -> None:
        rng = np.random.default_rng(seed)
        self.mean, self.var = values(rng, channels), values(rng, channels, low=0.3, high=3)
        self.momentum = momentum

    def tensors(self) -> list[attnnet.Tensor]:
        """New ones for each run; kept, so that ``check`` can look at them."""
        self.kept = [attnnet.Tensor(self.mean), attnnet.Tensor(self.var)]
        return self.kept

    def check(self, x, training: bool) -> None:
        """Against those after a pass over ``x``, (N, C, ...) in float64."""
        mean, var = self.mean, self.var
        if training:
            mean, var = ops.batch_norm_running(x, mean, var, self.momentum)
        count = x.size // x.shape[1]
        assert_close(self.kept[0], mean, count, "running mean", 1.0)
        assert_close(self.kept[1], var, count, "running variance")


def steepest(x, training: bool, eps: float) -> float:
    """The size of the terms of dx, which cancel: 1 / sqrt(var), large where the values of a channel
    are few and happen to lie near each other."""
    if not training:
        return 1.0
    var = np.asarray(x, np.float64).var(axis=(0, *range(2, x.ndim)))
    return max(1.0, float(1 / np.sqrt(var.min() + eps)))


def affine(draw, channels):
    """Weight and bias."""
    return [values(draw(SEEDS), channels, low=0.5, high=1.5), values(draw(SEEDS), channels)]


@st.composite
def batch_norm(draw):
    shape = draw(st.one_of(image_shapes(empty=False), st.tuples(st.integers(2, 9), CHANNELS)))
    training, relu, residual = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    count = int(np.prod(shape)) // shape[1]
    training = training and count > 1
    momentum, eps = draw(st.sampled_from([(0.1, 1e-5), (0.01, 0.1)]))
    stats = Statistics(draw(SEEDS), shape[1], momentum)
    arrays = [values(draw(SEEDS), *shape), *affine(draw, shape[1])]
    if residual:
        arrays.append(values(draw(SEEDS), *shape))

    def ours(x, weight, bias, residual=None):
        return F.batch_norm(x, *stats.tensors(), weight, bias, training, momentum, eps,
                            residual=residual, relu=relu)  # fmt: skip

    def twin(x, weight, bias, residual=None):
        return ops.batch_norm(x, stats.mean, stats.var, weight, bias, training, eps,
                              residual=residual, relu=relu)  # fmt: skip

    return Problem(
        ours, twin, arrays, length=count, scale=1.0,
        scales=[steepest(arrays[0], training, eps), np.sqrt(count), np.sqrt(count), 1.0][
            : len(arrays)],
        after=lambda: stats.check(arrays[0].astype(np.float64), training),
        note=f"training {training}, relu {relu}, momentum {momentum}, eps {eps}",
    )  # fmt: skip


def chain(first, second):
    """Twin of the second after the first: y, and the gradients of (x, first's, second's others)."""
    y, back_first = first
    z, back_second = second(y)

    def backward(dz):
        dy, *others = back_second(dz)
        return (*back_first(dy), *others)

    return z, backward


@st.composite
def convolution_norm(draw):
    """relu(batch_norm(conv2d(x)) + residual) as one operation, in training or evaluation."""
    x, w, stride, padding, groups = draw(convolutions(empty=False))
    training, relu, residual = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    y = ops.conv2d(np.zeros(x), np.zeros(w), None, stride, padding, groups)[0].shape
    count = y[0] * y[2] * y[3]
    training = training and count > 1
    stats = Statistics(draw(SEEDS), w[0])
    weight = values(draw(SEEDS), *w) / np.sqrt(np.prod(w[1:]))
    arrays = [values(draw(SEEDS), *x), weight, *affine(draw, w[0])]
    if residual:
        arrays.append(values(draw(SEEDS), *y))

    def ours(x, weight, gain, shift, residual=None):
        return _core.conv2d_batch_norm(
            x, weight, None, None, both(stride), both(padding), groups, gain, shift,
            *stats.tensors(), residual, training, 0.1, relu, 1e-5, False)[0]  # fmt: skip

    def twin(x, weight, gain, shift, residual=None):
        y, back = ops.conv2d(x, weight, None, stride, padding, groups)
        convolved[:] = [y]
        return chain(
            (y, lambda dy: back(dy)[:2]),
            lambda y: ops.batch_norm(y, stats.mean, stats.var, gain, shift, training,
                                     residual=residual, relu=relu))  # fmt: skip

    convolved = []
    steep = steepest(ops.conv2d(*arrays[:2], None, stride, padding, groups)[0], training, 1e-5)
    length, lengths, scales = convolution_rounding(x, w, y, groups)
    return Problem(
        ours, twin, arrays, length=length + count, scale=1.0,
        lengths=[lengths[0] + count, *[length + count] * (len(arrays) - 1)],
        scales=[steep, steep * scales[1], scales[1], scales[1], 1.0][: len(arrays)],
        after=lambda: stats.check(convolved[0], training),
        note=f"stride {stride}, padding {padding}, groups {groups}, training {training}, "
             f"relu {relu}",
    )  # fmt: skip


@st.composite
def deferred(draw):
    """conv2d(relu(batch_norm(conv2d(x)))) whose inner result the second convolution makes itself,
    with a batch norm of its own."""
    x, w, stride, padding, groups = draw(convolutions(empty=False))
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (1, 1), (2, 5)]))
    out, second = draw(CHANNELS), draw(st.sampled_from([1, 2]))
    y = ops.conv2d(np.zeros(x), np.zeros(w), None, stride, padding, groups)[0].shape
    reach = (kernel[0] // 2, kernel[1] // 2)
    count = y[0] * y[2] * y[3]
    if count < 2:
        x = (x[0] + 1, *x[1:])
        y, count = (y[0] + 1, *y[1:]), (y[0] + 1) * y[2] * y[3]
    v = (out, w[0], *kernel)
    stats = [Statistics(draw(SEEDS), k) for k in (w[0], out)]
    arrays = [values(draw(SEEDS), *x), values(draw(SEEDS), *w) / np.sqrt(np.prod(w[1:])),
              *affine(draw, w[0]), values(draw(SEEDS), *v) / np.sqrt(np.prod(v[1:])),
              *affine(draw, out)]  # fmt: skip

    def ours(x, w, gain, shift, v, gain2, shift2):
        inner, constants = _core.conv2d_batch_norm(
            x, w, None, None, both(stride), both(padding), groups, gain, shift,
            *stats[0].tensors(), None, True, 0.1, True, 1e-5, True)  # fmt: skip
        return _core.conv2d_batch_norm(
            inner, v, None, constants, both(second), reach, 1, gain2, shift2,
            *stats[1].tensors(), None, False, 0.1, False, 1e-5, False)[0]  # fmt: skip

    def twin(x, w, gain, shift, v, gain2, shift2):
        y, back = ops.conv2d(x, w, None, stride, padding, groups)
        inner, back_norm = ops.batch_norm(y, None, None, gain, shift, True, relu=True)
        z, back_second = ops.conv2d(inner, v, None, second, reach)
        out, back_last = ops.batch_norm(z, stats[1].mean, stats[1].var, gain2, shift2)

        def backward(dout):
            dz, *last = back_last(dout)
            dinner, dv, _ = back_second(dz)
            dy, *norm = back_norm(dinner)
            return (*back(dy)[:2], *norm, dv, *last)

        return out, backward

    length = int(np.prod(w[1:])) + int(np.prod(v[1:])) + count
    root = float(np.sqrt(count))
    steep = steepest(ops.conv2d(*arrays[:2], None, stride, padding, groups)[0], True, 1e-5)
    return Problem(
        ours, twin, arrays, length=length, scale=1.0, lengths=[length] * 7,
        scales=[steep, steep * root, *[root] * 5],
        note=f"stride {stride}, padding {padding}, groups {groups}, then stride {second}",
    )  # fmt: skip


PROBLEMS = {
    "batch_norm": batch_norm(),
    "convolution_norm": convolution_norm(),
    "deferred": deferred(),
}


@st.composite
def inference(draw):
    """A convolution of kept weights with addition and ReLU: (arrays, call, twin), no gradients."""
    x, w, stride, padding, groups = draw(convolutions())
    y = ops.conv2d(np.zeros(x), np.zeros(w), None, stride, padding, groups)[0].shape
    arrays = [values(draw(SEEDS), *x), values(draw(SEEDS), *w) / np.sqrt(np.prod(w[1:])),
              values(draw(SEEDS), w[0])]  # fmt: skip
    relu = draw(st.booleans())
    residual = values(draw(SEEDS), *y) if draw(st.booleans()) else None

    def call():
        tensors = [attnnet.Tensor(a) for a in arrays]
        added = None if residual is None else attnnet.Tensor(residual)
        with attnnet.no_grad():
            return _core.conv2d_fused(tensors[0], _core.keep_weights(tensors[1]), tensors[2],
                                      added, relu, both(stride), both(padding), groups)

    z, _ = ops.conv2d(*arrays, stride, padding, groups)
    z = z if residual is None else z + residual
    note = f"{x} {w} stride {stride}, padding {padding}, groups {groups}, relu {relu}"
    return call, (np.maximum(z, 0) if relu else z), int(np.prod(w[1:])), note
