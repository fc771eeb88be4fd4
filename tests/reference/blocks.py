"""NumPy float64 twins of the attention blocks, built of the twins of ops.py.

``y, backward, after = twin("NEW", x, state)``: ``state`` maps the keys of the checkpoints to
arrays; ``backward(dy)`` returns ``(dx, {key: gradient})``; ``after`` holds the running statistics
after a training pass (empty in eval mode). x is (N,C,H,W).
"""

from __future__ import annotations

import numpy as np

from . import ops
from .attention import attention, split_kqv

SA_MOMENTUM = 0.01  # only the spatial gate's batch norm; every other one has 0.1


def _sub(state: dict, prefix: str) -> dict:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _prefixed(prefix: str, values: dict) -> dict:
    return {prefix + k: v for k, v in values.items()}


def _chain(*parts):
    """Run (gradient keys, backward) steps from the last to the first: sequential layers."""

    def backward(dy):
        grads = {}
        for keys, back in reversed(parts):
            dy, *others = back(dy)
            grads.update(dict(zip(keys, others, strict=True)))
        return dy, grads

    return backward


# ---- gates ----------------------------------------------------------------------------------


def _se_gate(x, state):
    """(N,C,1,1) gate sigmoid(W2 relu(W1 GAP(x))), no biases."""
    n, c = x.shape[:2]
    pooled, b0 = ops.mean(x, (2, 3))
    hidden, b1 = ops.linear(pooled, state["fc.0.weight"])
    active, b2 = ops.relu(hidden)
    out, b3 = ops.linear(active, state["fc.2.weight"])
    gate, b4 = ops.sigmoid(out)

    def backward(dgate):
        inner = _chain(
            ((), b0),
            (("fc.0.weight",), lambda d: b1(d)[:2]),
            ((), b2),
            (("fc.2.weight",), lambda d: b3(d)[:2]),
            ((), b4),
        )
        return inner(dgate.reshape(n, c))

    return gate.reshape(n, c, 1, 1), backward


def _sec_gate(x, state):
    pooled, b0 = ops.mean(x, (2, 3), keepdim=True)
    hidden, b1 = ops.conv2d(pooled, state["conv1.weight"], state["conv1.bias"])
    active, b2 = ops.relu(hidden)
    out, b3 = ops.conv2d(active, state["conv2.weight"], state["conv2.bias"])
    gate, b4 = ops.sigmoid(out)
    names = ("conv1.weight", "conv1.bias"), ("conv2.weight", "conv2.bias")
    return gate, _chain(((), b0), (names[0], b1), ((), b2), (names[1], b3), ((), b4))


def _mlp(pooled, state):
    """The channel gate's shared two-layer perceptron: (N,C) -> C/16 -> (N,C)."""
    hidden, b1 = ops.linear(pooled, state["mlp.1.weight"], state["mlp.1.bias"])
    active, b2 = ops.relu(hidden)
    out, b3 = ops.linear(active, state["mlp.3.weight"], state["mlp.3.bias"])
    names = ("mlp.1.weight", "mlp.1.bias"), ("mlp.3.weight", "mlp.3.bias")
    return out, _chain((names[0], b1), ((), b2), (names[1], b3))


def _pool_lp(x):
    squares, b0 = ops.pow(x, 2.0)
    total, b1 = ops.sum(squares, (2, 3))
    root, b2 = ops.sqrt(total)
    return root, lambda d: b0(b1(b2(d)[0])[0])[:1]


def _pool_lse(x):
    """log sum exp over the positions, by way of the largest so that nothing overflows."""
    top = x.max(axis=(2, 3), keepdims=True)
    value = np.log(np.exp(x - top).sum(axis=(2, 3))) + top[:, :, 0, 0]
    share = np.exp(x - value[:, :, None, None])
    return value, lambda d: (d[:, :, None, None] * share,)


POOLS = {
    "avg": lambda x: ops.mean(x, (2, 3)),
    "max": lambda x: ops.amax(x, (2, 3)),
    "lp": _pool_lp,
    "lse": _pool_lse,
}


def _channel_gate(x, state, pool_types):
    """sigmoid of the sum of one MLP's outputs over several ways to pool, as (N,C,1,1)."""
    n, c = x.shape[:2]
    branches = []
    total = np.zeros((n, c))
    for pool_type in pool_types:
        pooled, back_pool = POOLS[pool_type](x)
        out, back_mlp = _mlp(pooled, state)
        branches.append((back_pool, back_mlp))
        total = total + out
    gate, back_gate = ops.sigmoid(total)

    def backward(dgate):
        (dtotal,) = back_gate(dgate.reshape(n, c))
        dx, grads = np.zeros_like(x), {}
        for back_pool, back_mlp in branches:
            dpooled, part = back_mlp(dtotal)
            dx += back_pool(dpooled)[0]
            for key, value in part.items():
                grads[key] = grads.get(key, 0.0) + value
        return dx, grads

    return gate.reshape(n, c, 1, 1), backward


def _spatial_gate(x, state, training):
    """(N,1,H,W) gate from the maximum and the mean over the channels, in that order."""
    top, back_top = ops.amax(x, 1, keepdim=True)
    mean, back_mean = ops.mean(x, 1, keepdim=True)
    maps, back_cat = ops.cat([top, mean], 1)
    conv, b0 = ops.conv2d(maps, state["spatial.conv.weight"], state["spatial.conv.bias"], 1, 3)
    bn = _sub(state, "spatial.bn.")
    stats = bn["running_mean"], bn["running_var"]
    normed, b1 = ops.batch_norm(conv, *stats, bn["weight"], bn["bias"], training)
    gate, b2 = ops.sigmoid(normed)
    after = {}
    if training:
        mean_after, var_after = ops.batch_norm_running(conv, *stats, SA_MOMENTUM)
        after["spatial.bn.running_mean"] = mean_after
        after["spatial.bn.running_var"] = var_after
    inner = _chain(
        (("spatial.conv.weight", "spatial.conv.bias"), b0),
        (("spatial.bn.weight", "spatial.bn.bias"), b1),
        ((), b2),
    )

    def backward(dgate):
        dmaps, grads = inner(dgate)
        dtop, dmean = back_cat(dmaps)
        return back_top(dtop)[0] + back_mean(dmean)[0], grads

    return gate, backward, after


def _times_gate(x, gate, back_gate, keep_input):
    """x * gate, or x + x * gate: the output and its backward."""

    def backward(dy):
        dgate = ops.unbroadcast(dy * x, gate.shape)
        dx, grads = back_gate(dgate)
        return dx + dy * (gate + keep_input), grads

    return x * (gate + keep_input), backward


# ---- blocks ---------------------------------------------------------------------------------


def se(x, state, training=True):
    return (*_times_gate(x, *_se_gate(x, state), keep_input=1), {})


def sec(x, state, training=True):
    return (*_times_gate(x, *_sec_gate(x, state), keep_input=0), {})


def ca(x, state, training=True, pool_types=("avg", "max")):
    return (*_times_gate(x, *_channel_gate(x, state, pool_types), keep_input=0), {})


def sa(x, state, training=True):
    gate, back_gate, after = _spatial_gate(x, state, training)
    return (*_times_gate(x, gate, back_gate, keep_input=0), after)


def _pair_of(first, first_prefix, second, second_prefix):
    """One block after the other, each with its own prefix in the state."""

    def block(x, state, training=True):
        middle, back1, after1 = first(x, _sub(state, first_prefix), training)
        y, back2, after2 = second(middle, _sub(state, second_prefix), training)

        def backward(dy):
            dmiddle, grads2 = back2(dy)
            dx, grads1 = back1(dmiddle)
            return dx, _prefixed(first_prefix, grads1) | _prefixed(second_prefix, grads2)

        return y, backward, _prefixed(first_prefix, after1) | _prefixed(second_prefix, after2)

    return block


def new(x, state, training=True):
    """a = SA(x); out = a + a * g, with SE's gate g of the *original* x."""
    a, back_a, after = sa(x, _sub(state, "sg."), training)
    gate, back_gate = _se_gate(x, state)

    def backward(dy):
        dx_gate, grads = back_gate(ops.unbroadcast(dy * a, gate.shape))
        dx_a, grads_a = back_a(dy * (1 + gate))
        return dx_gate + dx_a, grads | _prefixed("sg.", grads_a)

    return a * (1 + gate), backward, _prefixed("sg.", after)


def nab(x, state, training=True):
    """x * p * c: a 1x1 convolution's gate over positions times a pooled 7x7 one's over channels."""
    if min(x.shape[2:]) < 7:
        raise ValueError(f"NAB needs at least 7 x 7 pixels, got {x.shape[2]} x {x.shape[3]}")
    sam, b0 = ops.conv2d(x, state["sam.0.weight"], state["sam.0.bias"])
    p, b1 = ops.sigmoid(sam)
    cam, b2 = ops.conv2d(x, state["cam.0.weight"], state["cam.0.bias"], stride=3)
    squashed, b3 = ops.sigmoid(cam)
    c, b4 = ops.amax(squashed, (2, 3), keepdim=True)

    def backward(dy):
        dx_p, *sam_grads = b0(*b1(ops.unbroadcast(dy * x * c, p.shape)))
        dx_c, *cam_grads = b2(*b3(*b4(ops.unbroadcast(dy * x * p, c.shape))))
        keys = ("sam.0.weight", "sam.0.bias", "cam.0.weight", "cam.0.bias")
        grads = dict(zip(keys, sam_grads + cam_grads, strict=True))
        return dy * p * c + dx_p + dx_c, grads

    return x * p * c, backward, {}


def aa(x, state, training=True, form="paper"):
    """Attention augmented convolution: conv3x3 of x beside self-attention over its positions."""
    conv, b0 = ops.conv2d(x, state["conv_out.weight"], state["conv_out.bias"], padding=1)
    kqv, b1 = ops.conv2d(x, state["kqv_conv.weight"], state["kqv_conv.bias"])
    dv = state["attn_out.weight"].shape[0]
    (k, q, v), back_split = split_kqv(kqv, dv)
    rel_h, rel_w = state["rel_encoding_h"], state["rel_encoding_w"]
    heads, b2 = attention(q, k, v, rel_h, rel_w, form)
    out, b3 = ops.conv2d(heads, state["attn_out.weight"], state["attn_out.bias"])
    y, back_cat = ops.cat([conv, out], 1)

    def backward(dy):
        dconv, dout = back_cat(dy)
        dx, *conv_grads = b0(dconv)
        dheads, *out_grads = b3(dout)
        dq, dk, dv_, drel_h, drel_w = b2(dheads)
        dx_kqv, *kqv_grads = b1(back_split(dk, dq, dv_))
        grads = {"rel_encoding_h": drel_h, "rel_encoding_w": drel_w}
        for key, pair in (
            ("conv_out", conv_grads),
            ("kqv_conv", kqv_grads),
            ("attn_out", out_grads),
        ):
            grads[f"{key}.weight"], grads[f"{key}.bias"] = pair
        return dx + dx_kqv, grads

    return y, backward, {}


BLOCKS = {
    "SE": se,
    "SEC": sec,
    "CA": ca,
    "SA": sa,
    "AA": aa,
    "SE_SA": _pair_of(se, "0.", sa, "1."),
    "SEC_SA": _pair_of(sec, "0.", sa, "1."),
    "CBAM": _pair_of(ca, "ChannelGate.", sa, "SpatialGate."),
    "NEW": new,
    "NAB": nab,
}


def twin(name: str, x, state: dict, training: bool = True, **options):
    """The named block's twin; options: ``pool_types`` of CA, ``form`` of AA."""
    state = {k: np.asarray(v, np.float64) for k, v in state.items()}
    return BLOCKS[name](np.asarray(x, np.float64), state, training, **options)
