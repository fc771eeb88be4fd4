"""NumPy float64 twins of attnnet.functional: elementwise, reductions, shapes, losses.

Every twin is called as ``y, backward = op(...)``; ``backward(dy)`` returns one gradient for each
array argument, in the order of the arguments (None where there is nothing to differentiate).
The twins say what an operation *means*; they are written to be read, not to be fast. Convolution,
batch norm and pooling are in ``layers.py`` and can be had from here as well.
"""

from __future__ import annotations

import numpy as np

from .layers import (  # noqa: F401  (one place to import every twin from)
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    batch_norm,
    batch_norm_running,
    conv2d,
    max_pool2d,
)


def f64(value) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)


def unbroadcast(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum ``grad`` over the axes along which an operand of ``shape`` was repeated."""
    extra = grad.ndim - len(shape)
    grad = grad.sum(axis=tuple(range(extra)))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and grad.shape[i] != 1)
    return grad.sum(axis=repeated, keepdims=True) if repeated else grad


# ---- elementwise, one operand ---------------------------------------------------------------


def relu(x):
    x = f64(x)
    return np.where(x > 0, x, np.where(np.isnan(x), x, 0.0)), lambda dy: (dy * ~(x <= 0),)


def sigmoid(x):
    x = f64(x)
    small = np.exp(-np.abs(x))  # never overflows
    y = np.where(x >= 0, 1 / (1 + small), small / (1 + small))
    return y, lambda dy: (dy * y * (1 - y),)


def tanh(x):
    y = np.tanh(f64(x))
    return y, lambda dy: (dy * (1 - y * y),)


def exp(x):
    y = np.exp(f64(x))
    return y, lambda dy: (dy * y,)


def log(x):
    x = f64(x)
    return np.log(x), lambda dy: (dy / x,)


def sqrt(x):
    y = np.sqrt(f64(x))
    return y, lambda dy: (dy / (2 * y),)


def abs(x):
    x = f64(x)
    return np.abs(x), lambda dy: (dy * np.sign(x),)


def clamp(x, min=None, max=None):
    """The gradient passes on the bounds themselves, as in PyTorch."""
    x = f64(x)
    inside = np.ones(x.shape, bool)
    if min is not None:
        inside &= x >= min
    if max is not None:
        inside &= x <= max
    return (x if min is max is None else np.clip(x, min, max)), lambda dy: (dy * inside,)


def softmax(x, dim):
    x = f64(x)
    e = np.exp(x - x.max(axis=dim, keepdims=True)) if x.size else x
    y = e / e.sum(axis=dim, keepdims=True)
    return y, lambda dy: (y * (dy - (dy * y).sum(axis=dim, keepdims=True)),)


def log_softmax(x, dim):
    x = f64(x)
    shifted = x - x.max(axis=dim, keepdims=True) if x.size else x
    with np.errstate(divide="ignore"):  # of a sum over nothing, which nobody sees
        y = shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))
    return y, lambda dy: (dy - np.exp(y) * dy.sum(axis=dim, keepdims=True),)


# ---- elementwise, two operands --------------------------------------------------------------


def _binary(x, y, value, dx, dy_):
    x, y = f64(x), f64(y)

    def backward(dy):
        return unbroadcast(dy * dx(x, y), x.shape), unbroadcast(dy * dy_(x, y), y.shape)

    return value(x, y), backward


def add(x, y):
    return _binary(x, y, np.add, lambda x, y: 1.0, lambda x, y: 1.0)


def sub(x, y):
    return _binary(x, y, np.subtract, lambda x, y: 1.0, lambda x, y: -1.0)


def mul(x, y):
    return _binary(x, y, np.multiply, lambda x, y: y, lambda x, y: x)


def div(x, y):
    return _binary(x, y, np.divide, lambda x, y: 1 / y, lambda x, y: -x / (y * y))


def pow(x, y):
    """x ** y; the gradient to the exponent is 0 where x is 0 (the limit for y > 0)."""

    def to_base(x, y):  # y = 0 gives 0 even at x = 0, where x ** (y - 1) is infinite
        return np.where(y == 0, 0.0, y * np.power(x, np.where(y == 0, 1.0, y - 1)))

    def to_exponent(x, y):
        with np.errstate(invalid="ignore"):  # a negative base has no real one: NaN
            return np.where(x == 0, 0.0, np.power(x, y) * np.log(np.where(x == 0, 1.0, x)))

    return _binary(x, y, np.power, to_base, to_exponent)


# ---- matrix products ------------------------------------------------------------------------


def matmul(a, b):
    """(..., M, K) @ (..., K, N) with broadcast leading axes; a 1-d operand as in np.matmul."""
    a, b = f64(a), f64(b)
    a2 = a[None, :] if a.ndim == 1 else a
    b2 = b[:, None] if b.ndim == 1 else b

    def backward(dy):
        if b.ndim == 1:
            dy = dy[..., None]
        if a.ndim == 1:
            dy = dy[..., None, :]
        da = unbroadcast(dy @ b2.swapaxes(-1, -2), a2.shape)
        db = unbroadcast(a2.swapaxes(-1, -2) @ dy, b2.shape)
        return da.reshape(a.shape), db.reshape(b.shape)

    return np.matmul(a, b), backward


def linear(x, weight, bias=None):
    """x (..., D) times weight (M, D) transposed, plus bias (M,)."""
    x, weight = f64(x), f64(weight)
    y = x @ weight.T
    if bias is not None:
        y = y + f64(bias)

    def backward(dy):
        rows = dy.reshape(-1, weight.shape[0])
        dw = rows.T @ x.reshape(-1, weight.shape[1])
        return dy @ weight, dw, None if bias is None else rows.sum(axis=0)

    return y, backward


# ---- reductions -----------------------------------------------------------------------------


def _axes(dim, ndim: int) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(ndim))
    return tuple(d % ndim for d in ((dim,) if isinstance(dim, int) else dim))


def _expand(dy, x, axes, keepdim):
    """dy of a reduction, with the reduced axes back as size 1."""
    return dy if keepdim else np.expand_dims(dy, axes)


def sum(x, dim=None, keepdim=False):
    x = f64(x)
    axes = _axes(dim, x.ndim)

    def backward(dy):
        return (np.broadcast_to(_expand(dy, x, axes, keepdim), x.shape),)

    return x.sum(axis=axes, keepdims=keepdim), backward


def mean(x, dim=None, keepdim=False):
    x = f64(x)
    axes = _axes(dim, x.ndim)
    count = int(np.prod([x.shape[a] for a in axes]))

    def backward(dy):
        return (np.broadcast_to(_expand(dy, x, axes, keepdim) / count, x.shape),)

    return x.mean(axis=axes, keepdims=keepdim), backward


def var(x, dim=None, correction=1, keepdim=False):
    x = f64(x)
    axes = _axes(dim, x.ndim)
    count = int(np.prod([x.shape[a] for a in axes])) - correction
    centred = x - x.mean(axis=axes, keepdims=True)

    def backward(dy):
        return (_expand(dy, x, axes, keepdim) * 2 * centred / count,)

    return (centred**2).sum(axis=axes, keepdims=keepdim) / count, backward


def _extreme(x, dim, keepdim, arg):
    """The first extreme in row-major order over the reduced axes takes the whole gradient."""
    x = f64(x)
    axes = _axes(dim, x.ndim)
    kept = [a for a in range(x.ndim) if a not in axes]
    order = kept + sorted(axes)
    reduced = int(np.prod([x.shape[a] for a in axes]))
    rows = x.transpose(order).reshape([x.shape[a] for a in kept] + [reduced])
    first = arg(rows, axis=-1)
    picked = np.take_along_axis(rows, first[..., None], -1)[..., 0]
    out_shape = [1 if a in axes else n for a, n in enumerate(x.shape)]

    def backward(dy):
        spread = np.zeros_like(rows)
        np.put_along_axis(spread, first[..., None], dy.reshape(first.shape)[..., None], -1)
        return (spread.reshape([x.shape[a] for a in order]).transpose(np.argsort(order)),)

    return (picked.reshape(out_shape) if keepdim else picked), backward


def amax(x, dim=None, keepdim=False):
    return _extreme(x, dim, keepdim, np.argmax)


def amin(x, dim=None, keepdim=False):
    return _extreme(x, dim, keepdim, np.argmin)


# ---- shapes ---------------------------------------------------------------------------------


def reshape(x, shape):
    x = f64(x)
    return x.reshape(shape), lambda dy: (dy.reshape(x.shape),)


def flatten(x, start_dim=1):
    x = f64(x)
    tail = int(np.prod(x.shape[start_dim:]))
    return x.reshape((*x.shape[:start_dim], tail)), lambda dy: (dy.reshape(x.shape),)


def permute(x, dims):
    x = f64(x)
    dims = tuple(d % x.ndim for d in dims)
    return x.transpose(dims), lambda dy: (dy.transpose(np.argsort(dims)),)


def cat(tensors, dim=0):
    tensors = [f64(t) for t in tensors]
    ends = np.cumsum([t.shape[dim] for t in tensors])[:-1]
    return np.concatenate(tensors, dim), lambda dy: tuple(np.split(dy, ends, axis=dim))


def split(x, size_or_sections, dim=0):
    """Returns a tuple of parts; backward takes one gradient a part (None counts as zeros)."""
    x = f64(x)
    total = x.shape[dim]
    if isinstance(size_or_sections, int):
        ends = list(range(size_or_sections, total, size_or_sections))
    else:
        ends = np.cumsum(size_or_sections)[:-1]
    parts = np.split(x, ends, axis=dim)

    def backward(dys):
        whole = [np.zeros_like(p) if d is None else d for p, d in zip(parts, dys, strict=True)]
        return (np.concatenate(whole, dim),)

    return tuple(parts), backward


def getitem(x, key):
    """Basic slicing: integers, slices, Ellipsis, None."""
    x = f64(x)

    def backward(dy):
        dx = np.zeros_like(x)
        dx[key] += dy  # basic indexing never names an element twice
        return (dx,)

    return x[key], backward


def pad(x, sides, value=0.0):
    """sides = (left, right, top, bottom) over the last two axes."""
    x = f64(x)
    left, right, top, bottom = sides
    widths = [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)]
    height, width = x.shape[-2:]

    def backward(dy):
        return (dy[..., top : top + height, left : left + width],)

    return np.pad(x, widths, constant_values=value), backward


# ---- losses ---------------------------------------------------------------------------------


def cross_entropy(logits, target, label_smoothing=0.0):
    """Mean over the batch of -sum_k t_k log p_k, t = (1-s) one-hot + s/K (Szegedy et al. 2016)."""
    logits = f64(logits)
    count, classes = logits.shape
    soft = np.full(logits.shape, label_smoothing / classes)
    soft[np.arange(count), target] += 1 - label_smoothing
    logp, _ = log_softmax(logits, 1)

    def backward(dy):
        return (dy * (np.exp(logp) - soft) / count,)

    return -(soft * logp).sum() / count, backward
