"""Modules of one's own: where they are looked for."""

import os
import subprocess
import sys

from reference import processes

import attnnet


def test_what_is_installed_comes_before_the_current_folder(tmp_path):
    """Beside a source tree, whose package is not built, workers would import that."""
    (tmp_path / "attnnet").mkdir()
    (tmp_path / "attnnet" / "__init__.py").write_text("raise ImportError('the wrong one')")
    (tmp_path / "own_module.py").write_text("print('here')")
    home = os.path.dirname(os.path.dirname(attnnet.__file__))
    code = (
        f"import sys; sys.path.remove(''); sys.path.insert(0, {home!r})\n"
        "from attnnet.own import import_modules; before = list(sys.path)\n"
        "import_modules([], 'x'); assert sys.path == before\n"
        "import_modules(['own_module'], 'x')\n"
        f"assert sys.path == [*before, {str(tmp_path)!r}]"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, env=processes.environment())
    assert done.returncode == 0 and done.stdout == "here\n", done.stderr
