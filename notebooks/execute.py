#!/usr/bin/env python3
"""Executes the lessons from nothing and stores them with their outputs, as a code host shows them.

    python3 dev.py notebooks        in an environment of its own: about a quarter of an hour

They run in a folder that is removed afterwards, without CIFAR and without a cache, so that all is
made on `shapes`. Needs attnnet with matplotlib, nbclient and ipykernel, and no ipywidgets, whose
bars would be stored as nothing.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

LESSONS = ("demo_training", "demo_inference")


def execute(path: Path, folder: str) -> None:
    """Executes a notebook in a folder and writes it back."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": folder}}
    NotebookClient(notebook, timeout=3600, kernel_name="python3", resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times of day
        if cell.cell_type == "code":
            cell.outputs = tidied(cell.outputs)
    nbformat.write(notebook, path)


def tidied(outputs: list) -> list:
    """Lines that were printed one by one as one text; of a picture's two formats the sharp one."""
    kept: list = []
    for output in outputs:
        before = kept[-1] if kept else {}
        if output.output_type == "stream" and before.get("name") == output.name:
            before["text"] += output.text
            continue
        if "image/png" in output.get("data", {}):
            output.data.pop("image/jpeg", None)
        kept.append(output)
    return kept


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("ATTNNET_DATA", None)
        os.environ["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
        for name in LESSONS:
            print(f"{name} ...", flush=True)
            execute(Path(__file__).with_name(f"{name}.ipynb"), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
