"""NumPy float64 twins of convolution, batch norm and the pools (see ops.py for the manner).

Letters: N images, C input channels, H x W input, K output channels, R x S kernel, P x Q output.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, (int, np.integer)) else tuple(value)


def _windows(padded, kernel, stride):
    """(N, C, P, Q, R, S) view of every place that the kernel visits."""
    view = sliding_window_view(padded, kernel, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1]]


def _pad(x, padding, value=0.0):
    (top, left) = padding
    return np.pad(x, [(0, 0), (0, 0), (top, top), (left, left)], constant_values=value)


def _unpad(x, padding):
    (top, left) = padding
    return x[:, :, top : x.shape[2] - top, left : x.shape[3] - left]


def _tap(array, r, s, places, stride):
    """The view of ``array`` (padded) that tap (r, s) of the kernel reads at every output place."""
    (p, q), (u, v) = places, stride
    return array[:, :, r : r + (p - 1) * u + 1 : u, s : s + (q - 1) * v + 1 : v]


def conv2d(x, weight, bias=None, stride=1, padding=0, groups=1):
    """Cross-correlation, as in every framework. x (N,C,H,W), weight (K,C/groups,R,S), bias (K,)."""
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    stride, padding = _pair(stride), _pair(padding)
    padded = _pad(x, padding)
    kernel = weight.shape[2:]
    windows = _windows(padded, kernel, stride)
    n, _, p, q = windows.shape[:4]
    k, depth = weight.shape[0] // groups, weight.shape[1]
    y = np.zeros((n, k * groups, p, q))
    for g in range(groups):  # (N,c,P,Q,R,S) . (k,c,R,S) -> (N,P,Q,k)
        part = windows[:, g * depth : (g + 1) * depth]
        out = np.tensordot(part, weight[g * k : (g + 1) * k], axes=((1, 4, 5), (1, 2, 3)))
        y[:, g * k : (g + 1) * k] = out.transpose(0, 3, 1, 2)
    if bias is not None:
        y += np.asarray(bias, np.float64)[:, None, None]

    def backward(dy):
        dw, dpadded = np.zeros_like(weight), np.zeros_like(padded)
        for g in range(groups):
            cs, ks = slice(g * depth, (g + 1) * depth), slice(g * k, (g + 1) * k)
            dw[ks] = np.tensordot(dy[:, ks], windows[:, cs], axes=((0, 2, 3), (0, 2, 3)))
            for r in range(kernel[0]):
                for s in range(kernel[1]):  # (N,k,P,Q) . (k,c) -> (N,P,Q,c)
                    back = np.tensordot(dy[:, ks], weight[ks, :, r, s], axes=((1,), (0,)))
                    view = _tap(dpadded[:, cs], r, s, (p, q), stride)
                    view += back.transpose(0, 3, 1, 2)
        db = None if bias is None else dy.sum(axis=(0, 2, 3))
        return _unpad(dpadded, padding), dw, db

    return y, backward


def batch_norm(
    x, running_mean, running_var, weight, bias, training=False, eps=1e-5, residual=None, relu=False
):
    """relu?(normalise(x) * weight + bias [+ residual]); biased variance over N, H, W in training.

    backward returns (dx, dweight, dbias), and dresidual behind them where there is a residual.
    """
    x = np.asarray(x, np.float64)
    per_channel = (1, -1, *[1] * (x.ndim - 2))
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axis=axes) if training else np.asarray(running_mean, np.float64)
    var = x.var(axis=axes) if training else np.asarray(running_var, np.float64)
    scale = 1 / np.sqrt(var + eps).reshape(per_channel)
    xhat = (x - mean.reshape(per_channel)) * scale
    gamma = np.asarray(weight, np.float64).reshape(per_channel)
    y = xhat * gamma + np.asarray(bias, np.float64).reshape(per_channel)
    if residual is not None:
        y = y + np.asarray(residual, np.float64)
    if relu:
        y = np.maximum(y, 0)

    def backward(dy):
        dz = dy * (y > 0) if relu else dy
        dweight, dbias = (dz * xhat).sum(axis=axes), dz.sum(axis=axes)
        dxhat = dz * gamma
        if training:
            dxhat = dxhat - dxhat.mean(axis=axes, keepdims=True)
            # (dz - mean dz) and xhat are both free of the mean, so this is the usual formula
            dxhat = dxhat - xhat * (dxhat * xhat).mean(axis=axes, keepdims=True)
        grads = (dxhat * scale, dweight, dbias)
        return grads if residual is None else (*grads, dz)

    return y, backward


def batch_norm_running(x, running_mean, running_var, momentum=0.1):
    """The running statistics after one training pass: the *unbiased* variance enters them."""
    x = np.asarray(x, np.float64)
    axes = (0, *range(2, x.ndim))
    mean, var = x.mean(axis=axes), x.var(axis=axes, ddof=1)
    keep = 1 - momentum
    return keep * running_mean + momentum * mean, keep * running_var + momentum * var


def max_pool2d(x, kernel_size, stride=None, padding=0):
    """The first maximum of a window, in row-major order, takes the gradient."""
    x = np.asarray(x, np.float64)
    kernel, padding = _pair(kernel_size), _pair(padding)
    stride = kernel if stride is None else _pair(stride)
    padded = _pad(x, padding, -np.inf)
    windows = _windows(padded, kernel, stride)
    places = windows.shape[2:4]
    flat = windows.reshape(*windows.shape[:4], kernel[0] * kernel[1])
    first = flat.argmax(axis=-1)

    def backward(dy):
        dpadded = np.zeros_like(padded)
        for r in range(kernel[0]):
            for s in range(kernel[1]):
                view = _tap(dpadded, r, s, places, stride)
                view += dy * (first == r * kernel[1] + s)
        return (_unpad(dpadded, padding),)

    return flat.max(axis=-1), backward


def avg_pool2d(x, kernel_size, stride=None, padding=0, count_include_pad=True):
    x = np.asarray(x, np.float64)
    kernel, padding = _pair(kernel_size), _pair(padding)
    stride = kernel if stride is None else _pair(stride)
    padded = _pad(x, padding)
    counted = _pad(np.ones((1, 1, *x.shape[2:])), padding, float(count_include_pad))
    count = _windows(counted, kernel, stride).sum(axis=(4, 5))
    windows = _windows(padded, kernel, stride)
    places = windows.shape[2:4]

    def backward(dy):
        dpadded = np.zeros_like(padded)
        for r in range(kernel[0]):
            for s in range(kernel[1]):
                view = _tap(dpadded, r, s, places, stride)
                view += dy / count
        return (_unpad(dpadded, padding),)

    return windows.sum(axis=(4, 5)) / count, backward


def _bins(size: int, out: int) -> list[slice]:
    """Adaptive pooling: bin i covers floor(i size/out) to ceil((i+1) size/out)."""
    return [slice(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def _adaptive(x, output_size, pool):
    """Pools every bin on its own; ``pool`` takes and gives what a twin does."""
    x = np.asarray(x, np.float64)
    rows, columns = (_bins(n, o) for n, o in zip(x.shape[2:], _pair(output_size), strict=True))
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    backs = {}
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            part = x[:, :, r, c]
            pooled, backs[i, j] = pool(part, part.shape[2:])
            y[:, :, i, j] = pooled[:, :, 0, 0]

    def backward(dy):
        dx = np.zeros_like(x)
        for (i, j), back in backs.items():
            dx[:, :, rows[i], columns[j]] += back(dy[:, :, i : i + 1, j : j + 1])[0]
        return (dx,)

    return y, backward


def adaptive_avg_pool2d(x, output_size):
    return _adaptive(x, output_size, avg_pool2d)


def adaptive_max_pool2d(x, output_size):
    return _adaptive(x, output_size, max_pool2d)
