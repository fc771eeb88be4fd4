"""No file makes a reader do more than give a value or refuse: what was found once stays mended.

Replayed are good files, the corpus and the findings of long runs (``python3 dev.py fuzz``), then
mutations of all these, the same in every run.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

import pytest

from .bombs import BOMBS
from .mutate import Mutator
from .readers import READERS
from .seeds import SEEDS, WORDS
from .watch import limited, watched

HERE = Path(__file__).parent
SEED = 20_260
# Mutations of each reader: more where one takes little time.
TIMES = {
    "pickle": 1000, "torch-pickle": 800, "torch": 500, "safetensors": 500, "lock": 300,
    "history": 400, "recipe": 400, "plan": 400, "image": 500, "weights": 200, "cifar": 200,
    "archive": 100, "checkpoint": 100, "study": 300,
}  # fmt: skip


@cache
def known(name: str) -> dict[str, bytes]:
    """Every input of a reader that is at hand, by where it comes from."""
    inputs = {f"seed {i}": data for i, data in enumerate(SEEDS[name]())}
    corpus = HERE / "corpus" / f"{name}.txt"
    if corpus.exists():
        for number, line in enumerate(corpus.read_text().split()):
            inputs[f"corpus {number}"] = base64.b85decode(line)
    for file in sorted((HERE / "findings" / name).glob("*")):
        inputs[f"finding {file.name}"] = file.read_bytes()
    return inputs


def test_every_reader_is_here():
    assert READERS.keys() == SEEDS.keys() == WORDS.keys() == TIMES.keys()


@pytest.mark.parametrize("name", READERS)
def test_what_is_known_is_read_or_refused(name, tmp_path):
    for source, data in known(name).items():
        found = watched(READERS[name], data, tmp_path, memory=True)
        assert found is None, f"{name}, {source}: {found}"


@pytest.mark.parametrize(
    ("name", "bomb"), [(name, bomb) for name, bombs in BOMBS.items() for bomb in bombs]
)
def test_bombs_take_little(name, bomb, tmp_path):
    found = watched(READERS[name], bomb(), tmp_path, memory=True)
    assert found is None, f"{name}, {bomb.__name__}: {found}"


@pytest.mark.parametrize("name", READERS)
def test_mutations_are_read_or_refused(name, tmp_path):
    mutator = Mutator(SEED, list(known(name).values()), WORDS[name])
    with limited(512):
        for number in range(TIMES[name]):
            found = watched(READERS[name], mutator.next(), tmp_path)
            assert found is None, f"{name}, seed {SEED}, mutation {number}: {found}"


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_read(name, tmp_path):
    """At least one seed of each reader is read to the end, so that mutations reach all of it."""
    reader, read = READERS[name], 0
    for data in SEEDS[name]():
        try:
            reader.read(reader.prepare(data, tmp_path))
            read += 1
        except reader.refusals:
            pass
    assert read > 0
