"""Finds OpenBLAS and starts it with the core type that suits this CPU.

OpenBLAS comes from the package ``scipy-openblas32``. ``ATTNNET_OPENBLAS`` names another library
file, for example the system's. On some CPUs its own choice of kernels is a slow or a wrong one
(csrc/base/cpu.h says which): there ``OPENBLAS_CORETYPE`` is set for the moment in which it loads,
unless the user has set it, and put back as it was. A library whose products are wrong is refused.
"""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

try:
    from . import _core
except ImportError:
    folder = Path(__file__).parent
    if any((folder / f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
        raise  # it is there, and says itself what is wrong
    raise ImportError(
        f"the core of attnnet is not compiled in {folder}: these are its sources. Install them "
        "(pip install . in the folder above), and start Python in another folder."
    ) from None


def _library_path() -> str:
    chosen = os.environ.get("ATTNNET_OPENBLAS")
    if chosen:
        return chosen
    try:
        import scipy_openblas32
    except ImportError as error:
        raise ImportError(
            "attnnet needs OpenBLAS: pip install scipy-openblas32, or set ATTNNET_OPENBLAS to the "
            "path of a libopenblas with the usual 32-bit integer interface"
        ) from error
    folder = Path(scipy_openblas32.get_lib_dir())
    return str(folder / scipy_openblas32.get_library(fullname=True))


def load() -> None:
    """Loads OpenBLAS, single-threaded, into the core; the environment is left as it was.

    Raises:
        ImportError: where there is no library, or none with a ``cblas_sgemm`` that works.
    """
    wanted = {"OPENBLAS_NUM_THREADS": "1"}
    core = os.environ.get("OPENBLAS_CORETYPE") or _core.config()["blas_core_wanted"]
    if core is not None:
        wanted["OPENBLAS_CORETYPE"] = core
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        _core.load_blas(_library_path())
    except RuntimeError as error:
        raise ImportError(str(error)) from error
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
