"""A reader of pickles that can build nothing but data: the base of all that read them here.

A pickle is a program for a small stack machine, and the usual reader runs whatever it names.
This one knows dictionaries, lists, tuples, text, bytes, whole numbers, None, booleans and NumPy
arrays. Nothing that a file names is ever imported or called: the few names it may use are
answered by functions of this package, every other name is refused.

Every size is checked against the file before memory is taken: what is decoded or copied is never
larger in all than twice the file that it comes from, and the number of steps and what a step may
look through are limited.
``data/pickle_reader.py`` (CIFAR) and ``interop/torch_pickle.py`` say what their files may hold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np

INTEGERS = frozenset(sign + size for sign in "iu" for size in "1248")
# A tuple, text or list is in the file once and may be used in every step: what a step looks at all
# through must be short, or a small file could take hours.
_MOST_ARGUMENTS = 16
_LONGEST_KEY = 4096


class Name:
    """Something that a pickle may name. Used as a token; nothing stands behind it.

    Args:
        name: as messages show it.
        call: answers a call, ``call(machine, *arguments)``; None where it may not be called.
    """

    def __init__(self, name: str, call: Callable | None = None):
        self.name = name
        self.call = call


class DType:
    """An array's element type while the pickle is still describing it."""

    def __init__(self, code: str):
        self.code = code
        self.order = "="

    @property
    def numpy(self) -> np.dtype:
        """As NumPy has it."""
        return np.dtype(self.order + self.code)


class Machine:
    """The stack machine. One method an instruction, found through ``STEPS`` at the end.

    Args:
        data: the file, or the part of it that holds pickles.
        source: the file's name, for messages.
        position: where in ``data`` the pickle begins.
        budget: how many bytes everything decoded or copied may take; default twice the data.

    Class attributes, set by each reader:
        error_type: what is raised. kind: what the files are called in messages.
        names: (module, name) to the ``Name`` that answers it.
        array_codes: element types that arrays may have; array_words: the same in words.
        longest_integer: bytes that a whole number may have.
        max_steps: the most instructions that a file may have.
        steps: instruction to method.
    """

    error_type: type[ValueError] = ValueError
    kind = "pickle"
    names: Mapping[tuple[str, str], Name] = {}
    array_codes = INTEGERS
    array_words = "whole numbers"
    longest_integer = 8
    max_steps = 1_000_000
    steps: Sequence[Callable | None] = ()

    def __init__(self, data: bytes, source: str, position: int = 0, budget: int | None = None):
        self.data = data
        self.source = source
        self.position = position
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        # What all decoded strings and arrays together may take: each is in the file once, and
        # Python 3 for Python 2 makes an array's bytes by decoding a string first.
        self.budget = 2 * len(data) if budget is None else budget

    def run(self) -> object:
        """Reads one pickle, up to its end; ``position`` is then behind it.

        Raises:
            error_type: the file is truncated, corrupt, or asks for anything that is not known.
        """
        data, size, steps = self.data, len(self.data), self.steps
        try:
            for _ in range(self.max_steps):
                if self.position >= size:
                    raise self.error("truncated: it ends in the middle")
                code = data[self.position]
                self.position += 1
                if code == _STOP:
                    return self.result()
                step = steps[code]
                if step is None:
                    raise self.error(f"asks for {_opcode_name(code)}, which no {self.kind} holds")
                step(self)
        except self.error_type:
            raise
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as broken:
            raise self.error(f"corrupt ({type(broken).__name__}: {broken})") from broken
        raise self.error(f"more than {self.max_steps:,} instructions: not a {self.kind}")

    def run_next(self) -> object:
        """``run`` for a file of several pickles, one after the other."""
        self.stack.clear()
        self.memo.clear()
        return self.run()

    def result(self) -> object:
        if len(self.stack) != 1 or self.marks:
            raise self.error("corrupt: it ends with something left over")
        return self.stack[0]

    def error(self, problem: str) -> ValueError:
        # A file's own words may hold anything, escape codes for the terminal among them.
        problem = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in problem)
        return self.error_type(
            f"{self.source}: {problem} (at byte {self.position:,} of {len(self.data):,})"
        )

    # Reading bytes

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise self.error(f"truncated or corrupt: {count:,} bytes announced, "
                             f"{len(self.data) - self.position:,} left")
        piece = self.data[self.position:end]
        self.position = end
        return piece

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 256)
        if end < 0:
            raise self.error("corrupt: a name without end")
        text = self.data[self.position:end].decode("utf-8", "replace")
        self.position = end + 1
        return text

    def spend(self, count: int) -> None:
        if count > self.budget:
            raise self.error(f"holds strings and arrays larger than the file "
                             f"({count:,} bytes more, {self.budget:,} left)")
        self.budget -= count

    def pop(self) -> object:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise self.error("corrupt: nothing to take")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    # Frames and constants

    def protocol(self) -> None:
        version = self.number("<B")
        if version > 5:
            raise self.error(f"pickle protocol {version}, expected at most 5")

    def frame(self) -> None:
        if self.number("<Q") > len(self.data) - self.position:
            raise self.error("truncated: it ends in the middle of a frame")

    def push_none(self) -> None:
        self.stack.append(None)

    def push_true(self) -> None:
        self.stack.append(True)

    def push_false(self) -> None:
        self.stack.append(False)

    # Numbers and strings

    def int1(self) -> None:
        self.stack.append(self.data[self.position])
        self.position += 1

    def int2(self) -> None:
        self.stack.append(self.number("<H"))

    def int4(self) -> None:
        self.stack.append(self.number("<i"))

    def long1(self) -> None:
        count = self.number("<B")
        if count > self.longest_integer:
            raise self.error(f"asks for a whole number of {count} bytes, expected at most "
                             f"{self.longest_integer}")
        self.stack.append(int.from_bytes(self.take(count), "little", signed=True))

    def bytes1(self) -> None:
        count = self.data[self.position]
        self.position += 1
        self.stack.append(self.take(count))

    def bytes4(self) -> None:
        self.stack.append(self.take(self.number("<I")))

    def bytes8(self) -> None:
        self.stack.append(self.take(self.number("<Q")))

    def text1(self) -> None:
        self.stack.append(self.take(self.number("<B")).decode("utf-8", "surrogatepass"))

    def text4(self) -> None:
        self.stack.append(self.take(self.number("<I")).decode("utf-8", "surrogatepass"))

    def text8(self) -> None:
        self.stack.append(self.take(self.number("<Q")).decode("utf-8", "surrogatepass"))

    # Containers

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def empty_list(self) -> None:
        self.stack.append([])

    def empty_dict(self) -> None:
        self.stack.append({})

    def empty_tuple(self) -> None:
        self.stack.append(())

    def tuple_to_mark(self) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def extend(self, items: list) -> None:
        if not self.stack or type(self.stack[-1]) is not list:
            raise self.error("corrupt: appends to something that is no list")
        self.stack[-1].extend(items)

    def append(self) -> None:
        self.extend([self.pop()])

    def appends(self) -> None:
        self.extend(self.pop_to_mark())

    def update(self, items: list) -> None:
        if len(items) % 2 or not self.stack or type(self.stack[-1]) is not dict:
            raise self.error("corrupt: sets items of something that is no dict")
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only these: the hash of nested tuples may take for ever, and whole numbers without
            # limit may all have the same one.
            if type(key) not in (bytes, str, int) or (type(key) is int and abs(key) >> 64):
                raise self.error(f"a dict with a key of type {type(key).__name__}, "
                                 "expected text, bytes or whole numbers of 8 bytes")
            if type(key) is not int and len(key) > _LONGEST_KEY:
                raise self.error(f"a dict with a key of {len(key):,} characters")
            target[key] = value

    def set_item(self) -> None:
        value = self.pop()
        self.update([self.pop(), value])

    def set_items(self) -> None:
        self.update(self.pop_to_mark())

    # The memo: things used more than once

    def put1(self) -> None:
        self.memo[self.data[self.position]] = self.stack[-1]
        self.position += 1

    def put4(self) -> None:
        self.memo[self.number("<I")] = self.stack[-1]

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get1(self) -> None:
        self.stack.append(self.memo[self.number("<B")])

    def get4(self) -> None:
        self.stack.append(self.memo[self.number("<I")])

    # Names, and what may be done with them

    def find(self, module: str, name: str) -> None:
        known = self.names.get((module, name))
        if known is None:
            raise self.error(f"asks for {module}.{name}, which no {self.kind} holds: refused")
        self.stack.append(known)

    def name_in_line(self) -> None:
        module = self.line()
        self.find(module, self.line())

    def name_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise self.error("corrupt: a name that is no text")
        self.find(module[:256], name[:256])

    def call(self) -> None:
        arguments, name = self.pop(), self.pop()
        if type(name) is not Name or name.call is None or type(arguments) is not tuple:
            what = name.name if isinstance(name, Name) else f"a {type(name).__name__}"
            raise self.error(f"asks to call {what}: refused")
        if len(arguments) > _MOST_ARGUMENTS:
            raise self.error(f"calls {name.name} with {len(arguments):,} arguments")
        self.stack.append(name.call(self, *arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        if type(state) is tuple and len(state) > _MOST_ARGUMENTS:
            raise self.error(f"corrupt: a state of {len(state):,} parts")
        if type(state) is tuple and type(target) is DType:
            self.set_dtype(target, *state)
        elif type(state) is tuple and type(target) is np.ndarray:
            self.set_array(target, *state[-4:])
        else:
            raise self.error(f"asks to set the state of a {type(target).__name__}: refused")

    def set_dtype(self, target: DType, version: object, order: object, *rest: object) -> None:
        order = order[:8].decode("ascii", "replace") if type(order) is bytes else order
        if order not in ("|", "<", ">", "=") or any(type(x) in (tuple, dict) for x in rest):
            raise self.error(
                f"asks for an array of structures, expected {self.array_words}: refused"
            )
        target.order = order

    def set_array(self, target: np.ndarray, shape: object, dtype: object, fortran: object,
                  raw: object) -> None:
        if type(dtype) is not DType or type(shape) is not tuple or type(raw) is not bytes \
                or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 4:
            raise self.error("corrupt: an array that is described wrongly")
        if target.size:  # filling it again would free memory that others may look into
            raise self.error("corrupt: an array that is described twice")
        element = dtype.numpy
        expected = element.itemsize
        for length in shape:
            expected *= length
        if len(raw) != expected:
            raise self.error(f"corrupt: an array of shape {shape} of {element} needs "
                             f"{expected:,} bytes, got {len(raw):,}")
        self.spend(expected)
        target.__setstate__((1, shape, element, bool(fortran), raw))


def _reconstruct(machine: Machine, kind: object, shape: object, code: object) -> np.ndarray:
    if kind is not _NDARRAY:
        raise machine.error("asks for an array of a type of its own: refused")
    return np.empty(0, np.uint8)


def _dtype(machine: Machine, code: object, *flags: object) -> DType:
    code = code[:32].decode("ascii", "replace") if type(code) is bytes else code
    if type(code) is not str or code not in machine.array_codes:
        what = code if type(code) is str else type(code).__name__
        raise machine.error(
            f"asks for an array of {what[:20]!r}, expected {machine.array_words}: refused"
        )
    return DType(code)


def _encode(machine: Machine, text: object, codec: object) -> bytes:
    """How Python 3 writes bytes where it must be readable by Python 2."""
    if type(text) is not str or codec not in ("latin1", b"latin1", "latin-1", b"latin-1"):
        raise machine.error("asks for another encoding than latin1: refused")
    machine.spend(len(text))
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as bad:
        raise machine.error("corrupt: bytes above 255") from bad


def _opcode_name(code: int) -> str:
    import pickletools

    known = pickletools.code2op.get(chr(code))
    return f"the instruction {known.name}" if known else f"the unknown instruction 0x{code:02x}"


_NDARRAY = Name("numpy.ndarray")
NAMES = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Name("numpy.dtype", _dtype),
    ("numpy.core.multiarray", "_reconstruct"): Name("_reconstruct", _reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): Name("_reconstruct", _reconstruct),
    ("_codecs", "encode"): Name("_codecs.encode", _encode),
}

_STOP = ord(".")
STEPS: list[Callable | None] = [None] * 256
for _code, _step in {
    b"\x80": Machine.protocol, b"\x95": Machine.frame, b"N": Machine.push_none,
    b"\x88": Machine.push_true, b"\x89": Machine.push_false,
    b"K": Machine.int1, b"M": Machine.int2, b"J": Machine.int4, b"\x8a": Machine.long1,
    b"U": Machine.bytes1, b"C": Machine.bytes1, b"T": Machine.bytes4, b"B": Machine.bytes4,
    b"\x8e": Machine.bytes8,
    b"\x8c": Machine.text1, b"X": Machine.text4, b"\x8d": Machine.text8,
    b"(": Machine.mark, b"]": Machine.empty_list, b"}": Machine.empty_dict,
    b")": Machine.empty_tuple, b"t": Machine.tuple_to_mark,
    b"\x85": lambda m: m.tuple_of(1), b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"a": Machine.append, b"e": Machine.appends,
    b"s": Machine.set_item, b"u": Machine.set_items,
    b"q": Machine.put1, b"r": Machine.put4, b"\x94": Machine.memoize,
    b"h": Machine.get1, b"j": Machine.get4,
    b"c": Machine.name_in_line, b"\x93": Machine.name_on_stack,
    b"R": Machine.call, b"b": Machine.build,
}.items():
    STEPS[_code[0]] = _step
