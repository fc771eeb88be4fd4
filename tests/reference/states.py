"""Random states for the blocks, with the keys and shapes of the checkpoints."""

from __future__ import annotations

import numpy as np

from .attention import widths


def _dense(key, shape, rng, bias=True):
    fan_in = int(np.prod(shape[1:]))
    values = {f"{key}.weight": rng.standard_normal(shape) / np.sqrt(fan_in)}
    if bias:
        values[f"{key}.bias"] = rng.standard_normal(shape[0]) * 0.3
    return values


def _spatial(prefix, rng):
    bn = f"{prefix}spatial.bn."
    return _dense(f"{prefix}spatial.conv", (1, 2, 7, 7), rng) | {
        f"{bn}weight": rng.uniform(0.5, 1.5, 1),
        f"{bn}bias": rng.standard_normal(1),
        f"{bn}running_mean": rng.standard_normal(1),
        f"{bn}running_var": rng.uniform(0.5, 2.0, 1),
        f"{bn}num_batches_tracked": np.array(3),
    }


def _se(prefix, c, rng):
    values = _dense(f"{prefix}fc.0", (c // 8, c), rng, bias=False)
    return values | _dense(f"{prefix}fc.2", (c, c // 8), rng, bias=False)


def _sec(prefix, c, rng):
    values = _dense(f"{prefix}conv1", (c // 8, c, 1, 1), rng)
    return values | _dense(f"{prefix}conv2", (c, c // 8, 1, 1), rng)


def _ca(prefix, c, rng):
    values = _dense(f"{prefix}mlp.1", (c // 16, c), rng)
    return values | _dense(f"{prefix}mlp.3", (c, c // 16), rng)


def _nab(c, rng):
    return _dense("sam.0", (1, c, 1, 1), rng) | _dense("cam.0", (c, c, 7, 7), rng)


def _aa(c, height, width, rng):
    dk, dv = widths(c)
    return {
        "rel_encoding_h": rng.standard_normal((2 * height - 1, dk // 8)) * 0.5,
        "rel_encoding_w": rng.standard_normal((2 * width - 1, dk // 8)) * 0.5,
        **_dense("conv_out", (c - dv, c, 3, 3), rng),
        **_dense("kqv_conv", (2 * dk + dv, c, 1, 1), rng),
        **_dense("attn_out", (dv, dv, 1, 1), rng),
    }


def draw_state(name: str, c: int, height: int, width: int, rng) -> dict[str, np.ndarray]:
    """A float64 state for the named block on (N, c, height, width), batch norms included."""
    makers = {
        "SE": lambda: _se("", c, rng),
        "SEC": lambda: _sec("", c, rng),
        "CA": lambda: _ca("", c, rng),
        "SA": lambda: _spatial("", rng),
        "AA": lambda: _aa(c, height, width, rng),
        "SE_SA": lambda: _se("0.", c, rng) | _spatial("1.", rng),
        "SEC_SA": lambda: _sec("0.", c, rng) | _spatial("1.", rng),
        "CBAM": lambda: _ca("ChannelGate.", c, rng) | _spatial("SpatialGate.", rng),
        "NEW": lambda: _se("", c, rng) | _spatial("sg.", rng),
        "NAB": lambda: _nab(c, rng),
    }
    return makers[name]()
