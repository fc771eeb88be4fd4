"""The types that users' checkers and editors see: of the package, and of the core's stub."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import processes
from reference.bindings import CASES

import attnnet
from attnnet import _core

pytest.importorskip("mypy")

HERE = Path(__file__).parent
PACKAGE = Path(attnnet.__file__).parent
SETTINGS = HERE.parents[1] / "pyproject.toml"
STUB = ast.parse((PACKAGE / "_core.pyi").read_text())
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}


def checked(*words, folder, home=PACKAGE.parent):
    """The lines of a mypy module's output; its exit code is in the last one."""
    environment = processes.environment()
    if "site-packages" in environment["PYTHONPATH"]:
        del environment["PYTHONPATH"]  # mypy refuses it
    if "site-packages" not in str(home):
        environment["MYPYPATH"] = str(home)
    done = subprocess.run([sys.executable, "-m", *map(str, words)], cwd=folder, text=True,
                          capture_output=True, env=environment)
    return [*(done.stdout + done.stderr).splitlines(), f"exit {done.returncode}"]


# Other systems, large where they are installed, which attnnet asks for inside functions.
SKIPPED = """
[mypy-torch.*,onnx.*,onnxruntime.*,matplotlib.*,PIL.*,dask.*,distributed.*,IPython.*]
follow_imports = skip
follow_imports_for_stubs = true
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.skipif(not (SETTINGS.parent / "attnnet").is_dir(), reason="needs the source tree")
def test_the_package_is_what_it_says(cache):
    """The tree's, because mypy says nothing of what is installed."""
    found = checked("mypy", "--config-file", SETTINGS, "--cache-dir", cache, "-p", "attnnet",
                    folder=cache, home=SETTINGS.parent)
    assert found[-1] == "exit 0", "\n".join(found)


def test_a_users_program_in_strict_mode(cache):
    program, settings = HERE / "program.py", cache / "user.ini"
    settings.write_text("[mypy]\nstrict = True\nfollow_imports = silent\n" + SKIPPED)
    found = checked("mypy", "--config-file", settings, "--cache-dir", cache / "user", program,
                    folder=cache)
    refused = {int(n) for n in re.findall(rf"{program.name}:(\d+): error", "\n".join(found))}
    lines = program.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(wrong) >= 5 and refused == wrong, "\n".join(found)


def test_the_stub_of_the_core_names_what_it_has(cache):
    settings = cache / "mypy.ini"
    settings.write_text("[mypy]\nfollow_imports = silent\nignore_missing_imports = true\n"
                        "allow_redefinition = true\n" + SKIPPED)
    found = checked("mypy.stubtest", "attnnet._core", "--mypy-config-file", settings,
                    folder=cache)
    assert found[-1] == "exit 0", "\n".join(found)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_stub_takes_what_the_core_takes(name):
    """C functions have no signature to compare: the good call of each stands for it."""
    arguments = FUNCTIONS[name].args
    assert not arguments.args and not arguments.kwonlyargs, "the core takes positions only"
    most = CASES[name].most or len(CASES[name].make())
    assert len(arguments.posonlyargs) == most
    assert bool(arguments.defaults) == (CASES[name].most is not None)


SAMPLES = {"bool": bool, "int": int, "float": float, "str": str, "Tensor": _core.Tensor,
           "NDArray": np.ndarray, "dict": dict, "list": list, "tuple": tuple, "None": type(None),
           "_Tensor": attnnet.Tensor, "_Gates": tuple, "_Config": dict, "_Plan": dict}


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"load_blas", "keep_weights"}))
def test_the_stub_says_what_comes_back(name):
    case = CASES[name]
    result = getattr(_core, name)(*case.make())
    if case.undo:
        case.undo()
    says = ast.unparse(FUNCTIONS[name].returns)
    assert type(result) is SAMPLES[says.split("[")[0]], (says, type(result))


def test_checkers_see_the_names_that_are_loaded_late():
    tree = ast.parse(Path(attnnet.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)
               and ast.unparse(node.test) == "_typing.TYPE_CHECKING"]
    seen = {alias.asname for node in block.body for alias in node.names}
    assert seen == {*attnnet._MODULES, *attnnet._HOME}


def test_public_functions_say_all_their_types():
    """mypy lets a function pass that says nothing; a user's strict mode does not."""
    silent = []
    for module in (attnnet, attnnet.functional, attnnet.nn, attnnet.optim, attnnet.data,
                   attnnet.explain, attnnet.training, attnnet.models, attnnet.interop):
        for name in getattr(module, "__all__", dir(module)):
            thing = getattr(module, name)
            if inspect.isfunction(thing) and thing.__module__.startswith("attnnet"):
                signature = inspect.signature(thing)
                said = [p.annotation for p in signature.parameters.values()]
                if inspect.Signature.empty in [*said, signature.return_annotation]:
                    silent.append(f"{module.__name__}.{name}")
    assert not silent
