"""Runs the sections that are asked for and keeps what they find."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .. import get_num_threads
from ..config import machine
from ..errors import unknown_name
from . import algorithms, cams, footprint, networks, operations
from .engine import Attnnet, Engine
from .machine import PEERS, versions
from .record import Record, comparison
from .scaling import scaling

SECTIONS = (
    "operations", "algorithms", "blocks", "training", "inference", "cams", "scaling", "memory",
    "import", "size",
)  # fmt: skip


def run(
    sections: Sequence[str] = SECTIONS,
    vs: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    batch: int = 128,
    rounds: int = 5,
    output: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Runs benchmarks.

    Args:
        sections: some of ``SECTIONS`` (default: all).
        vs: systems to compare with: "torch", "onnxruntime", "openvino", "mnn"; "grad-cam" for the
            section cams (default: none).
        only: networks of the sections training, inference and memory, for example "resnet18" or
            "resnet18:NEW_12" (default: all).
        batch: of the sections operations, algorithms and blocks (default 128).
        rounds: how often each piece is timed, in turn with the others (default 5).
        output: folder for bench.json and, where matplotlib is installed, bench.png (default: no
            files).
        say: gets each line of the report (default: print).

    Returns:
        The figures, in the order in which they were taken. Each has ``section``, ``case`` (what was
        measured), ``engine`` (by whom), ``precision`` ("float32" or "bfloat16"), ``value`` in
        ``unit`` (None where there is none: ``note`` says why), ``higher`` (whether more is better),
        ``spread`` (half the distance of the quartiles over the median, of repeated measurements;
        None for single ones), and ``to_dict()``.

    Raises:
        ValueError: an unknown section, system or network.
        ModuleNotFoundError: a system that is not installed.
    """
    for section in sections:
        if section not in SECTIONS:
            raise unknown_name("section", section, SECTIONS)
    networks.check(only)
    engines = _engines(vs, get_num_threads())
    header = {**machine(), **versions()}
    for name, value in header.items():
        say(f"{name:28} {value}")
    records: list[Record] = []
    for section in sections:
        found = []
        for record in _section(section, engines, vs, only, batch, rounds):
            found.append(record)
            say(f"  {record.section}: {record.case}, {record.engine}: done")
        say("\n" + comparison(found) + "\n")
        records += found
        if output is not None:  # after each section: an interrupt loses little
            _save(Path(output), header, records)
    return records


def find_engine(name: str, threads: int) -> Engine:
    """The engine of that name, for example "torch compile".

    Raises:
        ValueError: there is none.
    """
    system = name.split()[0]
    engines = {e.name: e for e in _engines(() if system == "attnnet" else (system,), threads)}
    if name not in engines:
        raise unknown_name("engine", name, engines)
    return engines[name]


def _engines(vs: Sequence[str], threads: int) -> list[Engine]:
    engines: list[Engine] = [Attnnet()]
    for name in vs:
        if name not in PEERS:
            raise unknown_name("system", name, PEERS)
        if importlib.util.find_spec(PEERS[name]) is None:
            raise ModuleNotFoundError(f"{name} is not installed: pip install {name}")
        if name == "torch":
            from .peers import torch_engine

            engines += torch_engine.engines()
        elif name != "grad-cam":  # which runs no networks of its own
            from .peers import onnx_engines

            engines += onnx_engines.engines(name, threads)
    return engines


def _section(
    name: str,
    engines: Sequence[Engine],
    vs: Sequence[str],
    only: Sequence[str],
    batch: int,
    rounds: int,
) -> Iterator[Record]:
    threads = get_num_threads()
    packages = [p for p in ("attnnet", *vs) if p in footprint.INSTALLED]
    if name == "operations":
        return operations.operations(engines, batch, rounds)
    if name == "algorithms":
        return algorithms.algorithms(batch, rounds)
    if name == "blocks":
        return operations.blocks(engines, batch, rounds)
    if name == "training":
        jobs = networks.only(only, networks.TRAINING)
        return networks.training([e for e in engines if e.trains], rounds, jobs)
    if name == "inference":
        return networks.inference(engines, rounds, networks.only(only, networks.INFERENCE))
    if name == "cams":
        return cams.cams(vs, rounds)
    if name == "scaling":
        return scaling(rounds)
    if name == "memory":
        jobs = networks.only(only, footprint.MEMORY)
        return footprint.memory([e for e in engines if e.trains], threads, jobs)
    if name == "import":
        return footprint.import_time(packages)
    return footprint.installed_size(packages)


def _save(folder: Path, header: dict, records: Sequence[Record]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = {"machine": header, "records": [record.to_dict() for record in records]}
    (folder / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    if importlib.util.find_spec("matplotlib") is not None:
        from .plot import plot

        plot(records, folder / "bench.png")
