"""The attention blocks as PyTorch modules, with the keys of the study's checkpoints.

Needs PyTorch.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class SE(nn.Module):
    """x + x * g."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 8, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 8, channels, bias=False),
            nn.Sigmoid(),
        )

    def gate(self, x):
        return self.fc(x.mean((2, 3)))[:, :, None, None]

    def forward(self, x):
        return x + x * self.gate(x)


class SEC(nn.Module):
    """x * g, by two 1x1 convolutions with bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 8, 1)
        self.conv2 = nn.Conv2d(channels // 8, channels, 1)

    def forward(self, x):
        pooled = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(pooled))))


class CA(nn.Module):
    """CBAM's channel gate."""

    def __init__(self, channels: int, pool_types=("avg", "max")):
        super().__init__()
        self.pool_types = pool_types
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, channels // 16),
            nn.ReLU(),
            nn.Linear(channels // 16, channels),
        )

    def pool(self, x, kind: str):
        flat = x.flatten(2)
        if kind == "avg":
            return flat.mean(2)
        if kind == "max":
            return flat.max(2).values
        return flat.norm(dim=2) if kind == "lp" else flat.logsumexp(2)

    def forward(self, x):
        total = sum(self.mlp(self.pool(x, kind)) for kind in self.pool_types)
        return x * torch.sigmoid(total)[:, :, None, None]


class _Spatial(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, m):
        return torch.sigmoid(self.bn(self.conv(m)))


class SA(nn.Module):
    """CBAM's spatial gate; max, then mean over the channels."""

    def __init__(self, channels: int = 0):
        super().__init__()
        self.spatial = _Spatial()

    def forward(self, x):
        maps = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        return x * self.spatial(maps)


class CBAM(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.ChannelGate = CA(channels)
        self.SpatialGate = SA()

    def forward(self, x):
        return self.SpatialGate(self.ChannelGate(x))


class NEW(SE):
    """a = SA(x); a + a * SE's gate of the original x."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.sg = SA()

    def forward(self, x):
        a = self.sg(x)
        return a + a * self.gate(x)


class NAB(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.sam = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())
        self.cam = nn.Sequential(nn.Conv2d(channels, channels, 7, stride=3), nn.Sigmoid())

    def forward(self, x):
        c = self.cam(x).flatten(2).max(2).values[:, :, None, None]
        return x * self.sam(x) * c


class AA(nn.Module):
    """Attention augmented convolution, form "paper" (Bello et al. 2019) or "original"."""

    def __init__(self, channels: int, height: int, width: int, form: str = "paper"):
        super().__init__()
        self.form, heads = form, 8
        self.dv = channels // 4 // heads * heads
        self.dk = max(self.dv, heads * 20)
        depth = self.dk // heads
        self.rel_encoding_h = nn.Parameter(torch.randn(2 * height - 1, depth))
        self.rel_encoding_w = nn.Parameter(torch.randn(2 * width - 1, depth))
        self.conv_out = nn.Conv2d(channels, channels - self.dv, 3, padding=1)
        self.kqv_conv = nn.Conv2d(channels, 2 * self.dk + self.dv, 1)
        self.attn_out = nn.Conv2d(self.dv, self.dv, 1)

    def heads(self, t):
        """(B, d, H, W) -> (B, 8, H W, d/8)."""
        b, d, h, w = t.shape
        if self.form == "original":
            return t.reshape(b, 8, h * w, d // 8)
        return t.reshape(b, 8, d // 8, h * w).transpose(2, 3)

    def forward(self, x):
        b, _, h, w = x.shape
        k, q, v = self.kqv_conv(x).split([self.dk, self.dk, self.dv], 1)
        k, q, v = self.heads(k), self.heads(q) * (self.dk / 8) ** -0.5, self.heads(v)
        y = torch.arange(h)
        table = self.rel_encoding_h[y[None, :] - y[:, None] + h - 1]  # (y, Y, d)
        rel = torch.einsum("bnyxd,yYd->bnyxY", q.reshape(b, 8, h, w, -1), table)
        y = torch.arange(w)
        table = self.rel_encoding_w[y[None, :] - y[:, None] + w - 1]
        rel_w = torch.einsum("bnyxd,xXd->bnyxX", q.reshape(b, 8, h, w, -1), table)
        rel = (rel[..., :, None] + rel_w[..., None, :]).reshape(b, 8, h * w, h * w)
        if self.form == "original":
            rel = rel.sum(1, keepdim=True)
        out = torch.softmax(q @ k.transpose(2, 3) + rel, -1) @ v
        if self.form != "original":
            out = out.transpose(2, 3)
        out = self.attn_out(out.reshape(b, self.dv, h, w))
        return torch.cat([self.conv_out(x), out], 1)


def make(name: str, channels: int, size: int | tuple[int, int]) -> nn.Module:
    """The named block for (N, channels, size, size), or of two sizes."""
    if name in ("AA", "AA_ORIGINAL"):
        sides = (size, size) if isinstance(size, int) else size
        return AA(channels, *sides, "paper" if name == "AA" else "original")
    if name in ("SE_SA", "SEC_SA"):
        return nn.Sequential((SE if name == "SE_SA" else SEC)(channels), SA())
    plain = {c.__name__: c for c in (SE, SEC, CA, SA, CBAM, NEW, NAB)}
    return plain[name](channels)
