"""``attnnet study`` in this process: plans from options and files, what it prints and returns."""

import json

import pytest

from attnnet.cli import main
from study.small import RECIPE, plan
from study.synthetic import make

PLAN = "--imports study.small --networks small --datasets shapes --blocks SE --stages 1 --seeds 2"
SET = "--set " + " ".join(f"{name}={value}" for name, value in RECIPE.items())


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def study(words):
    return main(["study", *words.split()])


def test_runs_then_says_what_came_out(capsys, tmp_path):
    assert study(f"{PLAN} {SET} --workers 0 --no-progress --output s") == 0
    out = capsys.readouterr().out
    assert "study study: 0 of 4 runs done\n" in out and "small on shapes:\n" in out
    assert "SE_1: " in out and "report: s/report.html\n" in out
    assert (tmp_path / "s" / "report.html").exists() and (tmp_path / "s" / "report.md").exists()
    record = json.loads((tmp_path / "s" / "study.json").read_text())
    assert record["commands"][0].startswith(f"attnnet study {PLAN} --set ")
    assert record["plan"]["recipe"] == RECIPE and record["plan"]["seeds"] == [42, 43]
    assert study("--resume s --workers 0 --no-progress") == 0
    assert "study study: 4 of 4 runs done\n" in capsys.readouterr().out


def test_failed_runs_are_told_in_the_exit_code(capsys):
    words = PLAN.replace("--blocks SE", "--blocks NANS").replace("study.small", "study.small "
                         "study.trouble")  # fmt: skip
    assert study(f"{words} {SET} --workers 0 --no-progress --output s") == 1
    assert "failed: small-NANS_1-shapes-s42: the loss is NaN" in capsys.readouterr().out


def test_the_list_of_runs(capsys, tmp_path):
    assert study("--preset resnet18-cifar100 --seeds 5 6 --set epochs=7 nesterov=true --list") == 0
    assert capsys.readouterr().out == (
        "study resnet18-cifar100: 10 runs\n"
        "resnet18 on cifar100: 7 epochs of 128 images a step, sgd lr 0.1 cosine momentum 0.9 "
        "(Nesterov), weight decay 0.0005; 10 % of the training images held out\n"
        "  base, SE_SA_12, SEC_SA_12, CBAM_12, NEW_12\n"
        "  seeds 5, 6\n"
    )
    assert not list(tmp_path.iterdir()), "a list writes nothing"


def test_a_plan_in_a_file(capsys, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({**plan().to_dict(), "name": "mine"}))
    assert study("mine.json --seeds 3 --set epochs=9 --list") == 0
    out = capsys.readouterr().out
    assert "study mine: 6 runs" in out and "9 epochs of 32 images a step, adamw" in out
    (tmp_path / "short.json").write_text(json.dumps({"networks": "vgg11"}))
    assert study("short.json --list") == 0 and "study short: 1 runs" in capsys.readouterr().out


def test_the_report_alone(capsys, tmp_path):
    make(tmp_path / "s", plan(), {None: 0.7, "SE_1": 0.71}, spread=0.01)
    assert study("--report s") == 0
    assert capsys.readouterr().out == "report: s/report.html\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "which study? Give a plan's file, --preset NAME, --resume DIR or options."),
        ("--preset shapes-quik", "Did you mean 'shapes-quick'?"),
        ("--preset shapes-quick --blocks CBM", "Did you mean 'CBAM'?"),
        ("--preset shapes-quick --resume s", "give a plan's file, --preset or --resume, one"),
        ("--preset shapes-quick --set epoch=3", "Did you mean 'epochs'?"),
        ("--preset shapes-quick --set epochs", "--set: got 'epochs'; expected FIELD=VALUE"),
        ("--preset shapes-quick --set epochs=x", "--set epochs: got 'x'; expected a whole number"),
        ("--preset shapes-quick --set nesterov=y", "--set nesterov: got 'y'; expected true or"),
        ("--preset shapes-quick --workers -1", "workers is -1; expected a whole number"),
        ("--preset shapes-quick --sedes 3", "Did you mean --seeds?"),
        ("--resume s --seeds 3", "--resume goes on with the plan in the folder; --seeds would"),
        ("--resume s --output t", "--resume goes on in the study's own folder; leave --output out"),
    ],
)
def test_wrong_words(capsys, words, expected):
    assert study(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and expected in err


@pytest.mark.parametrize("words", ["--resume s", "--report s"])
def test_no_study_there(capsys, words):
    assert study(words) == 1
    assert "s: holds no study" in capsys.readouterr().err


def test_ready_studies_are_listed(capsys):
    assert main(["list", "studies"]) == 0
    assert "shapes-quick" in capsys.readouterr().out
