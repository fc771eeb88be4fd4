"""Files as torch.save writes them, built byte by byte: for tests without PyTorch, and for lies."""

import io
import struct
import zipfile

KINDS = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short",
         "i1": "Char", "u1": "Byte", "b1": "Bool"}  # fmt: skip
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."
FACTS = b"\x80\x02}(X\x0d\x00\x00\x00little_endian\x88u."


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + raw


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def numbers(values) -> bytes:
    return row(*map(number, values))


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(key="0", kind="Float", count=1, place="cpu", older=False, module="torch") -> bytes:
    view = [b"N"] if older else []
    parts = text("storage"), name(module, f"{kind}Storage"), text(key), text(place), number(count)
    return row(*parts, *view) + b"Q"


def tensor(stored: bytes, shape, strides, offset=0) -> bytes:
    empty = name("collections", "OrderedDict") + b")R"
    arguments = row(stored, number(offset), numbers(shape), numbers(strides), b"\x89", empty)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def ordered_dict(items: dict[str, bytes]) -> bytes:
    """An OrderedDict with the _metadata that state dicts have."""
    made = name("collections", "OrderedDict") + b")R("
    made += b"".join(text(key) + value for key, value in items.items()) + b"u"
    return made + b"}" + text("_metadata") + name("collections", "OrderedDict") + b")Rsb"


def plain_dict(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def state(arrays, older=False, place="cpu") -> tuple[bytes, dict[str, bytes]]:
    """The pickled state dict (without its end) and the storages of its tensors."""
    entries, contents = {}, {}
    for key, (label, array) in enumerate(arrays.items()):
        code = array.dtype.str[1:]
        strides = [step // array.itemsize for step in array.strides]
        stored = storage(str(key), KINDS[code], array.size, place, older)
        entries[label] = tensor(stored, array.shape, strides)
        contents[str(key)] = array.tobytes()
    return ordered_dict(entries), contents


def zip_file(pickled: bytes, contents: dict[str, bytes], **options) -> bytes:
    """The newer format."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        files = {"data.pkl": b"\x80\x02" + pickled + b".", "version": b"3\n"}
        files |= {f"data/{key}": raw for key, raw in contents.items()}
        for label, raw in files.items():
            with archive.open(f"archive/{label}", "w", force_zip64=options.get("wide", False)) as f:
                f.write(raw)
    return out.getvalue()


def stream_file(pickled: bytes, contents: dict[str, bytes], item=4) -> bytes:
    """The older format; all storages of one item size."""
    keys = b"\x80\x02](" + b"".join(map(text, contents)) + b"e."
    raw = b"".join(struct.pack("<q", len(raw) // item) + raw for raw in contents.values())
    return MAGIC + VERSION + FACTS + b"\x80\x02" + pickled + b"." + keys + raw
