"""Fresh Python processes that import the very attnnet that the tests import.

Python puts the current folder first on its path. In the repository's root that would be the source
tree, even where the installed package is under test: such processes therefore start in a folder
without a package, and find attnnet by PYTHONPATH.
"""

import os
import pathlib
import tempfile

import attnnet

HOME = str(pathlib.Path(attnnet.__file__).parents[1])
UNDER_ASAN = "asan" in os.environ.get("LD_PRELOAD", "")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, with attnnet's home on the path."""
    return {**os.environ, "PYTHONPATH": HOME, "PYTHONUNBUFFERED": "1", **changes}


def neutral_folder() -> str:
    """A folder that holds no package."""
    return tempfile.gettempdir()
