"""The attention of AA, the attention augmented convolution (Bello et al. 2019), as one operation.

Of ``attnnet.functional``; the block with its parameters is :class:`attnnet.nn.AA`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _core
from .operands import Operand, as_tensor

if TYPE_CHECKING:
    from .tensor import Tensor


def attention_augmented(x: Operand, conv_out_w: Tensor, conv_out_b: Tensor | None, kqv_w: Tensor,
                        kqv_b: Tensor | None, attn_w: Tensor, attn_b: Tensor | None,
                        rel_h: Operand, rel_w: Operand, heads: int = 8,
                        original_form: bool = False) -> Tensor:
    """Attention augmented convolution: a 3x3 convolution beside self-attention over all positions,
    concat(conv(x), conv1x1(attention)).

    I. Bello, B. Zoph, A. Vaswani, J. Shlens, Q. V. Le, "Attention Augmented Convolutional
    Networks", ICCV 2019. dv, the channels that come from the attention, is that of ``attn_w``;
    dk, those of the queries and of the keys, follows from ``kqv_w``.

    Args:
        x: (N, C, H, W).
        conv_out_w, conv_out_b: (K, C, R, R) with R odd (3 in the paper), (K) or None: the plain
            convolution, padded so that H and W stay.
        kqv_w, kqv_b: (2 dk + dv, C, 1, 1), (2 dk + dv) or None: keys, queries and values, in that
            order.
        attn_w, attn_b: (dv, dv, 1, 1), (dv) or None: mixes the heads' outputs.
        rel_h, rel_w: (2H - 1, dk / heads) and (2W - 1, dk / heads): relative position encodings,
            shared by the heads; row r is for key - query = r - (L - 1).
        heads: how many (default 8); divides dk and dv.
        original_form: the form of the reference study's checkpoints instead of the paper's, see
            :func:`relative_attention` (default False).

    Returns:
        (N, K + dv, H, W): the convolution's channels first.

    Raises:
        ValueError: for shapes that do not fit each other.
    """
    kernel = tuple(conv_out_w.shape[2:])
    if len(kernel) != 2 or kernel[0] != kernel[1] or kernel[0] % 2 == 0:
        raise ValueError("attention_augmented: conv_out_w must be (K, C, R, R) with R odd, got "
                         f"{tuple(conv_out_w.shape)}")
    dv = attn_w.shape[0]
    dk, odd = divmod(kqv_w.shape[0] - dv, 2)
    if odd or dk < 1:
        raise ValueError(f"attention_augmented: kqv_w has {kqv_w.shape[0]} output channels, "
                         f"expected 2 * dk + dv with dv = {dv} of attn_w")
    x = as_tensor(x)
    kqv = _convolve(x, kqv_w, kqv_b)
    attention = relative_attention(kqv, rel_h, rel_w, heads, dk, dv, original_form)
    plain = _convolve(x, conv_out_w, conv_out_b, kernel[0] // 2)
    return _core.concatenate([plain, _convolve(attention, attn_w, attn_b)], 1)


def _convolve(x: _core.Tensor, weight: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor:
    return _core.conv2d(x, weight, bias, (1, 1), (padding, padding), 1)


def relative_attention(kqv: Operand, rel_h: Operand, rel_w: Operand, heads: int, dk: int, dv: int,
                       original_form: bool = False) -> Tensor:
    """Self-attention over the positions of images with relative position encodings, by heads.

    The paper's form (default), for each head of d = dk / heads and e = dv / heads channels, with q
    scaled by d^-1/2, query at (y, x), key at (Y, X)::

        logit = q . k + q . rel_w[X - x + W - 1] + q . rel_h[Y - y + H - 1]
        result = softmax over all keys (logit) v

    Heads split the channels: head h has channels h d to (h + 1) d of q and k, h e to (h + 1) e of v
    and of the result. The original form is that of the reference study's code: k, q, v and the
    result, each (N, channels, H, W) row-major, are *reinterpreted* in memory as (N, heads, H, W,
    channels / heads), and both relative terms are summed over the heads (q there is the sum of all
    heads' queries), so that all heads share them.

    The attention map, heads * (H W)^2 numbers an image, is never stored: blocks of queries pass
    over blocks of keys, and the backward computes the probabilities again. For the gradient kqv,
    the result and one number a query and head are kept.

    Args:
        kqv: (N, 2 dk + dv, H, W): keys, queries, values, in that order.
        rel_h, rel_w: (2H - 1, dk / heads), (2W - 1, dk / heads).
        heads: divides dk and dv.
        dk, dv: channels of the queries (and keys), and of the values, over all heads.
        original_form: default False.

    Returns:
        (N, dv, H, W).

    Raises:
        ValueError: for shapes that do not fit; the message names them.
    """
    return _core.relative_attention(as_tensor(kqv), as_tensor(rel_h), as_tensor(rel_w), heads, dk,
                                    dv, original_form)


def relative_attention_rows(kqv: Operand, rel_h: Operand, rel_w: Operand, heads: int, dk: int,
                            dv: int, original_form: bool = False, *, image: int = 0,
                            query: int = 0) -> Tensor:
    """What one position attends to: a query's rows of the attention maps that
    :func:`relative_attention` never stores. For looking at, without a gradient.

    Args:
        kqv, rel_h, rel_w, heads, dk, dv, original_form: as there.
        image: which one of the batch, 0 to N - 1 (default 0).
        query: the position, y * W + x (default 0).

    Returns:
        (heads, H W): each row sums to 1; reshape it to (heads, H, W) for pictures.

    Raises:
        ValueError: for shapes that do not fit, an image or a position that is not there.
    """
    return _core.relative_attention_rows(as_tensor(kqv), as_tensor(rel_h), as_tensor(rel_w), heads,
                                         dk, dv, original_form, image, query)
