"""The studies that the documentation shows: their reports say what their files say."""

from pathlib import Path

import pytest

from attnnet.study import Results
from attnnet.study.report import markdown
from attnnet.study.tables import rows_csv, runs_csv

KEPT = sorted(p.parent for p in Path(__file__).parents[2].glob("docs/studies/*/study.json"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_the_report_is_that_of_the_files(folder):
    results = Results(folder)
    texts = {"report.md": str(markdown(results)), "rows.csv": rows_csv(results),
             "runs.csv": runs_csv(results)}  # fmt: skip
    assert {name: (folder / name).read_text() for name in texts} == texts
