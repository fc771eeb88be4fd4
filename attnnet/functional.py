"""Operations on tensors, with PyTorch's names and arguments.

Each takes tensors (arrays and numbers are converted), returns new tensors, and is differentiable.
Shapes are written (N, C, H, W): images, channels, height, width. All raise ``ValueError`` for
shapes or options that do not fit and ``TypeError`` for arguments of a wrong kind, naming the
argument, what came and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from . import _core
from .autograd import is_relu_guided
from .functional_attention import attention_augmented as attention_augmented
from .functional_attention import relative_attention as relative_attention
from .functional_attention import relative_attention_rows as relative_attention_rows
from .functional_blocks import block_gates as block_gates
from .functional_blocks import ca as ca
from .functional_blocks import nab as nab
from .functional_blocks import new_block as new_block
from .functional_blocks import sa as sa
from .functional_blocks import se as se
from .functional_blocks import sec as sec
from .operands import Integers, Operand, Pair, as_integers, as_pair, as_tensor
from .random import next_draw

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .tensor import Tensor

# Single elements


def relu(x: Operand) -> Tensor:
    """max(x, 0) of each element. NaN stays NaN; the gradient at 0 is 0.

    Args:
        x: of any shape, which is the result's.

    Raises:
        TypeError: x holds no real numbers.
    """
    return _rectified(as_tensor(x))


def _rectified(x: _core.Tensor) -> Tensor:
    y = _core.unary("relu", x)
    if is_relu_guided() and y.requires_grad:
        y.register_hook(lambda grad: clamp(grad, min=0))
    return y


def sigmoid(x: Operand) -> Tensor:
    """1 / (1 + exp(-x)), without overflow.

    Args, Raises: as for :func:`relu`.
    """
    return _core.unary("sigmoid", as_tensor(x))


def tanh(x: Operand) -> Tensor:
    """Hyperbolic tangent.

    Args, Raises: as for :func:`relu`.
    """
    return _core.unary("tanh", as_tensor(x))


def exp(x: Operand) -> Tensor:
    """e to the power of x; inf above 88.7.

    Args, Raises: as for :func:`relu`.
    """
    return _core.unary("exp", as_tensor(x))


def log(x: Operand) -> Tensor:
    """Natural logarithm; -inf at 0, NaN below.

    Args, Raises: as for :func:`relu`.
    """
    return _core.unary("log", as_tensor(x))


def sqrt(x: Operand) -> Tensor:
    """Square root; NaN below 0.

    Args, Raises: as for :func:`relu`.
    """
    return _core.unary("sqrt", as_tensor(x))


def abs(x: Operand) -> Tensor:
    """Absolute value; the gradient at 0 is 0.

    Args, Raises: as for :func:`relu`.
    """
    return _core.unary("abs", as_tensor(x))


def clamp(x: Operand, min: float | None = None, max: float | None = None) -> Tensor:
    """x limited to [min, max]; the gradient is 1 inside and on the limits, 0 outside.

    Args:
        x: of any shape, which is the result's.
        min, max: numbers; None (default): no limit on that side. Above ``max`` even ``min`` is
            limited to it.

    Raises:
        ValueError: where neither limit is given.
        TypeError: a limit is no number, or x holds none.
    """
    if min is None and max is None:
        raise ValueError("clamp: min or max must be given")
    low = float("-inf") if min is None else min
    high = float("inf") if max is None else max
    return _core.clamp(as_tensor(x), low, high)


# Two operands, broadcast as in NumPy


def add(a: Operand, b: Operand) -> Tensor:
    """a + b.

    Args:
        a, b: of shapes that broadcast as NumPy's do; the result has the common shape.

    Raises:
        ValueError: for shapes that do not broadcast.
        TypeError: one holds no real numbers.
    """
    return _core.binary("add", as_tensor(a), as_tensor(b))


def sub(a: Operand, b: Operand) -> Tensor:
    """a - b.

    Args, Raises: as for :func:`add`.
    """
    return _core.binary("sub", as_tensor(a), as_tensor(b))


def mul(a: Operand, b: Operand) -> Tensor:
    """a * b.

    Args, Raises: as for :func:`add`.
    """
    return _core.binary("mul", as_tensor(a), as_tensor(b))


def div(a: Operand, b: Operand) -> Tensor:
    """a / b.

    Args, Raises: as for :func:`add`.
    """
    return _core.binary("div", as_tensor(a), as_tensor(b))


def pow(a: Operand, b: Operand) -> Tensor:
    """a to the power of b. The gradient to b where a = 0 and b >= 0 is 0.

    Args, Raises: as for :func:`add`.
    """
    return _core.binary("pow", as_tensor(a), as_tensor(b))


def matmul(a: Operand, b: Operand) -> Tensor:
    """Matrix product of the last two dimensions, (..., M, K) x (..., K, N) -> (..., M, N);
    leading dimensions broadcast. A vector counts as a row on the left, as a column on the right,
    and the result has no dimension for it.

    Raises:
        ValueError: for shapes that do not fit.
        TypeError: one holds no real numbers.
    """
    return _core.matmul(as_tensor(a), as_tensor(b))


def linear(x: Operand, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b.

    Args:
        x: (..., C). weight: (K, C). bias: (K) or None (default).

    Returns:
        (..., K).

    Raises:
        ValueError: for shapes that do not fit.
        TypeError: weight or bias is no Tensor.
    """
    return _core.linear(as_tensor(x), weight, bias)


# Reductions


def _reduce(kind: Literal["sum", "mean", "amax", "amin", "var"], x: Operand, dim: Integers | None,
            keepdim: bool, correction: int = 0) -> Tensor:
    x = as_tensor(x)
    dims = tuple(range(x.ndim)) if dim is None else as_integers(dim, kind, "dim")
    return _core.reduce(kind, x, dims, keepdim, correction)


def sum(x: Operand, dim: Integers | None = None, keepdim: bool = False) -> Tensor:
    """Sum over dimensions.

    Args:
        x: of any shape.
        dim: one, several in a tuple (negative ones count from the end), or None (default): all.
        keepdim: whether they stay, of size 1 (default False: they go).

    Raises:
        ValueError: a dimension is out of range, or there twice.
        TypeError: ``dim`` is of another kind, or x holds no real numbers.
    """
    return _reduce("sum", x, dim, keepdim)


def mean(x: Operand, dim: Integers | None = None, keepdim: bool = False) -> Tensor:
    """Mean over dimensions; NaN over zero elements.

    Args, Raises: as for :func:`sum`.
    """
    return _reduce("mean", x, dim, keepdim)


def amax(x: Operand, dim: Integers | None = None, keepdim: bool = False) -> Tensor:
    """Largest value over dimensions. Among equals the gradient goes to the first, in row-major
    order; NaN is larger than everything.

    Args: as for :func:`sum`.

    Raises:
        ValueError: over zero elements, and as for :func:`sum`.
    """
    return _reduce("amax", x, dim, keepdim)


def amin(x: Operand, dim: Integers | None = None, keepdim: bool = False) -> Tensor:
    """Smallest value over dimensions; everything else as for :func:`amax`, and NaN is smaller than
    everything.
    """
    return _reduce("amin", x, dim, keepdim)


def var(x: Operand, dim: Integers | None = None, correction: int = 1,
        keepdim: bool = False) -> Tensor:
    """Variance over dimensions: the squared distances from the mean, summed, over n - correction.

    Args:
        x, dim, keepdim: as for :func:`sum`.
        correction: default 1, the unbiased estimate; 0: the mean of the squared distances.

    Raises:
        ValueError: where n - correction is not positive, and as for :func:`sum`.
    """
    return _reduce("var", x, dim, keepdim, correction)


def softmax(x: Operand, dim: int) -> Tensor:
    """exp(x) over its sum along ``dim``, without overflow.

    Args:
        x: of any shape, which is the result's. dim: a dimension; negative: from the end.

    Raises:
        ValueError: ``dim`` is out of range. TypeError: it is no integer.
    """
    return _core.softmax(as_tensor(x), dim, False)


def log_softmax(x: Operand, dim: int) -> Tensor:
    """Logarithm of :func:`softmax`, without overflow.

    Args, Raises: as there.
    """
    return _core.softmax(as_tensor(x), dim, True)


def cross_entropy(logits: Operand, target: ArrayLike, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the batch of -log softmax(logits)[target].

    Args:
        logits: (N, K).
        target: integer array (N,), class indices 0..K-1.
        label_smoothing: share of the target given to all K classes evenly, 0 to 1 (Szegedy et al.
            2016); default 0.

    Returns:
        A tensor without dimensions, in nats.

    Raises:
        ValueError: for an empty batch, a target or a label_smoothing out of range, or shapes that
            do not fit.
        TypeError: the target holds no integers (a Tensor does not: it is float32).
    """
    return _core.cross_entropy(as_tensor(logits), target, label_smoothing)


# Images


def conv2d(x: Operand, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1,
           padding: Pair = 0, groups: int = 1) -> Tensor:
    """Two-dimensional convolution (cross-correlation, as everywhere in the field).

    Args:
        x: (N, C, H, W).
        weight: (K, C / groups, R, S).
        bias: (K) or None.
        stride: one step for both axes, or two (default 1).
        padding: zeros on both sides of both axes, or two numbers (default 0).
        groups: channels are split into this many independent convolutions (default 1).

    Returns:
        (N, K, P, Q) with P = (H + 2 padding - R) // stride + 1, Q likewise.

    Raises:
        ValueError: for shapes that do not fit, a kernel larger than the padded image, a stride
            below 1, a padding below 0, or groups that do not divide C and K.
        TypeError: weight or bias is no Tensor.
    """
    return _core.conv2d(as_tensor(x), weight, bias, as_pair(stride, "conv2d: stride"),
                        as_pair(padding, "conv2d: padding"), groups)


def batch_norm(x: Operand, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5, *, residual: Tensor | None = None,
               relu: bool = False) -> Tensor:
    """Batch normalisation (Ioffe and Szegedy 2015), with the addition and the ReLU that often
    follow it in the same pass: relu((x - mean) / sqrt(var + eps) * weight + bias + residual).

    Args:
        x: (N, C, H, W), or (N, C).
        running_mean, running_var: (C); used in evaluation, updated in place in training (the
            variance with n - 1). None in training: not kept.
        weight, bias: (C) or None.
        training: normalise with the batch's own (biased) statistics.
        momentum: share of the batch in the running statistics (default 0.1).
        eps: added to the variance (default 1e-5).
        residual: of x's shape, added before the ReLU, or None.
        relu: whether to apply it (default False).

    Returns:
        Of x's shape.

    Raises:
        ValueError: in training with fewer than two values a channel, in evaluation without running
            statistics, and for shapes that do not fit.
        TypeError: a weight, a bias or running statistics that are no Tensor.
    """
    if relu and is_relu_guided():
        return _rectified(batch_norm(x, running_mean, running_var, weight, bias, training,
                                     momentum, eps, residual=residual))
    return _core.batch_norm(as_tensor(x), weight, bias, running_mean, running_var, residual,
                            training, relu, momentum, eps)


def max_pool2d(x: Operand, kernel_size: Pair, stride: Pair | None = None,
               padding: Pair = 0) -> Tensor:
    """Largest value of each window. Among equals the gradient goes to the first.

    Args:
        x: (N, C, H, W).
        kernel_size: of the window, one number for both axes, or (rows, columns).
        stride: likewise; None (default): ``kernel_size``.
        padding: on both sides of both axes, at most half of kernel_size; never the largest value.

    Returns:
        (N, C, P, Q) with P = (H + 2 padding - kernel_size) // stride + 1, Q likewise.

    Raises:
        ValueError: for another number of dimensions, or a window, stride or padding out of range.
    """
    window = as_pair(kernel_size, "max_pool2d: kernel_size")
    return _core.max_pool2d(as_tensor(x), window,
                            window if stride is None else as_pair(stride, "max_pool2d: stride"),
                            as_pair(padding, "max_pool2d: padding"))


def avg_pool2d(x: Operand, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
               count_include_pad: bool = True) -> Tensor:
    """Mean of each window.

    Args:
        x, kernel_size, stride, padding: as for :func:`max_pool2d`; the padding is zeros.
        count_include_pad: whether a window that reaches into the padding is divided by all of its
            size (default), or by what lies on the image.

    Returns, Raises: as there.
    """
    window = as_pair(kernel_size, "avg_pool2d: kernel_size")
    return _core.avg_pool2d(as_tensor(x), window,
                            window if stride is None else as_pair(stride, "avg_pool2d: stride"),
                            as_pair(padding, "avg_pool2d: padding"), count_include_pad)


def adaptive_avg_pool2d(x: Operand, output_size: Pair) -> Tensor:
    """Mean over windows that divide the image into so many rows and columns. Window i of n begins
    at floor(i H / n) and ends before ceil((i + 1) H / n), so that neighbours may overlap.

    Args:
        x: (N, C, H, W). output_size: one number for both axes, or (rows, columns).

    Returns:
        (N, C, rows, columns).

    Raises:
        ValueError: for another number of dimensions, or an output_size below 1.
    """
    return _core.adaptive_pool2d(
        as_tensor(x), *as_pair(output_size, "adaptive_avg_pool2d: output_size"), False)


def adaptive_max_pool2d(x: Operand, output_size: Pair) -> Tensor:
    """Largest value over windows as those of :func:`adaptive_avg_pool2d`. Among equals the gradient
    goes to the first.

    Args, Returns, Raises: as there.
    """
    return _core.adaptive_pool2d(
        as_tensor(x), *as_pair(output_size, "adaptive_max_pool2d: output_size"), True)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zeroes each element with probability p and scales the others by 1 / (1 - p) (Srivastava et
    al. 2014). Draws once from :mod:`attnnet.random`.

    Args:
        x: of any shape, which is the result's.
        p: 0 to 1, default 0.5.
        training: False gives x itself (default True).

    Raises:
        ValueError: for p outside [0, 1].
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p is {p}, expected 0 to 1")
    if not training or p == 0.0:
        return x
    return _core.dropout(as_tensor(x), p, *next_draw())


# Shapes


def reshape(x: Operand, shape: Integers) -> Tensor:
    """The same elements, in row-major order, in another shape.

    Args:
        x: of any shape. shape: the sizes; one may be -1, which is what is left.

    Raises:
        ValueError: the sizes do not hold as many elements. TypeError: they are no integers.
    """
    return _core.reshape(as_tensor(x), as_integers(shape, "reshape", "shape"))


def flatten(x: Operand, start_dim: int = 1) -> Tensor:
    """Joins all dimensions from ``start_dim`` (default 1) on: (N, C, H, W) -> (N, C H W).

    Raises:
        ValueError: ``start_dim`` is out of range.
    """
    x = as_tensor(x)
    start = start_dim + x.ndim if start_dim < 0 else start_dim
    if not 0 <= start <= max(x.ndim, 1):
        raise ValueError(f"flatten: start_dim {start_dim} is out of range for {x.ndim} dimensions")
    rest = 1
    for size in x.shape[start:]:
        rest *= size
    return _core.reshape(x, (*x.shape[:start], rest))


def permute(x: Operand, dims: Sequence[int]) -> Tensor:
    """Reorders dimensions: dimension i of the result is dims[i] of x.

    Raises:
        ValueError: ``dims`` does not name each dimension once.
    """
    return _core.permute(as_tensor(x), as_integers(dims, "permute", "dims"))


def cat(tensors: Sequence[Operand], dim: int = 0) -> Tensor:
    """Joins any number of tensors along a dimension.

    Args:
        tensors: alike in all dimensions but ``dim``. dim: default 0; negative: from the end.

    Raises:
        ValueError: no tensors, others of their dimensions differ, or ``dim`` is out of range.
    """
    return _core.concatenate([as_tensor(t) for t in tensors], dim)


def split(x: Operand, size_or_sections: int | Sequence[int], dim: int = 0) -> list[Tensor]:
    """Cuts x along ``dim`` into pieces of one size (the last may be smaller) or of the sizes given.

    Args:
        x: of any shape. size_or_sections: a size of at least 1, or a list of sizes.
        dim: default 0; negative: from the end.

    Raises:
        ValueError: where the sizes do not add up to the dimension, a size is out of range, or
            ``dim`` is.
    """
    x = as_tensor(x)
    axis = dim + x.ndim if dim < 0 else dim
    if not 0 <= axis < x.ndim:
        raise ValueError(f"split: dim {dim} is out of range for {x.ndim} dimensions")
    length = x.shape[axis]
    if isinstance(size_or_sections, (int, np.integer)):
        step = int(size_or_sections)
        if step < 1:
            raise ValueError(f"split: the size must be 1 or more, got {step}")
        sizes = [step] * (length // step) + ([length % step] if length % step else [])
    else:
        sizes = list(as_integers(size_or_sections, "split", "size_or_sections"))
        if np.sum(sizes) != length or any(n < 0 for n in sizes):
            raise ValueError(f"split: sizes {sizes} do not add up to {length}")
    pieces, at = [], 0
    for n in sizes:
        start = [0] * x.ndim
        size = list(x.shape)
        start[axis], size[axis] = at, n
        pieces.append(_core.slice(x, start, [1] * x.ndim, size))
        at += n
    return pieces


def pad(x: Operand, padding: Sequence[int], value: float = 0.0) -> Tensor:
    """Adds ``value`` around the last dimensions.

    Args:
        x: of any shape.
        padding: (left, right[, top, bottom, ...]) as in PyTorch, the last dimension first.
        value: what is added, default 0.

    Raises:
        ValueError: an odd number of sizes, more than x has dimensions for, or one below 0.
        TypeError: a size is no integer.
    """
    x = as_tensor(x)
    padding = as_integers(padding, "pad", "padding")
    if len(padding) % 2 or len(padding) > 2 * x.ndim:
        raise ValueError(f"pad: padding {padding} does not fit {x.ndim} dimensions")
    before, after = [0] * x.ndim, [0] * x.ndim
    for i in range(len(padding) // 2):
        before[x.ndim - 1 - i], after[x.ndim - 1 - i] = padding[2 * i], padding[2 * i + 1]
    return _core.pad(x, before, after, value)
