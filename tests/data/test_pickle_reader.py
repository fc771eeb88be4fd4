"""The restricted reader: reads what CIFAR holds, refuses the rest by name, never runs anything."""

import collections
import os
import pickle
import struct

import numpy as np
import pytest

from attnnet.data import pickle_reader
from attnnet.data.pickle_reader import loads
from attnnet.errors import DataError

from .mini import python2_pickle

OBJECT = {
    b"data": np.arange(24, dtype=np.uint8).reshape(4, 6),
    b"labels": [0, 255, 256, 65535, 65536, -1, 2**31 - 1, -2**31, 2**40],
    b"filenames": [b"a.png", b"", b"x" * 300, b"\x00\xff"],
    b"rest": {"text": "\u00e9", 7: (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))},
}
WRITERS = {"python2": python2_pickle,
           **{f"protocol{p}": lambda o, p=p: pickle.dumps(o, p) for p in (3, 4)}}


def equal(a, b):
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and a.dtype == b.dtype.newbyteorder("=") \
            and np.array_equal(a, b)
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in b)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("writer", WRITERS)
def test_reads_what_the_files_hold(writer):
    assert equal(loads(WRITERS[writer](OBJECT)), OBJECT)


@pytest.mark.parametrize("array", [
    np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
    np.arange(6, dtype=">i4").reshape(2, 3), np.arange(5, dtype="<u2"), np.zeros(3, np.int64),
    np.array(7, np.int8)])
def test_reads_arrays_of_whole_numbers(array):
    for writer in WRITERS.values():
        assert equal(loads(writer({b"a": array}))[b"a"], array)


def test_both_spellings_of_numpy():
    data = pickle.dumps(OBJECT[b"data"], 3)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    new = old.replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    assert old != new
    for spelling in (old, new):
        assert equal(loads(spelling), OBJECT[b"data"])


def test_things_used_twice_are_one_thing():
    inner = [1, 2]
    a, b = loads(pickle.dumps([inner, inner], 4))
    assert a is b


class Hostile:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("payload, name", [
    (Hostile(os.system, ("touch owned",)), r"(posix|nt)\.system"),
    (Hostile(eval, ("1",)), r"eval"),
    (Hostile(np.load, ("x",)), r"numpy\.load"),
    (Hostile(getattr, ("x", "y")), r"getattr"),
    (collections.OrderedDict(a=1), r"collections\.OrderedDict"),
    (np.float64(1.0), "multiarray.scalar"),
    (np.array([{}]), "array|_frombuffer"),
    (np.zeros(2, np.float32), "array|_frombuffer"),
    (np.zeros(2, "u1,u1"), "array|_frombuffer"),
    (1.5, "BINFLOAT"), (2**80, "number of 11 bytes"), ({1}, "set|SET"), (object(), "object")])
def test_refuses_by_name(payload, name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=name):
        loads(pickle.dumps({b"x": payload}, protocol), "batch")
    assert not list(tmp_path.iterdir())


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


@pytest.mark.parametrize("data, words", [
    (b"", "truncated"),
    (b"cos\nsystem\n(S'ls'\ntR.", "os.system"),
    (b"(S'ls'\nios\nsystem\n.", "refused|STRING"),
    (b"\x80\x09.", "protocol 9"),
    (b"T\xff\xff\xff\x7fabc.", "2,147,483,647 bytes announced"),
    (b"T\xff\xff\xff\xffabc.", "announced"),
    (b"\x8e" + b"\xff" * 8 + b".", "announced"),
    (b"\x95" + b"\xff" * 8 + b".", "frame"),
    (b"]].", "left over"),
    (b"(.", "left over"),
    (b"u.", "corrupt"),
    (b"](K\x01u.", "corrupt"),
    (b"}(K\x01u.", "corrupt"),
    (b"}K\x01a.", "no list"),
    (b"(]K\x01(a.", "nothing to take"),
    (b"}](K\x01tK\x02s.", "corrupt"),
    (b"}(]K\x01u.", "key of type list"),
    (b"}()K\x01u.", "key of type tuple"),
    (b"h\x07.", "corrupt"),
    (b"j\xff\xff\xff\xff.", "corrupt"),
    (b"K\x01K\x02R.", "asks to call a int"),
    (b"cnumpy\nndarray\n)R.", "asks to call numpy.ndarray"),
    (b"cnumpy\ndtype\n)R.", "corrupt"),
    (b"cnumpy\ndtype\nU\x02O8\x85R.", "'O8'"),
    (b"cnumpy.core.multiarray\n_reconstruct\nK\x01K\x00U\x01b\x87R.", "type of its own"),
    (b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x04zlib\x86R.", "encoding"),
    (b"]}b.", "state of a list"),
    (b"\x93.", "corrupt"),
    (b"c" + b"a" * 400 + b"\nb\n.", "name without end"),
    (b"\xff.", "unknown instruction 0xff"),
    (b"Pid\n.", "PERSID"),
    (b"}Q.", "BINPERSID"),
    (b"\x82\x01.", "EXT1"),
    (b"cos\nsystem\n)\x81.", "os.system"),
    (b"c\x1b[31mos\nsystem\n.", r"\\x1b\[31mos"),
])
def test_refuses_broken_and_hostile_streams(data, words):
    with pytest.raises(DataError, match=words):
        loads(data, "batch")


def array_stream(shape: bytes, size: int, code: bytes = b"u1", state: bytes = b"U\x01|") -> bytes:
    """A pickled array whose parts may disagree."""
    dtype = b"cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R(K\x03" + state + b"NNNtb"
    return (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
            + shape + dtype + b"\x89T" + struct.pack("<i", size) + bytes(size) + b"tb.")


def test_arrays_are_checked_against_their_bytes():
    assert loads(array_stream(b"K\x02K\x03\x86", 6)).shape == (2, 3)
    for shape, size, words in [
            (b"K\x02K\x03\x86", 7, "needs 6 bytes, got 7"),
            (b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", 6, "needs"),
            (b"J\xff\xff\xff\xff\x85", 6, "described wrongly"),
            (b"K\x06", 6, "described wrongly"), (b"U\x01x\x85", 6, "described wrongly"),
            (b"(" + b"K\x01" * 40 + b"t", 1, "described wrongly")]:
        with pytest.raises(DataError, match=words):
            loads(array_stream(shape, size))
    for state in (b"U\x01!", b"U\x01|)", b"U\x01|}", b"K\x01"):
        with pytest.raises(DataError, match="structures"):
            loads(array_stream(b"K\x06\x85", 6, b"u1", state))


def test_bombs_are_limited(monkeypatch):
    # One string, encoded again and again.
    again = b"c_codecs\nencode\nh\x00U\x06latin1\x86R"
    bomb = text(b"a" * 100_000) + b"q\x00](" + again * 100 + b"e."
    with pytest.raises(DataError, match="larger than the file"):
        loads(bomb)
    with monkeypatch.context() as patch:
        patch.setattr(pickle_reader._CifarMachine, "max_steps", 1000)
        with pytest.raises(DataError, match="more than 1,000 instructions"):
            loads(b"]" * 2000)
    # A name in the memo's numbering takes no memory for the numbers before it.
    assert loads(b"]r\xfe\xff\xff\xff.") == []


def test_every_truncation_is_refused():
    for writer in WRITERS.values():
        data = writer(OBJECT)
        for length in range(len(data)):
            with pytest.raises(DataError):
                loads(data[:length])


def test_changed_bytes_never_do_worse_than_a_refusal():
    seed = 20240
    rng = np.random.default_rng(seed)
    for writer in WRITERS.values():
        data = writer(OBJECT)
        for trial in range(2000):
            broken = bytearray(data)
            for _ in range(rng.integers(1, 4)):
                broken[rng.integers(len(broken))] = rng.integers(256)
            try:
                loads(bytes(broken))
            except DataError:
                continue
            except Exception as other:
                pytest.fail(f"seed {seed}, trial {trial}: {other!r}")
