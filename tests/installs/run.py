"""Builds what users install, looks into it, and tests it; see ``dev.py wheel``.

    run.py [--all] [--numpy VERSION...] [PYTHON...] [-- PYTEST ARGS...]

An sdist, and from it a wheel for each PYTHON (default: the one that runs this), each in an
environment of its own. What is looked for: files that are missing or too many, names of folders of
this machine, the platform that the wheel fits (auditwheel), the oldest glibc. Then the wheel is
installed without a compiler, with each NumPy (default: the newest; "oldest" is the one that the
metadata allow), and the tests run against it from another folder: a selection, or all with --all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
TESTS = ["tests/core/test_tensor.py", "tests/core/test_autograd.py", "tests/core/test_dlpack.py",
         "tests/core/test_system.py", "tests/ops/test_inputs.py", "tests/ops/test_shapes.py",
         "tests/ops/test_convolution.py", "tests/nn", "tests/models/test_models.py",
         "tests/models/test_predict.py", "tests/data/test_loader.py", "tests/data/test_augment.py",
         "tests/data/test_pickle_reader.py", "tests/test_optim.py",
         "tests/training/test_checkpoint.py", "tests/training/test_trainer.py",
         "tests/interop/test_torch_file.py", "tests/cli/test_commands.py"]
BESIDE = {"pyproject.toml", "README.md", "CHANGELOG.md", "CITATION.cff", "dev.py", "mkdocs.yml",
          "docs", "notebooks", "tests"}
NO_COMPILER = {"CC": "false", "CXX": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
FIRST_NUMPY = {"3.13": "2.1", "3.14": "2.3"}  # where that is later than what the metadata allow
failures: list[str] = []


def run(*command: object, cwd: Path | None = None, **variables: str) -> int:
    environment = {**os.environ, **variables}
    environment.pop("PYTHONPATH", None)
    return subprocess.run([str(c) for c in command], cwd=cwd, env=environment).returncode


def must(*command: object, **options: object) -> None:
    if code := run(*command, **options):
        raise SystemExit(f"failed ({code}): {' '.join(map(str, command))}")


def check(holds: bool, what: str) -> None:
    print(f"{'ok    ' if holds else 'WRONG '} {what}", flush=True)
    if not holds:
        failures.append(what)


def build_sdist(python: Path) -> Path:
    """The sdist, which must hold all that is under version control."""
    shutil.rmtree(DIST, ignore_errors=True)
    must(python, "-m", "build", "--sdist", "--outdir", DIST, ROOT)
    sdist = next(DIST.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    tracked = {name for name in listed.stdout.splitlines() if not name.startswith(".")}
    check(not tracked - names, f"sdist: nothing missing {sorted(tracked - names)[:5] or ''}")
    extra = {n for n in names if n.endswith((".so", ".o", ".pyc")) or n.startswith("build/")}
    check(not extra, f"sdist: nothing built in it {sorted(extra)[:5] or ''}")
    return sdist


def environment(folder: Path, python: str, *packages: str, **variables: str) -> Path:
    """A new virtual environment of a Python; the path of its interpreter."""
    if python == sys.executable:
        venv.create(folder, with_pip=True)
    else:
        must(python, "-m", "venv", folder)
    inside = folder / "bin" / "python"
    if packages:
        must(inside, "-m", "pip", "install", "--quiet", *packages, **variables)
    return inside


def look_into(wheel: Path, tools: Path) -> None:
    """What is in the wheel, and what it asks of a system."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        content = {name: archive.read(name) for name in names}
    package = [n for n in names if n.startswith("attnnet/")]
    core = [n for n in package if n.endswith(".so")]
    check(len(core) == 1, f"wheel: one extension {core}")
    check({"attnnet/py.typed", "attnnet/_core.pyi"} <= {*package}, "wheel: types")
    check(any(n.endswith("/licenses/LICENSE") for n in names), "wheel: licence")
    here = {n for n in package if "." in n.rsplit("/", 1)[1] and not n.endswith((".so", ".pyi"))}
    there = {str(p.relative_to(ROOT)) for p in (ROOT / "attnnet").rglob("*.py")}
    check(here - {"attnnet/py.typed"} == there, "wheel: the modules of the tree, and no others")
    paths = {str(ROOT), str(Path.home()), tempfile.gettempdir() + "/", sys.base_prefix,
             sys.prefix, "/build-env-", "/pip-"}
    paths -= {"/usr", "/"}
    found = sorted({path for path in paths for data in content.values() if path.encode() in data})
    check(not found, f"wheel: no folder of this machine {found or ''}")
    for name in core:
        versions = re.findall(rb"GLIBC_(\d+)\.(\d+)(?:\.\d+)?\0", content[name])
        newest = max((int(a), int(b)) for a, b in versions)
        print(f"       {len(content[name]) / 1e6:.1f} MB extension, "
              f"{wheel.stat().st_size / 1e6:.1f} MB wheel, glibc {newest[0]}.{newest[1]} or newer")
    shown = subprocess.run([tools.with_name("auditwheel"), "show", wheel], text=True,
                           capture_output=True)
    tag = re.search(r'tag: "(\w+)"', shown.stdout.replace("\n", " "))
    check(bool(tag) and tag[1].startswith("manylinux"), f"auditwheel: {tag and tag[1]}")


def oldest_numpy(python: str) -> str:
    """The oldest that the metadata allow and that there is a wheel of for this Python."""
    version = subprocess.run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                             capture_output=True, text=True, check=True).stdout.strip()
    if version in FIRST_NUMPY:
        return f"=={FIRST_NUMPY[version]}.*"
    found = re.search(r'"numpy>=([\d.]+)"', (ROOT / "pyproject.toml").read_text().split(
        "dependencies")[1])
    assert found
    return f"=={found[1]}.*"


def test_wheel(wheel: Path, python: str, numpy: str, folder: Path, arguments: list[str]) -> None:
    """Installs the wheel without a compiler and runs tests against it, from another folder."""
    named = {"oldest": oldest_numpy(python), "newest": ""}
    wanted = named.get(numpy, f"=={numpy}")
    inside = environment(folder / "venv", python, "--only-binary", ":all:", str(wheel),
                         f"numpy{wanted}", "pillow", "matplotlib", "pytest", "hypothesis",
                         **NO_COMPILER)
    place = folder / "elsewhere"
    place.mkdir()
    for name in BESIDE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, place)
    said = "import attnnet, numpy, platform as p; print(p.python_version(), numpy.__version__, " \
           "attnnet.__file__)"
    must(inside, "-c", said, cwd=place, **NO_COMPILER)
    code = run(inside.with_name("pytest"), "-q", "-p", "no:cacheprovider", *arguments, cwd=place,
               **NO_COMPILER)
    version = subprocess.run([inside, "-VV"], capture_output=True, text=True).stdout.split("(")[0]
    check(code == 0, f"tests: {version.strip()}, {numpy} NumPy")


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    words, chosen = arguments[:split], arguments[split + 1 :]
    chosen = chosen or (["tests"] if "--all" in words else TESTS)
    words = [word for word in words if word != "--all"]
    numpys = ["newest"]
    if "--numpy" in words:
        at = words.index("--numpy")
        end = next((i for i in range(at + 1, len(words)) if not words[i].isalnum()
                    and not re.fullmatch(r"[\d.]+", words[i])), len(words))
        numpys, words[at:end] = words[at + 1 : end], []
    pythons = words or [sys.executable]
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        tools = environment(base / "tools", sys.executable, "build", "auditwheel")
        sdist = build_sdist(tools)
        for number, python in enumerate(pythons):
            builder = environment(base / f"build{number}", python)
            before = {*DIST.glob("*.whl")}
            must(builder, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", DIST, sdist)
            wheel = ({*DIST.glob("*.whl")} - before).pop()
            print(f"-- {wheel.name}", flush=True)
            look_into(wheel, tools)
            for numpy in numpys:
                test_wheel(wheel, python, numpy, base / f"test{number}-{numpy}", chosen)
    print(f"{len(failures)} wrong" + "".join(f"\n  {what}" for what in failures))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
