"""Random attention blocks of one's own, written once for attnnet's modules and PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass

POOLS = {
    "mean of positions": lambda x: x.mean((2, 3), keepdim=True),
    "largest of positions": lambda x: x.amax((2, 3), keepdim=True),
    "mean of channels": lambda x: x.mean(1, keepdim=True),
    "largest of channels": lambda x: x.amax(1, keepdim=True),
    "nothing": lambda x: x,
}
JOINS = {
    "times": lambda x, gate: x * gate,
    "plus": lambda x, gate: x + gate,
    "residual": lambda x, gate: x + x * gate,
    "less": lambda x, gate: x - gate * gate,
}


@dataclass(frozen=True)
class Program:
    """What the block is made of: a pool, two convolutions, what stands between and behind."""

    pool: str
    kernel: tuple[int, int]
    hidden: int  # divides the channels; their number where the pool leaves one
    norm: bool
    middle: str
    gate: str
    join: str


def draw_program(rng) -> Program:
    pool = str(rng.choice(list(POOLS)))
    single = pool.endswith("positions")  # a batch norm over as many values as images: ill
    return Program(
        pool,
        (1, 1) if single else tuple(int(k) for k in rng.choice([1, 3, 5, 7], 2)),
        int(rng.choice([1, 2, 4])),
        bool(rng.random() < 0.5) and not single,
        str(rng.choice(["Tanh", "Sigmoid"])),  # a ReLU would have kinks where rounding decides
        str(rng.choice(["Sigmoid", "Tanh", "Softmax"])),
        str(rng.choice(list(JOINS))),
    )


def block_class(nn, program: Program):
    """A Module class of ``nn`` (attnnet's or PyTorch's) that is made with ``channels``."""
    p = program
    one = p.pool.endswith("channels")

    class Own(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            width = 1 if one else channels
            hidden = p.hidden if one else max(1, channels // p.hidden)
            padding = (p.kernel[0] // 2, p.kernel[1] // 2)
            layers = [nn.Conv2d(width, hidden, p.kernel, padding=padding, bias=not p.norm)]
            if p.norm:
                layers.append(nn.BatchNorm2d(hidden))
            layers += [getattr(nn, p.middle)(), nn.Conv2d(hidden, width, 1)]
            layers.append(nn.Softmax(dim=1) if p.gate == "Softmax" else getattr(nn, p.gate)())
            self.body = nn.Sequential(*layers)

        def forward(self, x):
            return JOINS[p.join](x, self.body(POOLS[p.pool](x)))

    return Own
