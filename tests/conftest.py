"""What every test may use."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# Shells let what runs in the background ignore Ctrl-C, and children inherit that; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Keeps what is there before the first test, PyTorch and thousands of tests, out of the
    collections of garbage that tests ask for: half a second each otherwise."""
    gc.collect()
    gc.freeze()


def pytest_configure(config):
    config.addinivalue_line("markers", "own_process: runs in a Python of its own, where no other "
                            "test has left anything")  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Of a test marked so, has pytest run that one in another process; True says that it ran."""
    if not pyfuncitem.get_closest_marker("own_process") or "ATTNNET_OWN_PROCESS" in os.environ:
        return None
    code = f"import sys; sys.path[:] = {sys.path!r}; import pytest; sys.exit(pytest.main())"
    test = f"{pyfuncitem.path}::{pyfuncitem.name}"
    done = subprocess.run([sys.executable, "-c", code, "-q", "-p", "no:cacheprovider", test],
                          env={**os.environ, "ATTNNET_OWN_PROCESS": "1"}, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return True


REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("cifar-10-batches-py", "cifar-100-python")


def _complete(folder: Path) -> bool:
    return (folder / FOLDERS[0] / "batches.meta").is_file() and \
        (folder / FOLDERS[1] / "meta").is_file()


@pytest.fixture(scope="session")
def cifar_root(request, tmp_path_factory) -> Path:
    """A folder with the unpacked real CIFAR-10 and CIFAR-100; skips where there are none.

    It is ATTNNET_DATA if that holds both; else what the script beside the repository unpacks, once
    (15 seconds, into pytest's cache).
    """
    named = os.environ.get("ATTNNET_DATA")
    if named and _complete(Path(named)):
        return Path(named)
    script = REPOSITORY.parent / "shared" / "data" / "unpack_cifar.py"
    if not script.is_file():
        pytest.skip("real CIFAR not found: set ATTNNET_DATA to a folder that holds "
                    + " and ".join(FOLDERS))
    cache = getattr(request.config, "cache", None)  # none with -p no:cacheprovider
    target = Path(cache.mkdir("cifar")) if cache else tmp_path_factory.mktemp("cifar")
    whole = target / "whole"
    if not _complete(whole):  # into a folder of its own first: another process may do the same
        made = tempfile.mkdtemp(dir=target)
        subprocess.run([sys.executable, str(script), made], check=True)
        try:
            os.rename(made, whole)
        except OSError:
            shutil.rmtree(made)
            assert _complete(whole), f"{whole} is spoilt: remove it"
    return whole
