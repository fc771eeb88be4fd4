"""The command line, run in this process: help, errors in one line, the commands themselves."""

import dataclasses
import json
import os

import pytest
import training.tiny  # noqa: F401  registers the network "tiny"

import attnnet
from attnnet.cli import COMMANDS, main
from attnnet.cli.train import _GROUPS
from attnnet.training import Recipe


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


QUICK = "--arch tiny --block none --epochs 1 --warmup-epochs 0.5 --limit-train 40 --limit-test 20"


def train(*more):
    return main(["train", *QUICK.split(), "--batch-size", "20", "--no-progress", *more])


def test_help_names_every_command_and_option(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in COMMANDS)
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    for field in dataclasses.fields(Recipe):
        assert f"--{field.name.replace('_', '-')}" in out
    assert max(map(len, out.splitlines())) <= 100
    assert main([]) == 2


def test_every_field_of_the_recipe_is_an_option():
    fields = [field.name for field in dataclasses.fields(Recipe)]
    assert sorted(name for names in _GROUPS.values() for name in names) == sorted(fields)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"attnnet {attnnet.__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", "unknown command 'trian'. Did you mean train?"),
        ("train --ephocs 3", "unknown option '--ephocs'. Did you mean --epochs?"),
        ("train --epochs x", "argument --epochs: got 'x'; expected a whole number"),
        ("train --lr x", "argument --lr: got 'x'; expected a number"),
        ("train --milestones 3,x", "argument --milestones: got '3,x'; expected whole numbers"),
        ("train --epochs 0", "recipe: epochs is 0; expected a whole number of at least 1."),
        ("train --arch resnt18", "unknown model 'resnt18'. Did you mean 'resnet18'?"),
        ("train --block CBM_12", "Did you mean 'CBAM'?"),
        ("train --dataset cifr10", "unknown data set 'cifr10'. Did you mean 'cifar10'?"),
        ("train --preset shape", "unknown preset 'shape'. Did you mean 'shapes'?"),
        ("train --optimizer adam", "unknown choice 'adam'. Did you mean adamw?"),
        ("train --threads 0", "argument --threads: got '0'; expected a whole number of at least 1"),
        ("train --preset shapes --resume x", "not allowed with argument"),
        ("list modls", "unknown choice 'modls'. Did you mean models?"),
        ("evaluate", "the following arguments are required: checkpoint"),
    ],
)
def test_wrong_words_are_one_line_and_code_2(capsys, words, expected):
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("attnnet")
    assert expected in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --resume nowhere", "nowhere: no such checkpoint."),
        ("train --recipe none.json", "none.json: No such file or directory"),
        ("train --dataset folder:nowhere --epochs 2", "nowhere"),
        ("evaluate missing.safetensors", "missing.safetensors: no such checkpoint."),
        ("evaluate text.safetensors", "truncated, corrupt or not a checkpoint (5 bytes)"),
    ],
)
def test_failures_are_one_line_and_code_1(capsys, words, expected):
    with open("text.safetensors", "w") as file:
        file.write("hello")
    assert main(words.split()) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("attnnet: error: ") and expected in err


def test_a_bug_is_not_hidden(monkeypatch):
    def broken():
        raise TypeError("a bug")

    monkeypatch.setattr(attnnet.training.presets, "list_presets", broken)
    with pytest.raises(TypeError, match="a bug"):
        main(["list", "presets"])


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("ATTNNET_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown preset"):
        main(["train", "--preset", "x"])


def test_train_evaluate_and_go_on(capsys):
    assert train("--epochs", "2", "--stop-after", "1", "--threads", "2") == 0
    out = capsys.readouterr().out
    folder = os.path.join("runs", "tiny-base-shapes")
    assert f"to go on: attnnet train --resume {folder}" in out
    assert f"checkpoint: {folder}/best.safetensors" in out and "accuracy: " in out
    assert os.path.exists(os.path.join(folder, "result.png"))
    assert main(["train", "--resume", folder, "--no-progress"]) == 0
    out = capsys.readouterr().out
    assert "goes on at epoch 2, step 1" in out and "epoch 2/2" in out
    assert main(["evaluate", folder]) == 0
    table = capsys.readouterr().out
    assert main(["evaluate", folder, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 20 and f"top-1 {result['top1']:.2f} %" in table
    with open(os.path.join(folder, "history.json")) as file:
        assert json.load(file)["summary"]["test_top1"] == result["top1"]
    assert main(["evaluate", folder, "--limit", "10", "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 10


def test_folders_are_new_unless_named(capsys):
    assert train() == 0 and train() == 0
    assert sorted(os.listdir("runs")) == ["tiny-base-shapes", "tiny-base-shapes-2"]
    capsys.readouterr()
    assert train("--output", "runs/tiny-base-shapes") == 1
    assert "holds a training already" in capsys.readouterr().err
    assert train("--output", "runs/tiny-base-shapes", "--overwrite") == 0


def test_resume_takes_its_recipe_from_the_checkpoint(capsys):
    assert train("--output", "a") == 0
    capsys.readouterr()
    assert main(["train", "--resume", "a", "--lr", "3"]) == 2
    assert "--lr would change it" in capsys.readouterr().err


def test_a_recipe_file_with_options_on_top(capsys):
    with open("mine.json", "w") as file:
        json.dump({"preset": "shapes", "arch": "vgg13", "block": None, "epochs": 9}, file)
    words = [*QUICK.split(), "--recipe", "mine.json", "--output", "a", "--seed", "7"]
    assert main(["train", *words]) == 0
    recipe = Recipe.from_file("a/recipe.json")
    assert (recipe.arch, recipe.epochs, recipe.seed) == ("tiny", 1, 7)


def test_options_of_every_kind():
    from attnnet.cli.parser import Parser
    from attnnet.cli.train import add_arguments, read_recipe

    parser = Parser()
    add_arguments(parser)
    words = (
        "--dataset cifar100 --arch vgg16 --block none --validation 0.1 --mean 0.5,0.5,0.5 "
        "--std 0.2 0.2,0.2 --milestones 10,20 --schedule multistep --nesterov --clip-norm 2 "
        "--limit-train none --no-test-flip --seed 3"
    )
    recipe = read_recipe(parser.parse_args(words.split()))
    assert recipe == Recipe.preset(
        "vgg19-cifar10", dataset="cifar100", arch="vgg16", validation=0.1, mean=(0.5,) * 3,
        std=(0.2,) * 3, milestones=(10, 20), schedule="multistep", nesterov=True, clip_norm=2.0,
        seed=3,
    )  # fmt: skip
    args = parser.parse_args(["--validation", "5000"])
    assert read_recipe(args) == Recipe.preset("shapes", validation=5000)


def test_other_classes_than_the_models_are_refused(capsys, tmp_path):
    from PIL import Image

    assert train("--output", "a") == 0
    for name in ("cat", "dog"):
        os.makedirs(tmp_path / "pets" / name)
        for i in range(5):
            Image.new("RGB", (32, 32), (i * 9, 0, 0)).save(tmp_path / "pets" / name / f"{i}.png")
    capsys.readouterr()
    assert main(["evaluate", "a", "--dataset", "folder:pets"]) == 1
    assert "the model knows the classes disk, ring, square, ... (10)" in capsys.readouterr().err


def test_list(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in [*attnnet.list_models(), *attnnet.list_blocks(), "cifar100", "vgg19-cifar10"]:
        assert f"  {name}" in out
    assert main(["list", "presets"]) == 0
    assert "NEW at stages 1 and 2" in capsys.readouterr().out
