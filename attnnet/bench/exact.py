"""A convolution and its gradients in float64, by the definition."""

from __future__ import annotations

import numpy as np

from .layers import Convolution


def convolve(
    layer: Convolution, x: np.ndarray, weight: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The output, and the gradients of input and weights, float64.

    Args:
        layer: of which the stride and the padding count.
        x: (N, C, H, W). weight: (K, C, R, S). dy: gradient of the output, (N, K, P, Q).
    """
    pad, step = layer.padding, layer.stride
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    weight, dy = weight.astype(np.float64), dy.astype(np.float64)
    y, dpadded, dweight = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(weight)
    height, width = dy.shape[2:]
    for r in range(weight.shape[2]):
        for s in range(weight.shape[3]):
            rows = slice(r, r + step * (height - 1) + 1, step)
            columns = slice(s, s + step * (width - 1) + 1, step)
            tap = padded[:, :, rows, columns]
            y += np.tensordot(weight[:, :, r, s], tap, (1, 1)).swapaxes(0, 1)
            dweight[:, :, r, s] = np.tensordot(dy, tap, ((0, 2, 3), (0, 2, 3)))
            dpadded[:, :, rows, columns] += np.tensordot(weight[:, :, r, s], dy, (0, 1)).swapaxes(
                0, 1
            )
    inner = dpadded[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]]
    return y, inner, dweight


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Root mean square of the difference over that of the exact values."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
