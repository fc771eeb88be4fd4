"""The two lessons, executed from nothing: ten trainings, then looking at them.

Here with a tenth of their images; ``dev.py notebooks`` executes and stores them whole.
"""

import os
from pathlib import Path

import pytest
from reference import processes

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
NotebookClient = pytest.importorskip("nbclient").NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# What a lesson says, and what is put in its place here.
SMALLER = {
    "epochs=3, batch_size=16, lr=1e-3, limit_train=1500, limit_test=500":
        "epochs=2, batch_size=16, lr=1e-3, limit_train=150, limit_test=50",
    "limit_train=2000": "limit_train=160",
    "shapes.images[:500], shapes.masks[:500]": "shapes.images[:50], shapes.masks[:50]",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where both run, so that the second finds what the first has trained; no data, no cache."""
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in processes.environment(XDG_CACHE_HOME=str(folder / "cache")).items():
            patch.setenv(name, value)
        patch.delenv("ATTNNET_DATA", raising=False)
        yield folder


@pytest.mark.parametrize(
    ("name", "smaller", "pictures"), [("demo_training", 2, 4), ("demo_inference", 3, 15)]
)
def test_lesson(folder, name, smaller, pictures):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    found = 0
    for cell in notebook.cells:
        for text, instead in SMALLER.items():
            found += text in cell.source
            cell.source = cell.source.replace(text, instead)
    assert found == smaller, "the lesson has other numbers now"
    options = {"timeout": 1800, "kernel_name": "python3", "allow_errors": False}
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **options).execute()
    kinds = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", ())
    ]
    assert kinds.count("image/png") >= pictures
    assert len(os.listdir(folder / "runs")) >= 10


@pytest.mark.parametrize("name", ["demo_training", "demo_inference"])
def test_lesson_is_stored_as_it_was_executed(name):
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    errors = [o for cell in cells for o in cell.get("outputs", ()) if o.output_type == "error"]
    assert not errors
