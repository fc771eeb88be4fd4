"""The reader of PyTorch's files: what it reads, what it refuses, and that nothing runs."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

import attnnet
from attnnet.errors import CheckpointError
from attnnet.interop import read_torch_file
from attnnet.interop.torch_file import parse

from . import torch_bytes as tb

WEIGHTS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1.5, -2.0], np.float32),
    "scalar": np.array(7.0, np.float32),
}


def file_of(arrays=WEIGHTS, older=False, place="cpu") -> bytes:
    pickled, contents = tb.state(arrays, older, place)
    return (tb.stream_file if older else tb.zip_file)(pickled, contents)


def equal(a, b) -> bool:
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(b, dict):
        return type(a) is dict and list(a) == list(b) and all(equal(a[k], b[k]) for k in b)
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("place", ["cpu", "cuda:0"])
@pytest.mark.parametrize("older", [False, True])
def test_reads_both_formats(older, place, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(file_of(older=older, place=place))
    assert equal(read_torch_file(path), WEIGHTS)


@pytest.mark.parametrize("code", tb.KINDS)
def test_reads_every_type(code):
    array = np.array([[0, 1], [1, 0]], code)
    assert equal(parse(file_of({"x": array}), "x"), {"x": array})


def test_reads_bfloat16_and_the_oldest_names():
    values = np.array([1.0, -2.5, 3.0e38, np.inf], np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    pickled = tb.tensor(tb.storage("0", "BFloat16", 4), [4], [1])
    got = parse(tb.zip_file(pickled, {"0": raw}), "x")
    assert got.dtype == np.float32 and got[[0, 1, 3]].tolist() == [1.0, -2.5, np.inf]
    assert abs(got[2] / 3e38 - 1) < 2**-8
    pickled = tb.tensor(tb.storage("0", "Float", 2, module="torch.cuda"), [2], [1])
    assert parse(tb.zip_file(pickled, {"0": bytes(8)}), "x").tolist() == [0, 0]


def test_reads_strided_and_shared_storages():
    numbers = np.arange(12, dtype=np.float32)
    stored = tb.storage("0", "Float", 12)
    parts = [([3, 4], [4, 1], 0), ([4, 3], [1, 4], 0), ([2, 2], [2, 1], 7), ([3, 2], [0, 1], 10),
             ([3, 3], [1, 1], 2), ([0, 5], [5, 1], 12)]  # fmt: skip
    pickled = b"](" + b"".join(tb.tensor(stored, *part) for part in parts) + b"e"
    got = parse(tb.zip_file(pickled, {"0": numbers.tobytes()}), "x")
    for array, (shape, strides, offset) in zip(got, parts, strict=True):
        steps = [4 * step for step in strides]
        expected = np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps)
        assert np.array_equal(array, expected) and array.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        got[0][...] = 0


def test_reads_big_endian_numbers():
    raw = io.BytesIO(file_of({"x": np.array([1, 2], np.float32)}))
    with zipfile.ZipFile(raw, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    expected = np.frombuffer(np.array([1, 2], "<f4").tobytes(), ">f4").astype("f4")
    assert equal(parse(raw.getvalue(), "x"), {"x": expected})


def test_reads_what_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net(torch.randn(2, 2, 4, 4)).sum().backward()
    optimizer.step()
    base = torch.arange(12.0)
    content = {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "acc": 93.5,
        "best": np.float64(93.75),
        "table": np.arange(3.0),
        "epoch": 7,
        "views": [base[2:6], base.view(3, 4).t(), base.half(), base.double(), base.bfloat16()],
        "flags": (True, None, "text", -1, 2**40, torch.tensor(3), torch.zeros(0, 4)),
        "size": torch.Size([2, 3]),
        "parameter": torch.nn.Parameter(base),
    }

    def plain(value):
        if isinstance(value, torch.Tensor):
            value = value.detach()
            return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, torch.Size):
            return tuple(value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(plain, value))
        return value.item() if isinstance(value, np.generic) else value

    for zipped in (True, False):
        for protocol in (2, 4):
            torch.save(content, tmp_path / "x", _use_new_zipfile_serialization=zipped,
                       pickle_protocol=protocol)  # fmt: skip
            assert equal(read_torch_file(tmp_path / "x"), plain(content)), (zipped, protocol)


class Hostile:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("payload, named", [
    (Hostile(os.system, ("touch owned",)), r"(posix|nt)\.system"),
    (Hostile(eval, ("1",)), r"(builtins|__builtin__)\.eval"),
    (Hostile(getattr, ("x", "y")), r"getattr"),
    (Hostile(np.load, ("x",)), r"numpy\.load"),
    (collections.Counter("ab"), r"collections\.Counter"),
    (attnnet.nn.Identity(), r"attnnet\.nn\.layers\.Identity|copy_reg|copyreg"),
    (np.array([{}]), "'O8'"),
    (np.zeros(2, "u1,u1"), "'V2'"),
    (1j, "complex"),
])  # fmt: skip
def test_refuses_by_name(payload, named, older, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps({"x": payload}, 2)[2:-1]
    data = (tb.stream_file if older else tb.zip_file)(pickled, {})
    with pytest.raises(CheckpointError, match=named):
        parse(data, "weights.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module, attribute", [
    ("os", "system"), ("torch", "load"), ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "_rebuild_qtensor"), ("__torch__", "Net"), ("torch", "ComplexFloatStorage"),
    ("models.resnet", "ResNet"), ("numpy", "memmap"),
])  # fmt: skip
def test_refuses_other_names_of_torch(module, attribute):
    with pytest.raises(CheckpointError, match=f"w.pth: asks for {module}.{attribute}"):
        parse(tb.zip_file(tb.name(module, attribute) + b")R", {}), "w.pth")


FLOATS = {"count": 4}
LIES = {
    "beyond its storage": (tb.storage("0", **FLOATS), [5], [1], 0),
    "beyond, by its offset": (tb.storage("0", **FLOATS), [4], [1], 1),
    "beyond, by its strides": (tb.storage("0", **FLOATS), [2, 2], [3, 1], 0),
    "before its storage": (tb.storage("0", **FLOATS), [2], [1], -1),
    "backwards": (tb.storage("0", **FLOATS), [2], [-1], 3),
    "a negative size": (tb.storage("0", **FLOATS), [-2], [1], 0),
    "too few strides": (tb.storage("0", **FLOATS), [2, 2], [1], 0),
    "17 dimensions": (tb.storage("0", **FLOATS), [1] * 17, [1] * 17, 0),
    "a bomb of strides": (tb.storage("0", **FLOATS), [2**20, 2**20], [0, 0], 0),
    "empty and endless": (tb.storage("0", **FLOATS), [0, 2**62, 2**62], [1, 1, 1], 0),
    "a storage that is missing": (tb.storage("1", **FLOATS), [4], [1], 0),
    "a storage of another length": (tb.storage("0", count=5), [4], [1], 0),
    "a storage of another type": (tb.storage("0", "Double", 4), [4], [1], 0),
    "a storage of no length": (tb.storage("0", count=-1), [4], [1], 0),
    "a number for a storage": (b"K\x01", [4], [1], 0),
    "a size that is text": (tb.storage("0", **FLOATS), tb.text("ax"), [1], 0),
}


@pytest.mark.parametrize("lie", LIES)
def test_tensors_are_checked_before_memory_is_taken(lie):
    stored, shape, strides, offset = LIES[lie]
    if isinstance(shape, bytes):
        pickled = tb.tensor(stored, [4], strides).replace(tb.numbers([4]), shape)
    else:
        pickled = tb.tensor(stored, shape, strides, offset)
    for data in (tb.zip_file(pickled, {"0": bytes(16)}), tb.stream_file(pickled, {"0": bytes(16)})):
        words = "in a storage of 4 numbers" if lie.startswith("beyond") else \
            r"truncated|corrupt|larger than the file"
        with pytest.raises(CheckpointError, match=words):
            parse(data, "weights.pth")


@pytest.mark.parametrize("pickled, words", [
    (tb.row(tb.tensor(tb.storage("0", count=4), [4], [1]),
            tb.tensor(tb.storage("0", "Int", 4), [4], [1])), "described twice"),
    (tb.row(tb.text("module"), b"K\x01") + b"Q", "names no storage"),
    (b"K\x01Q", "names no storage"),
    (tb.name("torch._utils", "_rebuild_parameter") + tb.row(b"K\x01") + b"R", "no tensor"),
    (tb.name("torch", "Size") + tb.row(b"]") + b"R", "no whole numbers"),
    (tb.name("collections", "OrderedDict") + tb.row(b"](](K\x01ee") + b"R", "corrupt"),
    (tb.name("torch", "FloatStorage") + b")R", "asks to call torch.FloatStorage"),
    (b"]}b", "state of a list"),
    (b"]" * 3, "left over"),
    (b"]" * 1_000_001, "more than 1,000,000 instructions"),
    (b"\x8a\x0b" + bytes(11), "whole number of 11 bytes"),
    (b"}" + b"\x8a\x0a" + b"\x01" * 10 + b"Ns", "key of type int"),
])  # fmt: skip
def test_refuses_broken_pickles(pickled, words):
    with pytest.raises(CheckpointError, match=words):
        parse(tb.zip_file(pickled, {"0": bytes(16)}), "weights.pth")


def test_an_array_is_described_once():
    array = pickle.dumps(np.arange(3.0), 2)[2:-1]
    assert equal(parse(tb.zip_file(array, {}), "x"), np.arange(3.0))
    state = array[array.index(b"(K\x01") :]
    with pytest.raises(CheckpointError, match="described twice"):
        parse(tb.zip_file(array + state, {}), "x")


def test_nested_lists_without_end_are_read_and_dropped():
    depth = 100_000
    got = parse(tb.zip_file(b"]" * depth + b"a" * (depth - 1), {}), "x")
    assert len(got) == 1
    got = parse(tb.zip_file(b"]q\x00h\x00a", {}), "x")
    assert got[0] is got


# Archives


def test_archives_that_need_64_bits():
    pickled, contents = tb.state(WEIGHTS)
    assert equal(parse(tb.zip_file(pickled, contents, wide=True), "x"), WEIGHTS)


def repeated(label: str) -> bytes:
    raw = io.BytesIO(file_of())
    with zipfile.ZipFile(raw, "a") as archive, pytest.warns(UserWarning):
        archive.writestr(label, b"x")
    return raw.getvalue()


def overlapping() -> bytes:
    """Many names for the one large content of an archive."""
    pickled, contents = tb.state({"x": np.zeros(2000, np.float32)})
    data = tb.zip_file(pickled, contents)
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[data.rindex(b"PK\x01\x02", 0, end) : end]
    more = b"".join(entry.replace(b"data/0", b"data/%d" % i) for i in range(1, 10))
    directory = data[start:end] + more
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 12, 12, len(directory), start, 0)
    return data[:start] + directory + tail


@pytest.mark.parametrize("make, words", [
    (lambda: tb.zip_file(*tb.state(WEIGHTS), compression=zipfile.ZIP_DEFLATED), "compressed"),
    (lambda: repeated("archive/data/0"), "twice"),
    (overlapping, "larger together"),
    (lambda: file_of().replace(WEIGHTS["b"].tobytes(), bytes(8)), "checksum"),
    (lambda: repeated("archive/version"), "twice"),
    (lambda: file_of().replace(b"data.pkl", b"data.pxl"), "0 entries named data.pkl"),
    (lambda: b"PK\x03\x04" + bytes(100), "directory is missing"),
    (lambda: b"PK\x05\x06" + b"\xff" * 18, "truncated or corrupt"),
    (lambda: b"", "not a file of torch.save"),
    (lambda: b"\x80\x02]" + b".", "magic"),
    (lambda: pickle.dumps(WEIGHTS, 2), "magic"),
    (lambda: tb.MAGIC + b"\x80\x02K\x01.", "magic"),
    (lambda: pickle.dumps(np.arange(3), 2), "magic"),
])  # fmt: skip
def test_refuses_other_files(make, words):
    with pytest.raises(CheckpointError, match=words):
        parse(make(), "weights.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: cannot be read"):
        read_torch_file(tmp_path / "none.pth")


@pytest.mark.parametrize("older", [False, True])
def test_every_truncation_is_refused(older):
    data = file_of(older=older)
    for length in range(len(data)):
        with pytest.raises(CheckpointError):
            parse(data[:length], "weights.pth")


@pytest.mark.parametrize("older", [False, True])
def test_changed_bytes_never_do_worse_than_a_refusal(older):
    seed = 512
    rng = np.random.default_rng(seed)
    data = file_of(older=older)
    refused = 0
    for trial in range(1500):
        broken = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            broken[rng.integers(len(broken))] = rng.integers(256)
        try:
            parse(bytes(broken), "weights.pth")
        except CheckpointError:
            refused += 1
        except Exception as other:
            pytest.fail(f"seed {seed}, trial {trial}: {other!r}")
    assert refused > 500
