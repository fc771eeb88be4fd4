"""Plans: what they become, and what is refused before anything starts."""

import itertools
import json

import pytest

import attnnet
from attnnet.nn.registry import find_block
from attnnet.study import Family, Plan, checks, list_plans
from attnnet.study.presets import PUBLISHED
from study.small import RECIPE, plan


def test_a_plan_is_every_combination_seed_by_seed():
    made = plan(blocks=["SE", "CBAM", "SA_12"], stages=["1", "12"], seeds=[3, 1])
    assert [run.block for run in made.runs[:6]] == [
        None, "SE_1", "SE_12", "CBAM_1", "CBAM_12", "SA_12",
    ]  # fmt: skip
    assert [run.seed for run in made.runs] == [3] * 6 + [1] * 6
    assert made.families == [Family("small", "shapes", "usual")]
    assert made.placements(made.families[0])[-1] == "SA_12"
    names = [run.name for run in made.runs]
    assert names[0] == "small-base-shapes-s3" and len(set(names)) == 12
    for run in made.runs:
        assert (run.recipe.arch, run.recipe.block, run.recipe.seed) == \
            ("small", run.block, run.seed)  # fmt: skip
        assert run.recipe.epochs == 2 and run.recipe.validation == 0.1


def test_the_recipe_is_that_of_network_and_data_unless_named():
    made = Plan.preset("vgg19-cifar10")
    assert made.runs[0].recipe == attnnet.Recipe.preset("vgg19-cifar10", validation=0.1)
    two = Plan.preset(
        "resnet18-cifar100",
        recipes={"study": {"preset": "resnet18-cifar100", "validation": 5000}, "own": {"lr": 0.2}},
        recipe={"epochs": 7},
    )
    first = two.runs[0].recipe
    assert (first.epochs, first.lr, first.optimizer, first.validation) == (7, 0.1, "sgd", 5000)
    other = next(run for run in two.runs if run.family.recipe == "own")
    assert (other.recipe.epochs, other.recipe.lr, other.recipe.optimizer) == (7, 0.2, "adamw")
    assert other.name == "resnet18-base-cifar100-own-s42"
    assert str(two.families[1]) == "resnet18 on cifar100, recipe own"
    both = Plan.from_dict({
        "networks": ["resnet18", "vgg19"], "datasets": ["cifar10", "cifar100"], "recipes": "fast",
        "seeds": 1,
    })  # fmt: skip
    assert [run.recipe.epochs for run in both.runs] == [10, 10, 12, 12], "fast fits itself"
    named = Plan(recipes={"shapes": {"preset": "shapes"}}, networks=("resnet18",))
    assert named.runs == Plan.from_dict({"recipes": "shapes"}).runs


@pytest.mark.parametrize("name", list_plans())
def test_ready_plans(name):
    made = Plan.preset(name)
    assert made.name == name and made.runs
    if "cifar" in name:
        (family,) = made.families
        published = PUBLISHED[family.arch, family.dataset]
        assert list(published) == made.placements(family), "the study's rows"


def test_the_quick_plan_has_every_block_of_the_study():
    (family,) = Plan.preset("shapes-quick").families
    names = {p.rpartition("_")[0] for p in Plan.preset("shapes-quick").placements(family) if p}
    built_in = {name for name in attnnet.list_blocks() if find_block(name).builtin}
    assert names == built_in - {"AA_ORIGINAL"}


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_files(tmp_path, kind):
    text = """
        networks = ["resnet18", "vgg11"]
        blocks = ["none", "SE", "CBAM_1+SE_34"]
        stages = "12"
        seeds = 2
        recipes = ["shapes"]
        [recipe]
        epochs = 2
    """
    table = {
        "networks": ["resnet18", "vgg11"], "blocks": ["none", "SE", "CBAM_1+SE_34"],
        "stages": "12", "seeds": 2, "recipes": ["shapes"], "recipe": {"epochs": 2},
    }  # fmt: skip
    if kind == "toml":
        pytest.importorskip("tomllib", reason="Python 3.11 and newer read TOML")
    path = tmp_path / f"mine.{kind}"
    path.write_text(text if kind == "toml" else json.dumps(table))
    made = Plan.from_file(path)
    assert made.name == "mine" and len(made.runs) == 2 * 3 * 2
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict()))).runs == made.runs
    assert len(Plan.from_file(path, seeds=[5]).runs) == 6


def test_a_file_that_is_no_plan(tmp_path):
    path = tmp_path / "x.json"
    for text, expected in [("{", "not a JSON plan"), ("[]", "expected a table of keys")]:
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"x\.json: .*{expected}"):
            Plan.from_file(path)


def test_what_says_where_it_stands_is_not_counted_at_every_stage():
    pairs = itertools.permutations(["SE", "SA", "CA", "CBAM"], 2)
    blocks = ["SE", *(f"{one}_1+{two}_2" for one, two in pairs)]
    made = plan(blocks=blocks, stages=["1", "2", "12"], seeds=600)
    assert len(made.runs) == 600 * (1 + 3 + 12)  # at every stage they would be too many


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"blocks": ["CBM"]}, "unknown attention block 'CBM'. Did you mean 'CBAM'"),
        ({"blocks": ["CBM_1"]}, "Did you mean 'CBAM'"),
        ({"networks": ["smal"]}, "unknown model 'smal'. Did you mean 'small'"),
        ({"datasets": ["cifr10"]}, "Did you mean 'cifar10'"),
        ({"recipes": ["shape"]}, "unknown preset 'shape'. Did you mean 'shapes'"),
        ({"preset": "shapes-quik"}, "Did you mean 'shapes-quick'"),
        ({"block": ["SE"]}, "unknown key of a plan 'block'. Did you mean 'blocks'"),
        ({"recipe": {"epoch": 3}}, "Did you mean 'epochs'"),
        ({"recipe": {"lr": -1}}, "plan: recipe: recipe: lr is -1; expected a number above 0"),
        ({"recipe": {"seed": 3}}, "plan: recipe sets seed; expected that in seeds"),
        ({"recipe": {"lr": 0.1}, "recipes": {"a": {"lr": 0.2}}},
         "recipe sets lr for all recipes, and recipes.a sets it, too"),
        ({"recipes": {"a": {"block": "SE"}}}, "recipes.a sets block; expected that in blocks"),
        ({"recipe": {"schedule": "multistep"}}, "small on shapes: recipe: the multistep schedule"),
        ({"stages": ["3"]}, "small with SE_3: .*there is no stage 3; stages are 1 to 2"),
        ({"blocks": ["NAB"], "stages": ["2"]}, "small with NAB_2: .*7"),
        ({"stages": ["one"]}, "stages holds 'one'; expected digits"),
        ({"stages": []}, "stages is empty; expected where SE is to stand"),
        ({"blocks": []}, "stages are there, but no blocks"),
        ({"stages": ["12", "21"]}, "SE_21 is the same placement as SE_12"),
        ({"blocks": ["SE", "SE_1"]}, "SE_1 is the same placement as SE_1"),
        ({"networks": []}, "networks is empty"),
        ({"networks": ["small", "SMALL"]}, "networks holds 'small' twice"),
        ({"seeds": [1, 1]}, "seeds holds 1 twice"),
        ({"seeds": 0}, "seeds is 0; expected a list, or how many"),
        ({"seeds": 10**9}, "that makes 1,000,000,000 runs; expected at most 10,000"),
        ({"seeds": [True]}, "seeds is .*expected a list of whole numbers"),
        ({"validation": None}, "validation is None; a study chooses .* never on the test images"),
        ({"recipe": {"validation": None}}, "recipe sets validation to None"),
        ({"validation": 1.5}, "validation is 1.5"),
        ({"recipes": {"a b": {}, "a_b": {}}}, "two runs would be called"),
        ({"imports": ["no_such_module"]}, "imports names 'no_such_module', which Python does not"),
        ({"name": ""}, "name is ''; expected text"),
        ({"name": "../elsewhere"}, "name is '../elsewhere'; expected text that can name a folder"),
    ],
)
def test_what_cannot_be_is_refused(changes, expected):
    with pytest.raises(ValueError, match=expected):
        plan(**changes)


def test_checking_networks_leaves_the_random_numbers_alone():
    attnnet.manual_seed(5)
    before = attnnet.get_rng_state()
    checks._make.cache_clear()
    plan()
    assert attnnet.get_rng_state() == before


def test_a_block_that_is_registered_anew_is_checked_anew():
    attnnet.register_block("MINE", lambda channels: attnnet.nn.Identity())
    plan(blocks=["MINE"])

    def refuses(channels):
        raise ValueError("not with so many channels")

    attnnet.register_block("MINE", refuses)
    with pytest.raises(ValueError, match=r"small with MINE_1.*: not with so many channels"):
        plan(blocks=["MINE"])


def test_small_recipe_is_used():
    assert plan().runs[0].recipe.limit_train == RECIPE["limit_train"]
