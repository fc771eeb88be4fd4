"""Pooling layers over the rows and columns of (N, C, H, W)."""

from __future__ import annotations

from .. import functional as F
from ..operands import Pair, as_pair
from ..tensor import Tensor
from .module import Module


class _Pool(Module):
    """Window, stride and padding, shared by the two windowed pools."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        super().__init__()
        self.kernel_size = as_pair(kernel_size, "kernel_size", 1)
        self.stride = self.kernel_size if stride is None else as_pair(stride, "stride", 1)
        self.padding = as_pair(padding, "padding", 0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(
                f"padding must be at most half of kernel_size: got {padding} and {kernel_size}"
            )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool):
    """Maximum of each window; a tie gives its gradient to the first in row-major order.

    Args:
        kernel_size: int or (rows, columns). stride: default kernel_size. padding: default 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool):
    """Mean of each window, padding zeros counted.

    Args:
        kernel_size: int or (rows, columns). stride: default kernel_size. padding: default 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class _AdaptivePool(Module):
    def __init__(self, output_size: Pair) -> None:
        super().__init__()
        self.output_size = as_pair(output_size, "output_size", 1)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool2d(_AdaptivePool):
    """Mean over a grid of ``output_size`` cells (1: over the whole image), any input size.

    Args:
        output_size: int or (rows, columns) of the output.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveMaxPool2d(_AdaptivePool):
    """Maximum over a grid of ``output_size`` cells (1: over the whole image), any input size.

    Args:
        output_size: int or (rows, columns) of the output.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(x, self.output_size)
