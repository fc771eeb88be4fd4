"""Checkpoint files: exact round trip, damage of every kind, writes that fail."""

import json
import os
import struct

import numpy as np
import pytest

from attnnet.errors import CheckpointError
from attnnet.training import checkpoint as checkpoints
from attnnet.training.checkpoint import Checkpoint
from attnnet.training.state import pack, unpack


def example(seed=0):
    rng = np.random.default_rng(seed)
    weights = {
        "conv.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "bn.num_batches_tracked": np.array(7, np.int64),
        "empty": np.zeros((0, 5), np.float32),
        "odd": np.asfortranarray(rng.standard_normal((3, 5)).astype(np.float32)),
    }
    optimizer = {"state.0.momentum_buffer": rng.standard_normal(11).astype(np.float32)}
    return Checkpoint(weights, optimizer, {"recipe": {"epochs": 3}, "history": [{"loss": 0.1}]})


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == np.ascontiguousarray(
        b
    ).tobytes()


def test_round_trip_is_exact(tmp_path):
    path, original = tmp_path / "c.safetensors", example()
    checkpoints.save(path, original)
    back = checkpoints.load(path)
    assert list(back.weights) == sorted(original.weights)
    for name, array in original.weights.items():
        assert same(back.weights[name], array), name
    assert same(
        back.optimizer["state.0.momentum_buffer"], original.optimizer["state.0.momentum_buffer"]
    )
    assert back.meta["recipe"] == {"epochs": 3} and back.meta["history"] == [{"loss": 0.1}]
    assert back.meta["version"] and back.meta["format"] == checkpoints.FORMAT


def test_any_reader_of_safetensors_finds_the_weights(tmp_path):
    from safetensors.numpy import load_file

    path, original = tmp_path / "c.safetensors", example()
    checkpoints.save(path, original)
    tensors = load_file(path)
    assert same(tensors["conv.weight"], original.weights["conv.weight"])


def test_best_is_a_second_name_of_last_and_stays(tmp_path):
    last, best = tmp_path / "last.safetensors", tmp_path / "best.safetensors"
    checkpoints.save(last, example(0), also=[str(best)])
    assert best.read_bytes() == last.read_bytes()
    checkpoints.save(last, example(1))
    assert best.read_bytes() != last.read_bytes()
    assert same(checkpoints.load(best).weights["odd"], example(0).weights["odd"])


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoints.save(path, example())
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 50, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"c\.safetensors"):
            checkpoints.load(path)


def test_every_flipped_byte_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoints.save(path, example())
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in [*range(16), *rng.integers(16, len(whole), 150)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"c\.safetensors"):
            checkpoints.load(path)
    path.write_bytes(whole)
    checkpoints.load(path)


def with_header(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def test_hostile_headers_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    huge = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    for header in (
        b"{" * 1000,
        b"\xff" * 100,
        {"a": huge},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"attnnet": "[" * 100_000}},
        {"__metadata__": {"attnnet": "[]"}},
        {"__metadata__": {"attnnet": '{"format": "x"}'}},
        {"__metadata__": {"other": "1"}},
        {},
    ):
        with_header(path, header)
        with pytest.raises(CheckpointError, match=r"c\.safetensors"):
            checkpoints.load(path)
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        checkpoints.load(path)


def test_a_pickle_is_not_opened(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="truncated, corrupt or not a checkpoint"):
        checkpoints.load(path)
    assert not (tmp_path / "boom").exists()


def test_newer_formats_ask_for_an_upgrade(tmp_path):
    path = tmp_path / "c.safetensors"
    with_header(path, {"__metadata__": {"attnnet": '{"format": 999, "version": "9.0"}'}})
    with pytest.raises(CheckpointError, match=r"written by attnnet 9\.0.*Upgrade"):
        checkpoints.load(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such checkpoint\.$"):
        checkpoints.load(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoints.load(tmp_path)
    checkpoints.save(tmp_path / "best.safetensors", example())
    with pytest.raises(CheckpointError, match=r"Did you mean .*best\.safetensors"):
        checkpoints.load(tmp_path / "bst.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoints.load(tmp_path / "nowhere" / "x.safetensors")


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch, when):
    path = tmp_path / "last.safetensors"
    checkpoints.save(path, example(0))
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, when, full)
    with pytest.raises(CheckpointError, match=r"No space left on device; the checkpoint that was"):
        checkpoints.save(path, example(1))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.safetensors"], "no temporary file is left"


def test_a_write_that_the_system_cuts_short(tmp_path):
    """A limit on the size of files, which the kernel enforces as it does a full disk."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.safetensors"
    checkpoints.save(path, example(0))
    before = path.read_bytes()
    big = Checkpoint({"w": np.zeros(100_000, np.float32)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"\(0\.4 MiB\): File too large; the checkpoint"):
            checkpoints.save(path, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.safetensors"], "no temporary file is left"


def test_interrupting_a_write_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"

    def interrupt(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(path, example())
    assert os.listdir(tmp_path) == []


def test_state_trees_come_back():
    tree = {
        "state": {0: {"momentum_buffer": np.arange(3.0)}, 7: {"step": 3, "none": None}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "nesterov": True, "params": [0, 7]}],
    }
    arrays = {}
    packed = json.loads(json.dumps(pack(tree, arrays)))
    back = unpack(packed, arrays)
    assert list(arrays) == ["state.0.momentum_buffer"]
    assert (back["state"][0]["momentum_buffer"] == np.arange(3.0)).all()
    assert back["state"][7] == tree["state"][7]
    assert back["param_groups"][0]["betas"] == [0.9, 0.999]
    for broken in ({"array": "missing"}, {"x": 1}, {"dict": 3}):
        with pytest.raises(ValueError, match="corrupt"):
            unpack(broken, arrays)
