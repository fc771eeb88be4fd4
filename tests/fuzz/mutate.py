"""Seeded mutations of bytes: the same ones from the same seed, everywhere."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_EDGES = (0, 1, 2, 4, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1,
          2**63, 2**64 - 1)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")


class Mutator:
    """Makes new inputs from known ones.

    Args:
        seed: of all that is random here.
        known: good inputs and earlier findings. words: of the format, to be put in.
        longest: of a new input, in bytes.
    """

    def __init__(
        self, seed: int, known: Sequence[bytes], words: Sequence[bytes], longest: int = 1 << 16
    ) -> None:
        self.random = random.Random(seed)
        self.known, self.words, self.longest = list(known), list(words), longest
        self.ways = (
            self.flip, self.set_byte, self.insert_word, self.insert_word, self.overwrite_word,
            self.edge, self.cut, self.repeat, self.splice, self.text_number, self.swap,
        )  # fmt: skip

    def next(self) -> bytes:
        """One input: a known one, changed a few times."""
        data = bytearray(self.random.choice(self.known))
        for _ in range(1 + int(self.random.expovariate(0.7))):
            self.random.choice(self.ways)(data)
        return bytes(data[: self.longest])

    def place(self, data: bytearray, room: int = 0) -> int:
        return self.random.randrange(max(1, len(data) - room + 1))

    def flip(self, data: bytearray) -> None:
        if data:
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)

    def set_byte(self, data: bytearray) -> None:
        if data:
            data[self.random.randrange(len(data))] = self.random.randrange(256)

    def insert_word(self, data: bytearray) -> None:
        at = self.place(data)
        data[at:at] = self.random.choice(self.words)

    def overwrite_word(self, data: bytearray) -> None:
        word = self.random.choice(self.words)
        at = self.place(data, len(word))
        data[at : at + len(word)] = word

    def edge(self, data: bytearray) -> None:
        """A number at the edge of its type, in any size and order of bytes."""
        size = self.random.choice((1, 2, 4, 8))
        order = self.random.choice(("little", "big"))
        number = (self.random.choice(_EDGES) + self.random.choice((0, 0, -1, 1))) % 256**size
        at = self.place(data, size)
        data[at : at + size] = number.to_bytes(size, order)

    def text_number(self, data: bytearray) -> None:
        """Another number in place of one that is written out."""
        found = list(_NUMBER.finditer(bytes(data)))
        if found:
            match = self.random.choice(found)
            number = self.random.choice(_EDGES) * self.random.choice((1, 1, -1, 10**30))
            text = b"%d" % number if self.random.random() < 0.7 else b"%.3e" % (number / 7)
            data[match.start() : match.end()] = text

    def piece(self, data: bytearray) -> tuple[int, int]:
        begin = self.place(data)
        return begin, begin + 1 + int(self.random.expovariate(1 / 16))

    def cut(self, data: bytearray) -> None:
        begin, end = self.piece(data)
        del data[begin:end]

    def repeat(self, data: bytearray) -> None:
        begin, end = self.piece(data)
        data[end:end] = data[begin:end] * self.random.choice((1, 1, 2, 50, 500))

    def splice(self, data: bytearray) -> None:
        other = self.random.choice(self.known)
        if other:
            at = self.random.randrange(len(other))
            data[self.place(data) :] = other[at:]

    def swap(self, data: bytearray) -> None:
        begin, end = self.piece(data)
        taken = data[begin:end]
        del data[begin:end]
        at = self.place(data)
        data[at:at] = taken
