"""The history: rows in, CSV and JSON out and in again."""

import csv
import json
import math

import pytest

from attnnet.training.history import History


def rows():
    return [
        {"epoch": 1, "train_loss": 2.5, "train_top1": 10.0, "test_loss": math.nan, "extra": 1},
        {"epoch": 2, "train_loss": 0.1 + 0.2, "train_top1": 20.0, "test_loss": 1.5},
    ]


def test_csv_has_the_usual_columns_first_and_exact_numbers(tmp_path):
    path = tmp_path / "h.csv"
    History(rows()).to_csv(path)
    with open(path, newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["epoch", "train_loss", "train_top1", "test_loss", "extra"]
    assert float(read[1]["train_loss"]) == 0.1 + 0.2
    assert read[1]["extra"] == ""


def test_json_is_strict_and_comes_back(tmp_path):
    path = tmp_path / "h.json"
    history = History(rows())
    history.summary = {"best_top1": 20.0}
    history.interrupted = True
    history.to_json(path)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    back = History.from_json(path)
    assert back[1] == history[1] and math.isnan(back[0]["test_loss"])
    assert back.summary == history.summary and back.interrupted


def test_files_that_are_no_history(tmp_path):
    path = tmp_path / "h.json"
    for text in ("", "[]", "{}", '{"epochs": [1]}', '{"epochs": [{"a": []}]}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"h\.json"):
            History.from_json(path)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "h.csv"
    History(rows()[:1]).to_csv(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", _full_disk)
    with pytest.raises(OSError, match="No space"):
        History(rows()).to_csv(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"


def _full_disk(fd):
    raise OSError(28, "No space left on device")


def test_shown_in_a_notebook_and_a_console():
    history = History(rows())
    assert ">train_loss</th>" in history._repr_html_() and "2 epochs" in repr(history)
    html = History([{"epoch": 1, "test_top1": 10.0, "images_per_second": 97.46}])._repr_html_()
    assert ">10.00</td>" in html and ">97</td>" in html
    assert "<script>" not in History([{"epoch": "<script>"}])._repr_html_()
    assert repr(History()) == "History(no epoch yet)"
