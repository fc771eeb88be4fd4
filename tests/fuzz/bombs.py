"""Small files that would take much time or memory where a reader is not careful; made here, as they
are larger than what is kept in files."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from struct import pack

from interop import torch_bytes as tb


def one_list_for_many_dicts() -> bytes:
    """An OrderedDict is made of the same two thousand pairs again and again."""
    pairs = b"".join(b"J" + pack("<i", i) + b"N\x86" for i in range(2000))
    ordered = tb.name("collections", "OrderedDict") + b"q\x00"
    return b"\x80\x02" + ordered + b"](" + pairs + b"eq\x01(" + b"h\x00h\x01R" * 1500 + b"t."


def one_tuple_for_many_calls() -> bytes:
    """A call with forty thousand arguments, again and again."""
    arguments = b"(X\x02\x00\x00\x00i8" + b"N" * 40_000 + b"tq\x01"
    return b"\x80\x02cnumpy\ndtype\nq\x00" + arguments + b"(" + b"h\x00h\x01R" * 60_000 + b"t."


def headers_of_digits() -> bytes:
    """Extended headers of an archive that hold nothing but digits."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for kind in (b"x", b"g"):
            info = tarfile.TarInfo("p")
            info.type, info.size = kind, 60_000
            tar.addfile(info, BytesIO(b"1" * info.size))
            tar.addfile(tarfile.TarInfo("q"))
    return b"\x01" + out.getvalue()


def one_row_a_column() -> bytes:
    """A history of 1,500 rows, each with a column of its own: a table of two million cells."""
    return json.dumps({"epochs": [{f"c{i}": 1} for i in range(1500)]}).encode()


def a_name_of_many_parts() -> bytes:
    return b"#\n" + b".".join([b"a"] * 8000) + b" = 1\n"


def seeds_without_end() -> bytes:
    return b'{"networks": ["vgg11"], "seeds": 99999999}'


def many_seeds() -> bytes:
    """As many as fit into a plan: each is compared with the others."""
    return json.dumps({"networks": ["vgg11"], "seeds": list(range(10_900))}).encode()


def every_block_everywhere() -> bytes:
    """A few kB that make 80,000 networks."""
    blocks = ["SE", "SEC", "CA", "SA", "AA", "SE_SA", "SEC_SA", "CBAM", "NEW", "NAB"]
    stages = [str(i) for i in range(11, 8011)]
    return json.dumps({"networks": ["vgg11"], "blocks": blocks, "stages": stages}).encode()


BOMBS = {
    "torch-pickle": [one_list_for_many_dicts], "pickle": [one_tuple_for_many_calls],
    "archive": [headers_of_digits], "history": [one_row_a_column], "recipe": [a_name_of_many_parts],
    "plan": [seeds_without_end, many_seeds, every_block_everywhere],
}  # fmt: skip
