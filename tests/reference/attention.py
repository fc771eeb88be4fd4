"""The self-attention of AA (Bello et al. 2019) in NumPy float64, in both of its forms.

Letters: B images, n heads, H x W positions, (y, x) of the query, (Y, X) of the key, d channels a
head. The relative tables' row index is key - query + L - 1, for L = H or W.
"""

from __future__ import annotations

import numpy as np

HEADS = 8


def widths(channels: int) -> tuple[int, int]:
    """(dk, dv): channels of the queries and keys, and of the values, over all heads."""
    quarter = channels // 4 // HEADS * HEADS
    return max(quarter, HEADS * 20), quarter


def split_kqv(kqv, dv):
    """(B, 2 dk + dv, H, W) into k, q, v, in that order."""
    dk = (kqv.shape[1] - dv) // 2
    parts = kqv[:, :dk], kqv[:, dk : 2 * dk], kqv[:, 2 * dk :]
    return parts, lambda dk_, dq, dv_: np.concatenate([dk_, dq, dv_], axis=1)


def _to_heads(t, form, heads):
    """(B, d, H, W) -> (B, n, H, W, d/n). The original *reinterprets* the memory as that shape."""
    b, d, h, w = t.shape
    if form == "original":
        return t.reshape(b, heads, h, w, d // heads)
    return t.reshape(b, heads, d // heads, h, w).transpose(0, 1, 3, 4, 2)


def _from_heads(t, form):
    """The inverse of _to_heads (and so, for gradients, its adjoint)."""
    b, n, h, w, d = t.shape
    if form == "original":
        return t.reshape(b, n * d, h, w)
    return t.transpose(0, 1, 4, 2, 3).reshape(b, n * d, h, w)


def _shifts(length):
    """(query, key) -> row of a relative table."""
    return np.arange(length)[None, :] - np.arange(length)[:, None] + length - 1


def attention(q, k, v, rel_h, rel_w, form, heads=None):
    """q, k (B,dk,H,W), v (B,dv,H,W), tables (2H-1, dk/n) and (2W-1, dk/n) -> (B,dv,H,W), of
    ``heads`` heads (default 8).

    The paper's form gives each head the relative terms of its own query; the original's gives
    every head their sum over the heads. backward returns (dq, dk, dv, drel_h, drel_w).
    """
    if form not in ("paper", "original"):
        raise ValueError(f"form must be 'paper' or 'original', got {form!r}")
    n = heads or HEADS
    height, width = q.shape[2:]
    scale = (q.shape[1] / n) ** -0.5
    qh, kh, vh = (_to_heads(t, form, n) for t in (q, k, v))
    qh = qh * scale
    rows, columns = _shifts(height), _shifts(width)
    table_h, table_w = rel_h[rows], rel_w[columns]  # (y, Y, d) and (x, X, d)

    logits = np.einsum("bnyxd,bnYXd->bnyxYX", qh, kh, optimize=True)
    relative = np.einsum("bnyxd,yYd->bnyxY", qh, table_h, optimize=True)[..., :, None]
    relative = relative + np.einsum("bnyxd,xXd->bnyxX", qh, table_w, optimize=True)[..., None, :]
    if form == "original":
        relative = relative.sum(axis=1, keepdims=True)
    logits = logits + relative
    weights = np.exp(logits - logits.max(axis=(4, 5), keepdims=True))
    weights /= weights.sum(axis=(4, 5), keepdims=True)
    out = np.einsum("bnyxYX,bnYXd->bnyxd", weights, vh, optimize=True)

    def backward(dy):
        dout = _to_heads(dy, form, n)
        dvh = np.einsum("bnyxYX,bnyxd->bnYXd", weights, dout, optimize=True)
        dweights = np.einsum("bnyxd,bnYXd->bnyxYX", dout, vh, optimize=True)
        inner = (dweights * weights).sum(axis=(4, 5), keepdims=True)
        dlogits = weights * (dweights - inner)
        dkh = np.einsum("bnyxYX,bnyxd->bnYXd", dlogits, qh, optimize=True)
        dqh = np.einsum("bnyxYX,bnYXd->bnyxd", dlogits, kh, optimize=True)
        drelative = dlogits
        if form == "original":  # one sum for all heads: each head's query hears from all of them
            drelative = np.broadcast_to(dlogits.sum(axis=1, keepdims=True), dlogits.shape)
        by_row, by_column = drelative.sum(axis=5), drelative.sum(axis=4)
        dqh = dqh + np.einsum("bnyxY,yYd->bnyxd", by_row, table_h, optimize=True)
        dqh = dqh + np.einsum("bnyxX,xXd->bnyxd", by_column, table_w, optimize=True)
        drel_h, drel_w = np.zeros_like(rel_h), np.zeros_like(rel_w)
        np.add.at(drel_h, rows, np.einsum("bnyxY,bnyxd->yYd", by_row, qh, optimize=True))
        np.add.at(drel_w, columns, np.einsum("bnyxX,bnyxd->xXd", by_column, qh, optimize=True))
        grads = (_from_heads(t, form) for t in (dqh * scale, dkh, dvh))
        return (*grads, drel_h, drel_w)

    return _from_heads(out, form), backward
