"""The study's attention blocks as fused operations: one C call forward, one backward.

Every block takes x (N, C, H, W) and scales it by a gate a channel, a gate a position, or both;
the result has x's shape. Weights of 1x1 layers may be given as linear, (K, C), or as convolution
weights, (K, C, 1, 1). With ``relu=True`` the result is max(0, block(x)), in the same passes over
memory: use it where a ReLU follows. ``block_gates`` shows the gates themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _core
from .autograd import is_relu_guided
from .errors import unknown_name
from .operands import Operand, as_tensor

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = ["Gates", "block_gates", "ca", "nab", "new_block", "sa", "se", "sec"]


def _input(x: Operand) -> _core.Tensor:
    """x as a tensor, unless inside ``guided_relu``, which cannot reach a ReLU in an operation."""
    if is_relu_guided():
        raise RuntimeError(
            "guided backpropagation cannot reach the ReLU inside a block that is one operation: "
            "use the block's module, or compose it of plain operations"
        )
    return as_tensor(x)


def se(x: Operand, w1: Tensor, w2: Tensor, *, relu: bool = False) -> Tensor:
    """Squeeze and excitation, with the input added: x + x * g, g = sigmoid(w2 relu(w1 mean(x))).

    J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018. The mean is over H and W;
    there are no biases.

    Args:
        x: (N, C, H, W).
        w1: (K, C); the study takes K = C / 8.
        w2: (C, K).
        relu: apply a ReLU to the result (default False).

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for shapes that do not fit, and where K is 0 (too few channels to reduce).
        TypeError: for a weight that is not a tensor.
    """
    return _core.se(_input(x), w1, w2, relu)


def sec(x: Operand, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, *,
        relu: bool = False) -> Tensor:
    """Squeeze and excitation by two 1x1 convolutions with bias: x * g,
    g = sigmoid(w2 relu(w1 mean(x) + b1) + b2).

    J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018.

    Args:
        x: (N, C, H, W).
        w1, b1: (K, C, 1, 1) and (K); the study takes K = C / 8.
        w2, b2: (C, K, 1, 1) and (C).
        relu: apply a ReLU to the result (default False).

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for shapes that do not fit, and where K is 0 (too few channels to reduce).
        TypeError: for a weight that is not a tensor.
    """
    return _core.sec(_input(x), w1, b1, w2, b2, relu)


def ca(x: Operand, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
       pool_types: Sequence[str] = ("avg", "max"), *, relu: bool = False) -> Tensor:
    """Channel attention: x * sigmoid(sum over the pools of mlp(pool(x))), where
    mlp(v) = w2 relu(w1 v + b1) + b2 is shared by the pools.

    The channel gate of S. Woo, J. Park, J.-Y. Lee, I. S. Kweon, "CBAM: Convolutional Block
    Attention Module", ECCV 2018.

    Args:
        x: (N, C, H, W).
        w1, b1: (K, C) and (K); the study takes K = C / 16.
        w2, b2: (C, K) and (C).
        pool_types: different names among "avg" (mean over positions), "max" (its gradient goes to
            the first maximum), "lp" (square root of the sum of squares; its gradient at 0 is 0) and
            "lse" (logarithm of the sum of exponentials). Default ("avg", "max").
        relu: apply a ReLU to the result (default False).

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for shapes that do not fit, an unknown or repeated pool, and where K is 0 (too
            few channels to reduce).
        TypeError: for a weight that is not a tensor.
    """
    return _core.ca(_input(x), w1, b1, w2, b2, tuple(pool_types), relu)


def sa(x: Operand, conv_w: Tensor, conv_b: Tensor, running_mean: Tensor | None,
       running_var: Tensor | None, bn_w: Tensor, bn_b: Tensor, training: bool,
       momentum: float = 0.01, eps: float = 1e-5, *, relu: bool = False) -> Tensor:
    """Spatial attention: x * sigmoid(batch_norm(conv7x7([max over channels, mean over channels]))).

    The spatial gate of S. Woo, J. Park, J.-Y. Lee, I. S. Kweon, "CBAM: Convolutional Block
    Attention Module", ECCV 2018. The maximum's gradient goes to the first of equal channels.

    Args:
        x: (N, C, H, W).
        conv_w, conv_b: (1, 2, 7, 7) and (1); padding 3; input channel 0 is the maximum.
        running_mean, running_var: (1); used in evaluation, updated in place in training (the
            variance with n - 1). None in training: not kept.
        bn_w, bn_b: (1).
        training: normalise with the batch's own (biased) statistics.
        momentum: share of the batch in the running statistics (default 0.01).
        eps: added to the variance (default 1e-5).
        relu: apply a ReLU to the result (default False).

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for shapes that do not fit, and in training where N * H * W is below 2.
        TypeError: for a weight that is not a tensor.
    """
    return _core.sa(_input(x), conv_w, conv_b, running_mean, running_var, bn_w, bn_b, training,
                    momentum, eps, relu)


def new_block(x: Operand, w1: Tensor, w2: Tensor, conv_w: Tensor, conv_b: Tensor,
              running_mean: Tensor | None, running_var: Tensor | None, bn_w: Tensor, bn_b: Tensor,
              training: bool, momentum: float = 0.01, eps: float = 1e-5, *,
              relu: bool = False) -> Tensor:
    """The study's NEW block: a + a * g with a = sa(x) and SE's gate g computed from x itself.

    Args:
        x: (N, C, H, W).
        w1, w2: (K, C) and (C, K), as in :func:`se`; the study takes K = C / 8.
        conv_w, conv_b, running_mean, running_var, bn_w, bn_b, training, momentum, eps: as in
            :func:`sa`.
        relu: apply a ReLU to the result (default False).

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for shapes that do not fit, where K is 0 (too few channels to reduce), and in
            training where N * H * W is below 2.
        TypeError: for a weight that is not a tensor.
    """
    return _core.new_block(_input(x), w1, w2, conv_w, conv_b, running_mean, running_var, bn_w,
                           bn_b, training, momentum, eps, relu)


def nab(x: Operand, sam_w: Tensor, sam_b: Tensor, cam_w: Tensor, cam_b: Tensor, *,
        relu: bool = False) -> Tensor:
    """The study's NAB block: x * p * c, a gate a position and a gate a channel.

    p = sigmoid(conv1x1(x)); c = the largest over positions of sigmoid(conv7x7(x)), with stride 3
    and no padding; its gradient goes to the first maximum.

    Args:
        x: (N, C, H, W), H and W at least 7.
        sam_w, sam_b: (1, C, 1, 1) and (1).
        cam_w, cam_b: (C, C, 7, 7) and (C).
        relu: apply a ReLU to the result (default False).

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for shapes that do not fit, and where H or W is below 7.
        TypeError: for a weight that is not a tensor.
    """
    return _core.nab(_input(x), sam_w, sam_b, cam_w, cam_b, relu)


class Gates(NamedTuple):
    """What a block scales its input by: ``channel`` (N, C) and ``position`` (N, 1, H, W), each a
    tensor with values in (0, 1), or None where the block has no such gate."""

    channel: Tensor | None
    position: Tensor | None


def block_gates(block: str, x: Operand, *arguments: Any) -> Gates:
    """The gates of a block, without its result, its gradients, or any change of running statistics.

    Args:
        block: "se", "sec", "ca", "sa", "new_block" or "nab".
        x: (N, C, H, W).
        arguments: the block's further arguments, all of them, in the order of its function here
            (but ``relu``): ``block_gates("ca", x, w1, b1, w2, b2, ("avg", "max"))``.

    Raises:
        ValueError: for an unknown block and for what the block itself refuses.
    """
    function = getattr(_core, f"{block}_gates", None)
    if function is None:
        raise unknown_name("block", block, ["ca", "nab", "new_block", "sa", "se", "sec"])
    return Gates(*function(as_tensor(x), *arguments))
