"""Good files of every reader, small ones: what mutations start from; and words of their formats."""

from __future__ import annotations

import json
import pickle
import tarfile
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from data import mini
from interop import torch_bytes as tb

from . import readers

_ARRAYS = {
    "layer1.0.conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1.5, -2.0], np.float16),
    "n": np.array(7, np.int64),
    "none": np.zeros((0, 4), np.float32),
}


def _pickles() -> list[bytes]:
    things = {
        b"labels": [0, 1, 255, 256, -1, 2**40],
        "text": ("é", None, True, False, ()),
        b"data": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "big": np.arange(3, dtype=">i4"),
        "deep": [[], {}, {"a": [(1, 2), b"x" * 300]}],
    }
    made = [pickle.dumps(things, protocol) for protocol in (2, 3, 4)]
    return [*made, mini.python2_pickle({b"a": [b"x", 1], b"d": np.zeros((2, 2), np.int16)})]


def _cifar() -> list[bytes]:
    return [bytes([i]) + readers._GOOD[name] for i, name in enumerate(readers.LAYOUT.files)]


def _tar(kind: int, **change: object) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name, content in readers._GOOD.items():
            info = tarfile.TarInfo(f"{readers.LAYOUT.folder}/{name}")
            info.size = len(content)
            for key, value in change.items():
                setattr(info, key, value)
            tar.addfile(info, BytesIO(content))
    return out.getvalue()


def _archives() -> list[bytes]:
    import gzip

    plain = _tar(tarfile.USTAR_FORMAT)
    wide = _tar(tarfile.PAX_FORMAT, mtime=1.5, pax_headers={"comment": "x" * 200})
    gnu = _tar(tarfile.GNU_FORMAT, linkname="../" * 50)
    return [b"\0" + gzip.compress(plain, mtime=0), b"\1" + plain, b"\1" + wide, b"\1" + gnu]


def _torch() -> list[bytes]:
    made = []
    for older in (False, True):
        pickled, contents = tb.state(_ARRAYS, older)
        made.append((tb.stream_file if older else tb.zip_file)(pickled, contents))
    whole = tb.zip_file(tb.state(_ARRAYS)[0], tb.state(_ARRAYS)[1], wide=True)
    # Without checksums, which PyTorch may leave out, every byte can be changed.
    return [*made, whole, _without_sums(made[0])]


def _without_sums(data: bytes) -> bytes:
    out = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        at = out.find(mark)
        while at >= 0:
            out[at + place : at + place + 4] = bytes(4)
            at = out.find(mark, at + 4)
    return bytes(out)


def _torch_pickles() -> list[bytes]:
    contents = {
        "f": tb.tensor(tb.storage("0", "Float", 6), (2, 3), (3, 1)),
        "t": tb.tensor(tb.storage("0", "Float", 6), (3, 2), (1, 2)),
        "h": tb.tensor(tb.storage("1", "BFloat16", 12), (4,), (1,), 3),
        "i": tb.tensor(tb.storage("2", "Long", 3), (), ()),
        "e": tb.tensor(tb.storage("2", "Long", 3), (0, 2), (2, 1)),
    }
    nested = tb.plain_dict(
        {"net": tb.ordered_dict(contents), "epoch": b"K\x03", "acc": b"G" + b"@" * 8}
    )
    return [b"\x80\x02" + body + b"." for body in (tb.ordered_dict(contents), nested)]


def _weights() -> list[bytes]:
    """The little model's state, every number the same one; and the names of a ResNet18."""
    items = {}
    for name, value in readers._little().state_dict().items():
        stored = (
            tb.storage("1", "Float", 6) if value.dtype.kind == "f" else tb.storage("2", "Long", 3)
        )
        items[name] = tb.tensor(stored, value.shape, (0,) * value.ndim)
    residual = {
        f"layer{s}.{i}.conv{c}.weight": tb.tensor(
            tb.storage("1", "Float", 6), (1, 1, 1, 1), (1,) * 4
        )
        for s in (1, 2, 3, 4)
        for i in (0, 1)
        for c in (1, 2)
    }
    for name, shape in (("linear.weight", (2, 3)), ("conv1.weight", (1, 1, 1, 1))):
        residual[name] = tb.tensor(tb.storage("1", "Float", 6), shape, (1,) * len(shape))
    return [
        b"\x80\x02" + tb.ordered_dict(items) + b".",
        b"\x80\x02" + tb.plain_dict({"net": tb.ordered_dict(residual), "acc": b"K\x05"}) + b".",
    ]


def _safetensors() -> list[bytes]:
    made = []
    for kind, size in (("F32", 4), ("BF16", 2), ("I64", 8), ("F8_E4M3", 1), ("BOOL", 1), ("F4", 1)):
        table = {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": kind, "shape": [2, 2], "data_offsets": [0, 4 * size]},
            "b": {"dtype": kind, "shape": [0], "data_offsets": [4 * size, 4 * size]},
        }
        head = json.dumps(table).encode()
        made.append(len(head).to_bytes(8, "little") + head + bytes(range(4 * size)))
    return made


def _checkpoints() -> list[bytes]:
    from attnnet import __version__

    meta = {**readers.trained().meta, "format": 1, "version": __version__}
    return [json.dumps(meta).encode()]


def _histories() -> list[bytes]:
    row = {
        "epoch": 1,
        "train_loss": 2.5,
        "train_top1": 10.0,
        "val_loss": None,
        "val_top1": 9.5,
        "lr": 1e-3,
        "images_per_second": 1e5,
        "seconds": 3.0,
        "skipped": 0,
        "note": "x",
    }
    whole = {
        "interrupted": False,
        "summary": {"best_epoch": 1},
        "epochs": [row, {**row, "epoch": 2}],
    }
    return [json.dumps(whole).encode(), b'{"epochs": [{"epoch": 1, "lr": NaN, "x": -Infinity}]}']


def _recipes() -> list[bytes]:
    fields = readers.RECIPE.replace(mean=(0.5,), std=(0.25,), milestones=(1, 2)).to_dict()
    toml = (
        b'# a recipe\npreset = "shapes"\nepochs = 3\nmilestones = [1, 2]\nlr = 1e-3\nmean = [0.5]\n'
    )
    return [json.dumps(fields).encode(), toml + b"std = [0.25]\n", b'{"preset": "vgg19-cifar10"}']


def _plans() -> list[bytes]:
    plan = {
        "name": "x",
        "networks": ["resnet18", "vgg11"],
        "datasets": ["shapes"],
        "stages": ["", "12"],
        "blocks": ["SE", "none"],
        "recipes": {"a": {"preset": "shapes", "lr": 0.1}},
        "seeds": 3,
        "recipe": {"epochs": 2},
        "validation": 0.1,
    }
    toml = b'# a plan\npreset = "shapes-quick"\nseeds = [1, 2]\n[recipe]\nepochs = 3\n'
    return [json.dumps(plan).encode(), toml, b'{"preset": "resnet18-cifar100", "seeds": [1]}']


def _studies() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        contents = readers.good_study(Path(folder)).values()
    return [bytes([number]) + data for number, data in enumerate(contents)]


def _locks() -> list[bytes]:
    return [b'{"pid": 123, "host": "h", "started": "9"}', b'{"pid": 1, "host": "HOST"}']


def _images() -> list[bytes]:
    from PIL import Image

    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
    made = []
    for kind, mode, options in (
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {"progressive": True}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("PPM", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "L", {}),
        ("WEBP", "RGB", {}),
        ("EPS", "L", {}),
        ("ICO", "RGB", {}),
        ("TGA", "RGB", {}),
    ):
        out = BytesIO()
        picture = Image.fromarray(pixels)
        picture = picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
        exif = Image.Exif()
        exif[274] = 6
        picture.save(out, kind, **options, **({"exif": exif} if kind == "JPEG" else {}))
        made.append(out.getvalue())
    return made


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "pickle": _pickles,
    "cifar": _cifar,
    "archive": _archives,
    "torch": _torch,
    "torch-pickle": _torch_pickles,
    "weights": _weights,
    "safetensors": _safetensors,
    "checkpoint": _checkpoints,
    "history": _histories,
    "recipe": _recipes,
    "plan": _plans,
    "study": _studies,
    "lock": _locks,
    "image": _images,
}

_PICKLE_WORDS = [
    b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"c_codecs\nencode\n",
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"X\x02\x00\x00\x00u1",
    b"h\x00",
    b"q\x00",
    b"j\x00\x00\x00\x00",
    b"\x94",
    b"(",
    b"]",
    b"}",
    b")",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"a",
    b"e",
    b"s",
    b"u",
    b"R",
    b"b",
    b".",
    b"N",
    b"\x88",
    b"2",
    b"0",
    b"1",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"J\xff\xff\xff\xff",
    b"\x81",
    b"\x92",
    b"i",
    b"o",
]
_TORCH_WORDS = [
    *_PICKLE_WORDS,
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nSize\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nBFloat16Storage\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"Q",
    b"G\x7f\xf0" + bytes(6),
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x01\x02",
    b"archive/data/0",
    b"byteorder",
]
_JSON_WORDS = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[",
    b"]",
    b"{",
    b"}",
    b'""',
    b",",
    b":",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"1" + b"0" * 400,
    b"-1",
    b"0",
    b"2147483648",
    b"18446744073709551616",
    b"0.5",
    b'"\\ud800"',
    b"[" * 400,
    b'{"a":' * 300,
    b'"x"',
    b'"array"',
    b'"dict"',
    b'"preset"',
    b"1e308",
]
WORDS: dict[str, list[bytes]] = {
    "pickle": _PICKLE_WORDS,
    "cifar": _PICKLE_WORDS,
    "archive": [
        b"ustar\x0000",
        b"ustar  \0",
        b"../../../x",
        b"/etc/x",
        b"L",
        b"K",
        b"x",
        b"g",
        b"S",
        b"17 GNU.sparse.x=1\n",
        b"\x80" + b"\0" * 10 + b"\x7f",
        b"77777777777",
        b"\xff" * 12,
    ],
    "torch": _TORCH_WORDS,
    "torch-pickle": _TORCH_WORDS,
    "weights": [
        *_TORCH_WORDS,
        b"module.",
        b"features.0.weight",
        b"classifier.6.weight",
        b"rel_encoding_h",
        b"image_module.",
    ],
    "safetensors": [
        *_JSON_WORDS,
        b"__metadata__",
        b"data_offsets",
        b"F64",
        b"C64",
        b"U16",
        b"BF16",
    ],
    "checkpoint": [*_JSON_WORDS, b'"resnet152"', b'"vgg19"', b'"custom"', b'"adamw"'],
    "history": _JSON_WORDS,
    "study": [*_JSON_WORDS, b"test_top1", b"localisation", b"summary", b"data_offsets", b"shape"],
    "recipe": [*_JSON_WORDS, b"0x" + b"f" * 5000, b"a.a.a.a", b"[[x]]", b'"""'],
    "plan": _JSON_WORDS,
    "lock": _JSON_WORDS,
    "image": [
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"II*\0",
        b"MM\0*",
        b"IHDR",
        b"IDAT",
        b"iCCP",
        b"zTXt",
        b"\xff\xda",
        b"\xff\xc0",
        b"\xff\xe1",
        b"Exif\0\0",
        b"\x7f\xff\xff\xff",
        b"P6 99999 99999 255 ",
    ],
}
