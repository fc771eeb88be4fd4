"""Archives: only the files asked for, nothing on the disk, no more memory than a data set has."""

import gzip
import io
import tarfile

import pytest

from attnnet.data import cifar
from attnnet.data.archive import md5_of, members
from attnnet.errors import DataError

from . import mini
from .mini import MINI10

LIMITS = {"set/a": 100, "set/b": 100}


def make(path, entries):
    """entries: (name or TarInfo, content)."""
    with tarfile.open(path, "w:gz") as tar:
        for info, content in entries:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def kind(name, kind_of, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind_of, target
    return info


def test_reads_what_was_asked_for(tmp_path):
    path = make(tmp_path / "x.tar.gz", [("readme.html", b"x"), ("set/b", b"bb"), ("./set/a", b"")])
    assert dict(members(path, LIMITS)) == {"set/b": b"bb", "set/a": b""}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_every_format_of_tar(form, tmp_path):
    name = f"{'folder/' * 20}file" if form == tarfile.USTAR_FORMAT else f"set/{'long' * 60}"
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz", format=form, pax_headers={"comment": "for all"}) as tar:
        for what, content in (("other", b"o" * 513), (name, b"content"), ("set/a", b"")):
            info = tarfile.TarInfo(what)
            info.size, info.mtime = len(content), 1.5  # a fraction: pax writes it in words
            tar.addfile(info, io.BytesIO(content))
    assert dict(members(path, {name: 10, "set/a": 10})) == {name: b"content", "set/a": b""}


@pytest.mark.parametrize("change, words", [
    (lambda block: block[:124] + b"77777777778\0" + block[136:], "the number"),
    (lambda block: block[:148] + b"0000000\0" + block[156:], "checksum"),
    (lambda block: block[:300], "truncated in a header"),
])
def test_corrupt_headers_are_named(change, words, tmp_path):
    block = tarfile.TarInfo("set/a").tobuf(tarfile.USTAR_FORMAT)
    changed = change(block)
    if words == "the number":  # under the right checksum
        total = sum(changed[:148]) + 8 * 32 + sum(changed[156:])
        changed = changed[:148] + b"%06o\0 " % total + changed[156:]
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(changed))
    with pytest.raises(DataError, match=words):
        list(members(path, LIMITS))


def test_nothing_is_written_and_other_paths_lead_nowhere(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = make(inside / "x.tar.gz", [
        ("../evil", b"x"), ("/tmp/evil", b"x"), ("set/../../evil", b"x"), ("set/a", b"good"),
        ("a", b"x"), (kind("set/link", tarfile.SYMTYPE, "/etc/passwd"), b"")])
    assert dict(members(path, LIMITS)) == {"set/a": b"good"}
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "x.tar.gz"]


@pytest.mark.parametrize("entries, words", [
    ([("set/a", bytes(101))], "set/a would have 101 bytes, expected at most 100"),
    ([("set/a", b"1"), ("set/a", b"2")], "twice"),
    ([(kind("set/a", tarfile.SYMTYPE, "/etc/passwd"), b"")], "no plain file"),
    ([(kind("set/a", tarfile.LNKTYPE, "set/b"), b"")], "no plain file"),
    ([(kind("set/a", tarfile.DIRTYPE), b"")], "no plain file"),
    ([(kind("set/a", tarfile.FIFOTYPE), b"")], "no plain file"),
])
def test_refuses_hostile_members(entries, words, tmp_path):
    with pytest.raises(DataError, match=words):
        list(members(make(tmp_path / "x.tar.gz", entries), LIMITS))


def test_a_bomb_is_not_decompressed(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(40):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(DataError, match="more than the data set can have"):
        list(members(path, LIMITS))
    # A file among others that is not asked for, and headers that announce any size.
    large = make(tmp_path / "large.tar.gz", [("other", bytes(5 << 20)), ("set/a", b"x")])
    with pytest.raises(DataError, match="more than the data set can have"):
        list(members(large, LIMITS))
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8**11 - 1
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match=r"announces|corrupt"):
        list(members(path, LIMITS))


def test_missing_and_wrong_kinds_of_files(tmp_path):
    with pytest.raises(DataError, match="no such archive"):
        list(members(tmp_path / "none.tar.gz", LIMITS))
    plain = tmp_path / "plain.tar.gz"
    plain.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"not a readable \.tar\.gz"):
        list(members(plain, LIMITS))
    plain.write_bytes(gzip.compress(b"no tar" * 1000))
    with pytest.raises(DataError, match=r"not a readable \.tar\.gz"):
        list(members(plain, LIMITS))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    return mini.pack(MINI10, mini.write(MINI10, folder), folder / MINI10.archive)


@pytest.mark.filterwarnings("ignore:.*not the official archive")
def test_a_truncated_archive_is_refused_wherever_it_ends(archive, tmp_path):
    whole, cut = archive.read_bytes(), tmp_path / "cut.tar.gz"
    for length in [0, 1, 5, 10, 100, *range(1000, len(whole), len(whole) // 15), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.tar\.gz"):
            cifar.read(MINI10, cut)


@pytest.mark.filterwarnings("ignore:.*not the official archive")
def test_a_changed_byte_is_found(archive, tmp_path):
    whole, changed = archive.read_bytes(), tmp_path / "changed.tar.gz"
    # Behind the header, which holds the time and a name that nobody reads.
    for place in range(100, len(whole), len(whole) // 15):
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1:])
        with pytest.raises(DataError, match=r"changed\.tar\.gz"):
            cifar.read(MINI10, changed)


def test_md5(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert md5_of(tmp_path / "x") == "900150983cd24fb0d6963f7d28e17f72"
