"""Tables of a module's layers: output shapes, parameters, multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ..markup import table
from ..tensor import Tensor
from .containers import Sequential
from .modes import evaluating

if TYPE_CHECKING:
    from .hooks import HookHandle
    from .module import Module


@dataclass(frozen=True)
class SummaryRow:
    """One layer: its dotted name, kind, output shape (with a batch of 1), parameters, and the
    multiply-adds of one image."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """What ``Module.summary()`` returns; prints as a table, shows as HTML in a notebook."""

    title: str
    input_shape: tuple[int, ...]
    rows: list[SummaryRow]
    total_parameters: int
    trainable_parameters: int
    total_multiply_adds: int

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.name,
                row.kind,
                " x ".join(map(str, row.output_shape)),
                f"{row.parameters:,}",
                f"{row.multiply_adds:,}",
            )
            for row in self.rows
        ]

    def _totals(self) -> list[str]:
        frozen = self.total_parameters - self.trainable_parameters
        return [
            f"input: {' x '.join(map(str, self.input_shape))}",
            f"parameters: {self.total_parameters:,}" + (f" ({frozen:,} frozen)" if frozen else ""),
            f"multiply-adds: {self.total_multiply_adds:,} an image",
        ]

    def __str__(self) -> str:
        rows = [_HEADER, *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([self.title, rule, lines[0], rule, *lines[1:], rule, *self._totals()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        totals = "<br>".join(escape(line) for line in self._totals())
        return f"<p><b>{escape(self.title)}</b><br>{totals}</p>{table(_HEADER, self._cells())}"


_HEADER = ("layer", "kind", "output", "parameters", "multiply-adds")


def summarise(module: Module, input_shape: tuple[int, ...], title: str | None = None) -> Summary:
    """See ``Module.summary``."""
    shape = tuple(int(size) for size in input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"input_shape must hold positive sizes without the batch: {input_shape!r}")
    calls = _observe(module, (1, *shape))
    called = set(calls)
    # A module with a called one below it is a frame: its row would count the same work twice.
    frames = {name[:end] for name in called for end in _prefix_ends(name)}
    modules = dict(module.named_modules())
    counted: set[int] = set()
    rows = []
    for name, (output_shape, products) in calls.items():
        members = modules[name].parameters(recurse=name not in frames)
        parameters = _count(members, counted)
        empty = isinstance(modules[name], Sequential) and len(modules[name]) == 0
        if empty or (name in frames and not parameters):
            continue
        kind = type(modules[name]).__name__
        work = 0 if name in frames else products
        rows.append(SummaryRow(name or "(itself)", kind, output_shape, parameters, work))
    everything = list(module.parameters())
    return Summary(
        title or type(module).__name__,
        shape,
        rows,
        sum(p.numel() for p in everything),
        sum(p.numel() for p in everything if p.requires_grad),
        sum(row.multiply_adds for row in rows),
    )


def _prefix_ends(name: str) -> list[int]:
    """Where each proper prefix of a dotted name ends: "a.b.c" gives 0, 1, 3; "" gives none."""
    return [0, *(i for i, letter in enumerate(name) if letter == ".")] if name else []


def _count(parameters: Any, counted: set[int]) -> int:
    """Elements of the parameters that no earlier row has counted."""
    total = 0
    for parameter in parameters:
        if id(parameter) not in counted:
            counted.add(id(parameter))
            total += parameter.numel()
    return total


def _observe(module: Module, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], int]]:
    """Output shape and multiply-adds of every module that one forward calls, in call order."""
    calls: dict[str, tuple[tuple[int, ...], int]] = {}
    handles: list[HookHandle] = []

    def note(name: str) -> Any:
        def hook(called: Module, inputs: tuple[Any, ...], output: Any) -> None:
            before = calls.pop(name, ((), 0))[1]
            if isinstance(output, Tensor):
                first = inputs[0].shape if inputs and isinstance(inputs[0], Tensor) else ()
                work = called.multiply_adds(tuple(first), tuple(output.shape))
                calls[name] = (tuple(output.shape), before + work)

        return hook

    try:
        # Attention blocks are one row each: hooks inside would break up what runs as one.
        inside = _inside_of_fused(module)
        for name, part in module.named_modules():
            if id(part) not in inside:
                handles.append(part.register_forward_hook(note(name)))
        with evaluating(module):
            module(Tensor(np.zeros(shape, np.float32)))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _inside_of_fused(module: Module) -> set[int]:
    from .attention import AttentionBlock

    return {
        id(part)
        for block in module.modules()
        if isinstance(block, AttentionBlock) and block.is_one_operation
        for part in block.modules()
        if part is not block
    }


def structure_html(module: Module, title: str | None = None) -> str:
    """The tree of a module's children for notebooks, folded below the first level.

    Args:
        module: any. title: default: the name of its class.
    """
    parameters = sum(p.numel() for p in module.parameters())
    head = f"<b>{escape(title or type(module).__name__)}</b> ({parameters:,} parameters)"
    return f"<div>{head}{_branch(module)}</div>"


def _branch(module: Module) -> str:
    items = []
    for name, child in module.named_children():
        line = f"<code>{escape(name)}</code> {escape(type(child).__name__)}"
        settings = child.extra_repr()
        line += f"({escape(settings)})" if settings else ""
        below = _branch(child)
        items.append(
            f"<li><details><summary>{line}</summary>{below}</details></li>"
            if below
            else f"<li>{line}</li>"
        )
    return f"<ul>{''.join(items)}</ul>" if items else ""
