"""The Python samples of the README and of the documentation run, and every reference resolves.

Python samples of a page run in order, in one namespace, in an empty folder. A comment in the line
before, `<!-- test: ... -->`, says what a sample needs: "needs CIFAR" the real images, "not run" a
file that only the reader has (it must compile). Command lines are read by the real parser.
"""

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

import attnnet
from attnnet import cli, data
from attnnet.cli.choice import add_imports_argument
from attnnet.cli.parser import Parser
from attnnet.training import presets

ROOT = Path(__file__).parents[1]
PAGES = {str(page.relative_to(ROOT)): page.read_text()
         for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
FENCE = re.compile(r"(?:^<!-- test: ([\w ]+) -->\n)?^```(\w+)\n(.*?)^```$",
                   re.MULTILINE | re.DOTALL)


def blocks(text, language):
    """(what it needs, first line's number, code) of each block in a language."""
    return [(found[1], text[: found.start(3)].count("\n") + 1, found[3])
            for found in FENCE.finditer(text) if found[2] == language]


SAMPLES = {name: blocks(text, "python") for name, text in PAGES.items()
           if blocks(text, "python")}
SHELL = {name: blocks(text, "sh") for name, text in PAGES.items() if blocks(text, "sh")}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """An empty folder, and sizes that make a page that leaves them open take seconds."""
    name, fields = presets._PRESETS["shapes"]
    few = {"limit_train": 64, "limit_test": 32, "batch_size": 16}
    monkeypatch.setitem(presets._PRESETS, "shapes", (name, {**fields, **few}))
    load = data.load

    def load_few(name, *args, **options):
        if name == "shapes":
            options = {"train_count": 64, "test_count": 32, **options}
        return load(name, *args, **options)

    monkeypatch.setattr(data, "load", load_few)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", sorted(SAMPLES))
def test_samples_run(page, small, request, monkeypatch):
    namespace = {"__name__": "sample"}
    skipped = None
    for needs, line, code in SAMPLES[page]:
        # Errors and tracebacks name the page and its line.
        compiled = compile("\n" * (line - 1) + code, str(ROOT / page), "exec")
        assert needs in (None, "needs CIFAR", "not run"), needs
        if needs == "needs CIFAR":
            try:
                monkeypatch.setenv("ATTNNET_DATA", str(request.getfixturevalue("cifar_root")))
            except pytest.skip.Exception as reason:
                skipped = reason
                continue
        if needs != "not run":
            exec(compiled, namespace)
    if skipped:
        pytest.skip(f"all but the samples on CIFAR ran: {skipped}")


def commands(text):
    """(command line, whether in the prose) of attnnet: in shell blocks, and in `...`."""
    lines = [(line.split(" #")[0].strip(), False) for _, _, code in blocks(text, "sh")
             for line in code.splitlines()]
    lines = [(re.sub(r"^mpi(exec|run) -n \d+ ", "", line), prose) for line, prose in lines]
    prose = FENCE.sub("", text)
    lines += [(" ".join(span.split()), True) for span in re.findall(r"`([^`]+)`", prose)]
    return [(line, is_mention) for line, is_mention in lines
            if line.startswith("attnnet ") and line.split()[1].strip("-").islower()]


def parse(line, is_mention):
    """Parses a command line as `attnnet` does, and does nothing else. A mention in the prose may
    name a command alone."""
    words = shlex.split(line)[1:]
    if words[0].startswith("-"):
        return
    assert words[0] in cli.COMMANDS, f"no such command: {line}"
    if is_mention and len(words) == 1:
        return
    module = importlib.import_module(f"attnnet.cli.{words[0]}")
    parser = Parser(prog=f"attnnet {words[0]}")
    module.add_arguments(parser)
    if words[0] in cli._OF_MODELS:
        add_imports_argument(parser)
    parser.parse_args(words[1:])


@pytest.mark.parametrize("page", sorted(name for name in PAGES if commands(PAGES[name])))
def test_command_lines_parse(page, capsys):
    for line, is_mention in commands(PAGES[page]):
        try:
            parse(line, is_mention)
        except SystemExit:
            pytest.fail(f"{page}: {line}: {capsys.readouterr().err}")


def test_scripts_that_shell_samples_name_are_there():
    for page, found in SHELL.items():
        for _, _, code in found:
            for name in re.findall(r"python3? (\S+\.py)", code):
                assert (ROOT / name).is_file(), f"{page}: {name}"


IDENTIFIERS = {name: page for page, text in PAGES.items()
               for name in re.findall(r"^::: (\S+)", text, re.MULTILINE)}


def resolve(name):
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing
    raise ImportError(name)


def test_the_reference_is_complete():
    """Every public function and class has an entry, and every entry a docstring."""
    entries = {id(resolve(name)): name for name in IDENTIFIERS}
    assert all(inspect.getdoc(resolve(name)) for name in IDENTIFIERS)
    missing = []
    for module in ("", ".data", ".explain", ".interop", ".models", ".nn", ".optim", ".study",
                   ".training"):
        home = importlib.import_module(f"attnnet{module}")
        for name in home.__all__:
            thing = getattr(home, name)
            known = id(thing) in entries or inspect.ismodule(thing)
            if (inspect.isfunction(thing) or inspect.isclass(thing)) and not known:
                missing.append(f"{home.__name__}.{name}")
    assert not missing


def test_links_between_pages():
    """MkDocs checks those of the site; these are the README's, and files beside it."""
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES["README.md"]):
        assert (ROOT / target).exists(), target


def test_the_walk_of_a_batch_names_what_is_there():
    page = PAGES["docs/architecture.md"]
    walk = page.split("## The walk of one batch")[1].split("## Decisions")[0]
    sources = [*(ROOT / "csrc").rglob("*.[ch]"), *(ROOT / "attnnet").rglob("*.py")]
    words = set(re.findall(r"\w+", "\n".join(path.read_text() for path in sources)))
    named = re.findall(r"`([\w./]+)(?:\(\))?`", walk)
    gone = [name for name in named if name.split(".")[-1] not in words
            and not (ROOT / "csrc" / name).is_file()]
    assert len(named) > 25 and not gone


def test_versions_agree():
    version = attnnet.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_tables_of_commands_are_complete():
    text = PAGES["docs/reference/command_line.md"]
    assert dict(re.findall(r"^\| `attnnet (\w+)` \| (.*) \|$", text, re.MULTILINE)) == cli.COMMANDS


def test_samples_are_python():
    for page, found in SAMPLES.items():
        for _, line, code in found:
            ast.parse(code, f"{page} from line {line}")
