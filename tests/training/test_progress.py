"""What a training shows: durations, lines, bars only where there is room for them."""

import io
import sys

import pytest

from attnnet.training import Trainer, progress

from .tiny import recipe


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


def test_the_line_of_an_epoch():
    row = {
        "epoch": 3, "train_loss": 2.85, "train_top1": 28.4, "test_loss": 2.71, "test_top1": 31.0,
        "lr": 0.0999, "images_per_second": 411.6, "seconds": 130.0, "skipped": 0,
    }  # fmt: skip
    assert progress.epoch_line(row, 200, 7800.0) == (
        "epoch   3/200  loss 2.8500  acc 28.40 %  test loss 2.7100  test acc 31.00 %  lr 0.0999  "
        "412 images/s  ETA 2 h 10 min"
    )
    assert "2 steps skipped (NaN)" in progress.epoch_line({**row, "skipped": 2}, 200, None)


def test_no_bar_in_a_pipe(tmp_path, capsys):
    Trainer(recipe(epochs=1, warmup_epochs=0.5), tmp_path).fit()
    out, err = capsys.readouterr()
    assert err == "" and "\r" not in out
    assert out.splitlines()[0].startswith("tiny base on shapes: ")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_in_a_terminal_that_goes_away(tmp_path, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    Trainer(recipe(epochs=2), tmp_path).fit()
    shown = terminal.getvalue()
    assert "epoch 1/2" in shown and "epoch 2/2" in shown and "evaluation" in shown
    assert shown.rstrip(" ").endswith("\r"), "the last bar is wiped out"
    assert "epoch 2/2  loss" in capsys.readouterr().out
    terminal.truncate(0)
    Trainer(recipe(epochs=1, warmup_epochs=0.5), tmp_path / "b", progress="lines").fit()
    assert terminal.getvalue() == ""


def test_an_estimate_of_what_is_left(tmp_path):
    trainer = Trainer(recipe(), tmp_path, progress=False)
    assert trainer.remaining_seconds() is None
    trainer.fit(stop_after=2)
    assert trainer.remaining_seconds() == 0.0


@pytest.mark.parametrize("wrong", ["line", "bar", 2, None])
def test_what_is_no_way_to_show_progress_is_refused(wrong):
    with pytest.raises(ValueError, match=r"progress is .*; expected True, False or 'lines'"):
        Trainer(recipe(), False, progress=wrong)
