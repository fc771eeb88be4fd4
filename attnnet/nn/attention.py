"""The study's attention blocks: (N, C, H, W) -> (N, C, H, W).

Each block is one fused C operation, forward and backward (SE_SA, SEC_SA and CBAM are two). Beside
``forward`` stand ``reference``, the same block composed of plain operations, which also runs where
a hook inside the block wants to see a value, and ``gates``, what the block multiplies by. Names of
parameters are those of the study's checkpoints. AA, the largest, is in ``attention_augmented.py``.

s() is the sigmoid, GAP and GMP are the means and maxima over all positions of a channel.
"""

from __future__ import annotations

from typing import Any, cast

from .. import functional as F
from ..autograd import is_relu_guided
from ..tensor import Tensor
from . import hooks
from .containers import Sequential
from .layers import BatchNorm2d, Conv2d, Flatten, Linear, ReLU, Sigmoid
from .module import Module
from .pooling import AdaptiveMaxPool2d


class AttentionBlock(Module):
    """Base of the blocks: chooses between the fused operation and the composed one.

    A subclass that says ``forward``, ``reference`` or ``gates`` anew, but not ``fused``, is
    computed by what it says. Of the layers inside, the fused operation reads the weights alone: a
    block with another layer in the place of one of them is a block of its own.
    """

    is_one_operation = True  # False for chains of other blocks
    is_fused = True  # whether fused() computes what the other methods say
    hides_relu = True  # whether the fused operation may hold a ReLU inside

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not vars(cls).keys().isdisjoint(("fused", "forward", "reference", "gates")):
            cls.is_fused = "fused" in vars(cls)

    def forward(self, x: Tensor) -> Tensor:
        hooked = hooks.any_alive() and any(m._hooked for m in self.modules() if m is not self)
        if hooked or not self.is_fused or (self.hides_relu and is_relu_guided()):
            return self.reference(x)
        return self.fused(x)

    def then_relu(self, x: Tensor, relu: Module) -> Tensor:
        """relu(block(x)), with the ReLU in the block's last pass where nobody watches between.

        Args:
            x: (N, C, H, W). relu: the module that follows, a ReLU or what took its place.
        """
        seen = hooks.any_alive() or is_relu_guided()
        if seen or not self.is_fused or type(relu) is not ReLU:
            return relu(self(x))
        return self.fused(x, relu=True)

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        """The block as fused C operations, then a ReLU if asked for."""
        raise TypeError(f"{type(self).__name__} has no fused() of its own")

    def reference(self, x: Tensor) -> Tensor:
        """The block composed of plain operations."""
        raise TypeError(f"{type(self).__name__} has no reference() of its own")

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """What the block multiplies by, for a look inside (in evaluation mode).

        Returns:
            "channel": (N, C, 1, 1) and "spatial": (N, 1, H, W), those that the block has.
        """
        return {}

    def observed(self, x: Tensor) -> Tensor:
        """``reference`` as part of a larger one: with this block's own hooks."""
        y = self.reference(x)
        return hooks.run(self, (x,), y) if self._hooked else y


def reduced(block: str, channels: int, reduction: int) -> int:
    """Channels of a bottleneck.

    Raises:
        ValueError: where the block has fewer channels than its reduction.
    """
    if channels < reduction:
        raise ValueError(f"{block} needs at least {reduction} channels, got {channels}")
    return channels // reduction


class SE(AttentionBlock):
    """Squeeze and excitation, residual: out = x + x*g, g = s(W2 relu(W1 GAP(x))), no biases.

    Args:
        channels: C. reduction: W1 maps C to C // reduction, default 8.

    Parameters: ``fc.0.weight`` (C/8, C), ``fc.2.weight`` (C, C/8).
    Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks"; the residual form is the study's.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.fc = excitation(channels, reduced("SE", channels, reduction))

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        return F.se(x, self.fc[0].weight, self.fc[2].weight, relu=relu)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        return {"channel": per_channel(self.fc(F.mean(x, (2, 3))))}

    def reference(self, x: Tensor) -> Tensor:
        return x + x * self.gates(x)["channel"]

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return input_shape[0] * (self.fc[0].weight.numel() + self.fc[2].weight.numel())


def excitation(channels: int, hidden: int) -> Sequential:
    """The two linear maps of SE's gate, with its ReLU and sigmoid."""
    return Sequential(
        Linear(channels, hidden, bias=False),
        ReLU(),
        Linear(hidden, channels, bias=False),
        Sigmoid(),
    )


def per_channel(gate: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, 1)."""
    return F.reshape(gate, (*gate.shape, 1, 1))


class SEC(AttentionBlock):
    """Squeeze and excitation by 1x1 convolutions with bias: out = x*g.

    Args:
        channels: C. reduction: default 8.

    Parameters: ``conv1.*`` (C/8, C, 1, 1), ``conv2.*`` (C, C/8, 1, 1).
    Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks".
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = reduced("SEC", channels, reduction)
        self.conv1 = Conv2d(channels, hidden, 1)
        self.conv2 = Conv2d(hidden, channels, 1)

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        a, b = self.conv1, self.conv2
        return F.sec(x, a.weight, cast(Tensor, a.bias), b.weight, cast(Tensor, b.bias), relu=relu)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        hidden = F.relu(self.conv1(F.mean(x, (2, 3), keepdim=True)))
        return {"channel": F.sigmoid(self.conv2(hidden))}

    def reference(self, x: Tensor) -> Tensor:
        return x * self.gates(x)["channel"]

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return input_shape[0] * (self.conv1.weight.numel() + self.conv2.weight.numel())


POOL_TYPES = ("avg", "max", "lp", "lse")


class CA(AttentionBlock):
    """Channel attention: out = x*g, g = s(MLP(GAP x) + MLP(GMP x)), one MLP C -> C/16 -> C.

    Args:
        channels: C. reduction: default 16.
        pool_types: what enters the MLP, each added before the sigmoid; default ("avg", "max").
            "lp" is sqrt(sum x^2) and "lse" is log sum exp(x), sums over the positions.

    Parameters: ``mlp.1.*`` (C/16, C), ``mlp.3.*`` (C, C/16), with biases.
    Paper: Woo et al. 2018, "CBAM: Convolutional Block Attention Module".

    Raises:
        ValueError: for an unknown or missing pool type, or too few channels.
    """

    def __init__(
        self, channels: int, reduction: int = 16, pool_types: tuple[str, ...] = ("avg", "max")
    ) -> None:
        super().__init__()
        hidden = reduced("CA", channels, reduction)
        self.pool_types = tuple(pool_types)
        if not self.pool_types or any(kind not in POOL_TYPES for kind in self.pool_types):
            raise ValueError(
                f"pool_types must be one or more of {', '.join(POOL_TYPES)}: got {pool_types!r}"
            )
        self.mlp = Sequential(Flatten(), Linear(channels, hidden), ReLU(), Linear(hidden, channels))

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        a, b = self.mlp[1], self.mlp[3]
        return F.ca(x, a.weight, a.bias, b.weight, b.bias, self.pool_types, relu=relu)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        total: Tensor | None = None
        for kind in self.pool_types:
            part = self.mlp(_pooled(x, kind))
            total = part if total is None else total + part
        return {"channel": per_channel(F.sigmoid(cast(Tensor, total)))}

    def reference(self, x: Tensor) -> Tensor:
        return x * self.gates(x)["channel"]

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        weights = self.mlp[1].weight.numel() + self.mlp[3].weight.numel()
        return input_shape[0] * len(self.pool_types) * weights

    def extra_repr(self) -> str:
        return "" if self.pool_types == ("avg", "max") else f"pool_types={self.pool_types}"


def _pooled(x: Tensor, kind: str) -> Tensor:
    """(N, C, H, W) -> (N, C), by the pool of that name."""
    if kind == "avg":
        return F.mean(x, (2, 3))
    if kind == "max":
        return F.flatten(F.adaptive_max_pool2d(x, 1))
    if kind == "lp":
        return F.sqrt(F.sum(x * x, (2, 3)))
    top = F.amax(x.detach(), (2, 3), keepdim=True)  # any constant does; this one cannot overflow
    return F.log(F.sum(F.exp(x - top), (2, 3))) + F.flatten(top)


class _SpatialConv(Module):
    """Convolution 7x7, 2 -> 1 with bias, and its batch norm (momentum 0.01)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2d(2, 1, 7, padding=3)
        self.bn = BatchNorm2d(1, eps=1e-5, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    def arguments(self) -> tuple[Any, ...]:
        """What the fused operations take of this; counts the batch, as batch norm does."""
        conv, bn = self.conv, self.bn
        training, momentum = bn.begin()
        return (
            conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.weight, bn.bias,
            training, momentum, bn.eps,
        )  # fmt: skip


class SA(AttentionBlock):
    """Spatial attention: out = x*g, g = s(BN(conv7x7([max, mean] over channels))).

    Args:
        channels: accepted for uniformity; the block does not depend on it.

    Parameters: ``spatial.conv.*`` (1, 2, 7, 7), ``spatial.bn.*``, whose momentum is 0.01.
    Paper: Woo et al. 2018, "CBAM: Convolutional Block Attention Module".
    """

    def __init__(self, channels: int | None = None) -> None:
        super().__init__()
        self.spatial = _SpatialConv()

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        return F.sa(x, *self.spatial.arguments(), relu=relu)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        summary = F.cat([F.amax(x, 1, keepdim=True), F.mean(x, 1, keepdim=True)], 1)
        return {"spatial": F.sigmoid(self.spatial(summary))}

    def reference(self, x: Tensor) -> Tensor:
        return x * self.gates(x)["spatial"]

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return input_shape[0] * input_shape[2] * input_shape[3] * self.spatial.conv.weight.numel()


class NEW(AttentionBlock):
    """The study's own block: a = SA(x), g = SE's gate of the original x, out = a + a*g.

    Args:
        channels: C. reduction: of the channel gate, default 8.

    Parameters: ``fc.0.weight``, ``fc.2.weight`` as in SE, ``sg.spatial.*`` as in SA.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.fc = excitation(channels, reduced("NEW", channels, reduction))
        self.sg = SA(channels)

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        gate = self.fc[0].weight, self.fc[2].weight
        return F.new_block(x, *gate, *self.sg.spatial.arguments(), relu=relu)

    def _channel_gate(self, x: Tensor) -> Tensor:
        return per_channel(self.fc(F.mean(x, (2, 3))))

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        return {"channel": self._channel_gate(x), **self.sg.gates(x)}

    def reference(self, x: Tensor) -> Tensor:
        a = self.sg.observed(x)
        return a + a * self._channel_gate(x)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        channel = input_shape[0] * (self.fc[0].weight.numel() + self.fc[2].weight.numel())
        return channel + self.sg.multiply_adds(input_shape, output_shape)


class NAB(AttentionBlock):
    """out = x*p*c, p = s(conv1x1(x)) C -> 1, c = GMP of s(conv7x7(x)) C -> C, stride 3, unpadded.

    Args:
        channels: C.
        height, width: of the image at this place, where known: at least 7 each.

    Parameters: ``sam.0.*`` (1, C, 1, 1), ``cam.0.*`` (C, C, 7, 7), with biases.

    Raises:
        ValueError: for images below 7 x 7, when the block is made or called.
    """

    least_size = 7

    def __init__(self, channels: int, height: int | None = None, width: int | None = None) -> None:
        super().__init__()
        self._check(height, width)
        self.sam = Sequential(Conv2d(channels, 1, 1), Sigmoid())
        self.cam = Sequential(
            Conv2d(channels, channels, 7, stride=3), Sigmoid(), AdaptiveMaxPool2d(1)
        )

    def _check(self, height: int | None, width: int | None) -> None:
        if any(side is not None and side < self.least_size for side in (height, width)):
            raise ValueError(
                f"NAB needs images of at least {self.least_size} x {self.least_size} pixels where "
                f"it stands (its 7 x 7 convolution has no padding), got {height} x {width}"
            )

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        self._check(*x.shape[2:])
        sam, cam = self.sam[0], self.cam[0]
        return F.nab(x, sam.weight, sam.bias, cam.weight, cam.bias, relu=relu)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        self._check(*x.shape[2:])
        return {"spatial": self.sam(x), "channel": self.cam(x)}

    def reference(self, x: Tensor) -> Tensor:
        gates = self.gates(x)
        return x * gates["spatial"] * gates["channel"]

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        images, channels, height, width = input_shape
        windows = ((height - 7) // 3 + 1) * ((width - 7) // 3 + 1)
        return images * (height * width * channels + windows * self.cam[0].weight.numel())


class _Chain(AttentionBlock):
    """A channel block, then a spatial block on its output."""

    is_one_operation = False

    def __init__(self, **parts: AttentionBlock) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_fused:
            return self.reference(x)
        for part in self._modules.values():
            x = part(x)
        return x

    def fused(self, x: Tensor, relu: bool = False) -> Tensor:
        channel, spatial = self._modules.values()
        return spatial.fused(channel.fused(x), relu)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        channel, spatial = self.children()
        return {**channel.gates(x), **spatial.gates(channel.reference(x))}

    def reference(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part.observed(x)
        return x


class SE_SA(_Chain):
    """SE, then SA on its output.

    Args:
        channels: C.

    Parameters under ``0.*`` and ``1.*``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(**{"0": SE(channels), "1": SA(channels)})


class SEC_SA(_Chain):
    """SEC, then SA on its output.

    Args:
        channels: C.

    Parameters under ``0.*`` and ``1.*``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(**{"0": SEC(channels), "1": SA(channels)})


class CBAM(_Chain):
    """CA, then SA on its output.

    Args:
        channels: C. reduction, pool_types: of CA.

    Parameters under ``ChannelGate.*`` and ``SpatialGate.*``.
    Paper: Woo et al. 2018, "CBAM: Convolutional Block Attention Module".
    """

    def __init__(
        self, channels: int, reduction: int = 16, pool_types: tuple[str, ...] = ("avg", "max")
    ) -> None:
        super().__init__(ChannelGate=CA(channels, reduction, pool_types), SpatialGate=SA(channels))
