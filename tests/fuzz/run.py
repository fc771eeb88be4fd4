"""Fuzzes the readers for as long as one likes; see ``dev.py fuzz``.

    run.py [READER...] [--runs N] [--seconds S] [--keep] [--list]

Guided by coverage where atheris is installed (libFuzzer for Python), else by the seeded mutations
alone. Each reader starts from its seeds, the corpus and the findings that are kept here, and runs
in a process of its own, N times or for S seconds (default: 20,000 times). What is found is written
as ``findings/READER/KEY``, made as small as keeps it; --keep also writes the corpus anew: some
small inputs that reached what none had reached before.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
LONGEST = 8192
KEPT_INPUT, KEPT_INPUTS = 700, 40  # bytes of an input in the corpus; inputs a reader


def child(name: str, work: Path, options: list[str]) -> int:
    """Runs one reader in this process."""
    try:
        import atheris
    except ImportError:
        atheris = None
    if atheris is None:
        from fuzz import readers
    else:
        prefixes = [
            "attnnet",
            "json",
            "tarfile",
            "tomllib",
            "gzip",
            "zipfile",
            "safetensors",
            "PIL",
        ]
        with atheris.instrument_imports(include=prefixes, enable_loader_override=False):
            import gzip  # noqa: F401
            import tarfile  # noqa: F401

            import tomllib  # noqa: F401

            from fuzz import readers

            _everything()
    from fuzz.watch import limited

    reader = readers.READERS[name]
    one = Once(name, reader, work)
    with limited(768):
        if atheris is not None:
            atheris.Setup(["fuzz", *options], one)
            atheris.Fuzz()  # does not come back
        return alone(name, one, options)


def _everything() -> None:
    """Imports what is imported only when it is needed, so that its coverage is seen."""
    import importlib
    import pkgutil

    import attnnet

    for package in ("data", "training", "interop", "models", "study"):
        for module in pkgutil.iter_modules(importlib.import_module(f"attnnet.{package}").__path__):
            importlib.import_module(f"attnnet.{package}.{module.name}")
    assert attnnet
    from PIL import Image

    Image.init()
    import safetensors  # noqa: F401


class Once:
    """Gives one input to a reader and keeps what is found, each kind once."""

    def __init__(self, name: str, reader: object, work: Path) -> None:
        self.name, self.reader, self.work = name, reader, work
        self.keys: set[str] = set()
        self.place = work / "place"
        self.place.mkdir(exist_ok=True)

    def __call__(self, data: bytes) -> None:
        from fuzz.watch import watched

        found = watched(self.reader, data, self.place)
        if found is None or found.key in self.keys:
            return
        self.keys.add(found.key)
        print(f"FOUND {self.name}: {found.text}", flush=True)
        folder = self.work / "found"
        folder.mkdir(exist_ok=True)
        label = re.sub(r"\W+", "-", found.key).strip("-").lower()
        (folder / label).write_bytes(smaller(data, lambda d: self.same(d, found.key)))

    def same(self, data: bytes, key: str) -> bool:
        from fuzz.watch import watched

        again = watched(self.reader, data, self.place)
        return again is not None and again.key == key


def smaller(data: bytes, still, most: int = 3000) -> bytes:
    """What is left of an input when all is cut away that a finding does not need."""
    tries, size = 0, max(1, len(data) // 2)
    end = time.monotonic() + 60
    while size >= 1:
        at = 0
        while at < len(data) and tries < most and time.monotonic() < end:
            shorter = data[:at] + data[at + size :]
            tries += 1
            if still(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def alone(name: str, one: Once, options: list[str]) -> int:
    """Without atheris: seeded mutations, no coverage."""
    from fuzz.mutate import Mutator
    from fuzz.seeds import WORDS

    given = dict(
        option.split("=") for option in options if option.startswith("-") and "=" in option
    )
    inputs = [p.read_bytes() for p in sorted((one.work / "corpus").iterdir())]
    mutator = Mutator(int(given.get("-seed", 1)), inputs, WORDS[name], LONGEST)
    count, start = 0, time.monotonic()
    runs, seconds = int(given["-runs"]), float(given["-max_total_time"])
    while (runs < 0 or count < runs) and (not seconds or time.monotonic() - start < seconds):
        one(mutator.next())
        count += 1
    print(f"stat::number_of_executed_units: {count}")
    return 0


def fuzz(name: str, options: argparse.Namespace) -> tuple[int, float, int, int]:
    """One reader in a process of its own: (executions, seconds, coverage, findings)."""
    from fuzz.seeds import SEEDS, WORDS
    from fuzz.test_fuzz import known

    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=options.work) as folder:
        work = Path(folder)
        corpus = work / "corpus"
        corpus.mkdir()
        for data in known(name).values():
            (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
        words = work / "words"
        words.write_text("".join(f'"{_quoted(w)}"\n' for w in WORDS[name] if len(w) <= 60))
        command = [
            sys.executable, __file__, "--child", name, folder, f"-runs={options.runs}",
            f"-max_total_time={options.seconds}", f"-max_len={LONGEST}", f"-dict={words}",
            "-timeout=600", "-rss_limit_mb=0", "-print_final_stats=1", "-verbosity=1",
            f"-artifact_prefix={work}/", f"-seed={options.seed}", "-use_value_profile=1",
            str(corpus),
        ]  # fmt: skip
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        seconds = time.monotonic() - start
        text = done.stdout + done.stderr
        counts = re.findall(r"number_of_executed_units:\s*(\d+)", text)
        covered = re.findall(r"cov: (\d+)", text)
        for line in text.splitlines():
            if line.startswith("FOUND"):
                print(line, flush=True)
        if done.returncode or not counts:
            print(f"{name}: ended with {done.returncode}:\n{text[-3000:]}", flush=True)
        found = sorted((work / "found").glob("*")) if (work / "found").exists() else []
        for file in [*found, *work.glob("crash-*"), *work.glob("timeout-*"), *work.glob("oom-*")]:
            target = HERE / "findings" / name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
        if options.keep:
            keep(name, corpus, set(SEEDS[name]()))
        return (
            int(counts[-1]) if counts else 0,
            seconds,
            int(covered[-1]) if covered else 0,
            len(found),
        )


def keep(name: str, corpus: Path, known: set[bytes]) -> None:
    """Writes the corpus of a reader: small inputs that reached what none had reached before."""
    inputs = {p.read_bytes() for p in corpus.iterdir()} - known
    small = sorted((d for d in inputs if 0 < len(d) <= KEPT_INPUT), key=lambda d: (len(d), d))
    small = small[:: max(1, -(-len(small) // KEPT_INPUTS))]
    target = HERE / "corpus" / f"{name}.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text("".join(base64.b85encode(data).decode() + "\n" for data in small))


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    from fuzz.readers import READERS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", help=f"default: all: {', '.join(READERS)}")
    parser.add_argument("--runs", type=int, default=None)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--work", default=None, help="where temporary files go")
    options = parser.parse_args()
    if options.runs is None:
        options.runs = -1 if options.seconds else 20_000
    unknown = set(options.readers) - set(READERS)
    if unknown:
        parser.error(
            f"no such reader: {', '.join(sorted(unknown))}; there are {', '.join(READERS)}"
        )
    total, bad = 0, 0
    for name in options.readers or READERS:
        count, seconds, covered, found = fuzz(name, options)
        total, bad = total + count, bad + found
        print(f"{name:14s} {count:10,d} executions  {seconds:7.0f} s  coverage {covered:6d}  "
              f"{found} findings", flush=True)  # fmt: skip
    print(f"{total:,} executions, {bad} findings")
    return int(bad > 0)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
