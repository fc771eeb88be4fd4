"""AA: attention augmented convolution, in the paper's form and in the study's."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..autograd import is_grad_enabled
from ..tensor import Tensor
from . import init
from .attention import AttentionBlock
from .layers import Conv2d
from .parameter import Parameter

FORMS = ("paper", "original")


class AA(AttentionBlock):
    """Attention augmented convolution: concat(conv3x3(x), conv1x1(heads' outputs)).

    With heads N_h = 8: dv = floor(C/4 / 8) * 8 channels come from self-attention over all
    positions and C - dv from a 3x3 convolution; queries and keys have
    dk = max(floor(C/4 / 8) * 8, 8 * 20) channels. Logits are q.k plus relative position terms
    for rows and columns; q is scaled by (dk/8)^-0.5. A whole attention map is never stored.

    Args:
        channels: C, at least 32.
        height, width: of the image at this place; they size the relative position tables.
        heads: default 8.
        form: "paper" (default; heads split along channels, relative terms per head) or
            "original", the study's code: q, k, v reinterpreted as (N, 8, H, W, d/8), relative
            terms summed over heads. Needed for the study's checkpoints.

    Parameters: ``rel_encoding_h`` (2H-1, dk/8), ``rel_encoding_w`` (2W-1, dk/8), ``conv_out.*``,
    ``kqv_conv.*`` (k, q, v in that order), ``attn_out.*``.
    Paper: Bello et al. 2019, "Attention Augmented Convolutional Networks".

    Raises:
        ValueError: without height and width, for too few channels, an unknown form, or an input
            of another size.
    """

    hides_relu = False

    def __init__(
        self,
        channels: int,
        height: int | None = None,
        width: int | None = None,
        heads: int = 8,
        form: str = "paper",
    ) -> None:
        super().__init__()
        if height is None or width is None:
            raise ValueError("AA needs height and width: its position tables depend on them")
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}: got {form!r}")
        if channels < 4 * heads:
            raise ValueError(f"AA needs at least {4 * heads} channels, got {channels}")
        self.channels, self.height, self.width = channels, height, width
        self.heads, self.form = heads, form
        self.dv = channels // 4 // heads * heads
        self.dk = max(self.dv, heads * 20)
        head = self.dk // heads
        self.rel_encoding_h = Parameter(np.zeros((2 * height - 1, head), np.float32))
        self.rel_encoding_w = Parameter(np.zeros((2 * width - 1, head), np.float32))
        init.normal_(self.rel_encoding_h)
        init.normal_(self.rel_encoding_w)
        self.conv_out = Conv2d(channels, channels - self.dv, 3, padding=1)
        self.kqv_conv = Conv2d(channels, 2 * self.dk + self.dv, 1)
        self.attn_out = Conv2d(self.dv, self.dv, 1)

    def _check(self, x: Tensor) -> None:
        expected = (self.channels, self.height, self.width)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"this AA block was made for inputs (N, {', '.join(map(str, expected))}), got "
                f"{tuple(x.shape)}: its position tables fit one image size (image_size of the "
                "model)"
            )

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        self._check(x)
        conv, kqv, out = self.conv_out, self.kqv_conv, self.attn_out
        y = F.attention_augmented(
            x, conv.weight, conv.bias, kqv.weight, kqv.bias, out.weight, out.bias,
            self.rel_encoding_h, self.rel_encoding_w, self.heads, self.form == "original",
        )  # fmt: skip
        return F.relu(y) if relu else y

    def reference(self, x: Tensor) -> Tensor:
        """The block composed of plain operations. Stores whole attention maps: of one image at a
        time, or of all where gradients are recorded: small inputs then."""
        self._check(x)
        kqv = self.kqv_conv(x)
        if is_grad_enabled() or x.shape[0] < 2:
            heads = self._attend(kqv)
        else:
            heads = F.cat([self._attend(kqv[i : i + 1]) for i in range(x.shape[0])])
        return F.cat([self.conv_out(x), self.attn_out(heads)], 1)

    def _attend(self, kqv: Tensor) -> Tensor:
        """(N, 2 dk + dv, H, W) -> the heads' outputs, (N, dv, H, W)."""
        k, q, v = F.split(kqv, (self.dk, self.dk, self.dv), 1)
        scale = (self.dk // self.heads) ** -0.5
        k, q, v = self._heads(k), self._heads(q) * scale, self._heads(v)
        logits = F.matmul(q, F.permute(k, (0, 1, 3, 2))) + self._position_logits(q)
        heads = F.matmul(F.softmax(logits, -1), v)  # (N, heads, HW, dv/heads)
        if self.form == "paper":
            heads = F.permute(heads, (0, 1, 3, 2))
        return F.reshape(heads, (kqv.shape[0], self.dv, self.height, self.width))

    def _heads(self, part: Tensor) -> Tensor:
        """(N, d, H, W) -> (N, heads, HW, d/heads), as the form has it."""
        n, d = part.shape[:2]
        places = self.height * self.width
        if self.form == "original":
            return F.reshape(part, (n, self.heads, places, d // self.heads))
        split = F.reshape(part, (n, self.heads, d // self.heads, places))
        return F.permute(split, (0, 1, 3, 2))

    def _position_logits(self, q: Tensor) -> Tensor:
        """Relative terms of scaled queries (N, heads, HW, d): (N, heads or 1, HW, HW)."""
        n, heads, places, d = q.shape
        height, width = self.height, self.width
        q = F.reshape(q, (n * heads, height, width, d))
        # Columns: [x] (N heads y, d) times (d, X); rows: [y] (N heads x, d) times (d, Y).
        columns = F.matmul(
            F.reshape(F.permute(q, (2, 0, 1, 3)), (width, n * heads * height, d)),
            _relative(self.rel_encoding_w, width),
        )
        rows = F.matmul(
            F.reshape(F.permute(q, (1, 0, 2, 3)), (height, n * heads * width, d)),
            _relative(self.rel_encoding_h, height),
        )
        columns = F.permute(F.reshape(columns, (width, n * heads, height, width)), (1, 2, 0, 3))
        rows = F.permute(F.reshape(rows, (height, n * heads, width, height)), (1, 0, 2, 3))
        # Row and column terms (N heads, HW, Y or X), spread over all keys (Y, X).
        columns = F.reshape(columns, (n * heads, places, 1, width))
        rows = F.reshape(rows, (n * heads, places, height, 1))
        terms = F.reshape(rows + columns, (n, heads, places, places))
        return terms if self.form == "paper" else F.sum(terms, 1, keepdim=True)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        images, _, height, width = input_shape
        places = height * width
        weights = sum(m.weight.numel() for m in (self.conv_out, self.kqv_conv, self.attn_out))
        attention = places * (self.dk + self.dv) + (height + width) * self.dk
        return images * places * (weights + attention)

    def extra_repr(self) -> str:
        text = f"{self.channels}, height={self.height}, width={self.width}, heads={self.heads}"
        return text + ("" if self.form == "paper" else f", form={self.form!r}")


def _relative(table: Tensor, length: int) -> Tensor:
    """(2L-1, d) table -> (L, d, L): [query, :, key] is row key - query + L - 1."""
    rows = F.cat([table[length - 1 - i : 2 * length - 1 - i] for i in range(length)])
    return F.permute(F.reshape(rows, (length, length, table.shape[1])), (0, 2, 1))
