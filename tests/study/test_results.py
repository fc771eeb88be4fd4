"""What a study's runs say together, on made-up runs whose answer is known."""

import csv
import dataclasses
import io
import math

import numpy as np
import pytest

from attnnet.errors import CheckpointError
from attnnet.study.folder import State, write_failure
from attnnet.study.inference import holm, mean_over_seeds
from attnnet.study.results import Results
from attnnet.study.tables import cells, head, rows_csv, runs_csv, text
from study.small import plan
from study.synthetic import make, write_run

SKILL = {None: 0.70, "SE_1": 0.76, "SA_1": 0.70, "CA_1": 0.64}


def many(**changes):
    return plan(blocks=["SE", "SA", "CA"], seeds=6, **changes)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "study"
    make(folder, many(), SKILL, spread=0.006)
    return Results(str(folder))


def row_of(results, block):
    return next(row for row in results.rows if row.block == block)


def test_known_differences_are_found_and_none_where_there_is_none(results):
    assert [row.verdict for row in results.rows] == ["", "better", "not told apart", "worse"]
    assert results.is_done
    for row in results.rows[1:]:
        true = 100 * (SKILL[row.block] - SKILL[None])
        assert abs(row.difference.mean - true) < 1.0
        low, high = row.interval
        assert low < row.difference.mean < high


def test_the_figures_are_the_paired_test_with_holms_correction(results):
    stats = pytest.importorskip("scipy.stats", reason="the oracle (attnnet[dev])")
    base = row_of(results, None)
    raw = []
    for row in results.rows[1:]:
        pairs = [(row.done[s].top1, base.done[s].top1) for s in row.done]
        expected = stats.ttest_rel(*zip(*pairs, strict=True))
        assert row.difference.p == pytest.approx(expected.pvalue, rel=1e-6)
        interval = expected.confidence_interval(0.95)
        assert (row.difference.low, row.difference.high) == pytest.approx(tuple(interval))
        raw.append(expected.pvalue)
    assert [row.p for row in results.rows[1:]] == pytest.approx(holm(raw), rel=1e-6)


def test_sentences(results):
    base, better, same, worse = (row.sentence for row in results.rows)
    assert base.startswith("base: 69.98 %") and "over 6 seeds, standard deviation 0." in base
    assert better.startswith("SE_1: better than the base, +") and "3 comparisons" in better
    assert worse.startswith("CA_1: worse than the base, -") and "over 6 seeds." in worse
    assert same.startswith("SA_1: not told apart from the base, ")
    assert "About " in same and "seeds (by the spread of 3 rows) would tell half a point." in same


def test_enough_seeds_say_so(tmp_path):
    make(tmp_path / "s", many(), SKILL, images=10_000, spread=0.0003)
    row = row_of(Results(str(tmp_path / "s")), "SA_1")
    assert row.seeds_for_half <= 6 and row.verdict == "not told apart"
    assert f"Half a point would most likely have shown: {row.seeds_for_half} seeds" in row.sentence


def test_chance_alone_seldom_tells_apart():
    """Four blocks that change nothing: hardly more than one study in twenty says otherwise."""
    random = np.random.default_rng(21)
    found, trials = 0, 600
    for _ in range(trials):
        base = random.normal(90, 0.5, 4)
        p = [mean_over_seeds(random.normal(90, 0.5, 4) - base).p for _ in range(4)]
        found += min(holm(p)) < 0.05
    assert 0.005 < found / trials < 0.05 + 4 * math.sqrt(0.05 * 0.95 / trials), found / trials


def test_one_seed_is_no_proof(tmp_path):
    make(tmp_path / "s", plan(blocks=["SE"], seeds=1), SKILL)
    results = Results(str(tmp_path / "s"))
    row = row_of(results, "SE_1")
    assert row.verdict == "not told apart" and math.isnan(row.p)
    assert "one seed (+6.00 points) says nothing of others" in row.sentence
    assert "these two trained networks do differ beyond chance (McNemar" in row.sentence
    assert row.tests[42].gained == 60 and row.tests[42].lost == 0
    assert "1 seed." in row_of(results, None).sentence


def test_seeds_that_differ_by_the_same_are_no_proof(tmp_path):
    make(tmp_path / "s", plan(blocks=["SE"], seeds=2), SKILL)
    row = row_of(Results(str(tmp_path / "s")), "SE_1")
    assert row.verdict == "not told apart"
    assert "both seeds differ by the same +6.00 points" in row.sentence


def write_rights(folder, of, right):
    """A study in which each run got so many of 1,000 images right: block and seed to that."""
    home = make(folder, of, {None: 0.5, "SE_1": 0.5, "SA_1": 0.5})
    for one in of.runs:
        write_run(home, one, np.arange(1000) < right[one.block, one.seed])
    return Results(home.path)


def test_differences_that_only_rounding_tells_apart_are_the_same(tmp_path):
    """Nineteen images more, both times; in per cent that is 1.9 with two different last bits."""
    right = {(None, 42): 900, ("SE_1", 42): 919, (None, 43): 884, ("SE_1", 43): 903}
    row = row_of(write_rights(tmp_path / "s", plan(blocks=["SE"], seeds=2), right), "SE_1")
    assert len(set(row.differences.values())) == 2, "no test of rounding"
    assert row.verdict == "not told apart" and math.isnan(row.p)
    assert "both seeds differ by the same +1.90 points" in row.sentence
    assert row.seeds_for_half is None


def test_two_seeds_of_equal_networks_seldom_tell_apart():
    """The figures of studies of ten rows and two seeds in which no block changes anything."""
    random, found, trials = np.random.default_rng(5), 0, 300
    for _ in range(trials):
        rights = random.normal(0.9, 0.005, (11, 2))
        top1 = 100 * np.rint(1000 * rights) / 1000
        p = [mean_over_seeds(row - top1[0]).p for row in top1[1:]]
        found += min(holm(p), default=1) < 0.05
    assert found / trials < 0.05 + 4 * math.sqrt(0.05 * 0.95 / trials), found / trials


def test_corrections_count_what_is_still_to_come(tmp_path):
    of = plan(blocks=["SE", "SA", "CA"], seeds=2)
    leave = [one.name for one in of.runs if one.seed == 43 and one.block in ("SA_1", "CA_1")]
    results = Results(make(tmp_path / "s", of, SKILL, spread=0.01, leave=leave).path)
    two, one, other = (row_of(results, name) for name in ("SE_1", "SA_1", "CA_1"))
    assert two.p == pytest.approx(min(1.0, 3 * two.difference.p))
    mids = sorted(row.tests[42].mid for row in (one, other))
    assert sorted(row.mid for row in (one, other)) == pytest.approx(
        [min(1, 3 * mids[0]), max(min(1, 3 * mids[0]), min(1, 2 * mids[1]))]
    )
    assert all("corrected for 3 comparisons" in row.sentence for row in (two, one, other))
    assert one.interval is None, "of one seed there is no interval over seeds"


def test_runs_that_are_missing(tmp_path):
    of = plan(blocks=["SE", "SA"], seeds=3)
    leave = ["small-SE_1-shapes-s43", "small-base-shapes-s44", "small-SA_1-shapes-s42",
             "small-SA_1-shapes-s43", "small-SA_1-shapes-s44"]  # fmt: skip
    home = make(tmp_path / "s", of, SKILL, spread=0.01, leave=leave)
    write_failure(str(tmp_path / "s" / "runs" / leave[0]), "NaNLossError", "the loss is NaN")
    results = Results(home.path)
    row, none = row_of(results, "SE_1"), row_of(results, "SA_1")
    assert set(row.differences) == {42}, "the only seed that both have"
    assert row.sentence.endswith("Failed: seed 43.") and not results.is_done
    assert none.sentence == "SA_1: no run is done. Not done yet: seed 42, 43, 44."
    assert none.verdict == "" and cells(results, none)[1] == "0 of 3"
    assert cells(results, row)[1] == "2 of 3, 1 failed"
    assert f"failed: {leave[0]}: the loss is NaN" in text(results)
    assert rows_csv(results) and runs_csv(results)


def test_other_test_images_are_not_compared_one_by_one(tmp_path):
    of = plan(blocks=["SE"], seeds=2)
    home = make(tmp_path / "s", of, SKILL, spread=0.01, of_images={42: "some", 43: "others"})
    row = row_of(Results(home.path), "SE_1")
    assert row.interval and len(row.tests) == 2, "other images in each seed, the same within one"
    one = next(run for run in of.runs if run.block == "SE_1")
    _, said = home.done(one)
    dataclasses.replace(said, images="strange").write(home.of(one))
    row = row_of(Results(home.path), "SE_1")
    assert row.interval is None and set(row.tests) == set(row.differences) == {43}
    assert row.difference.count == 1 and row.verdict == "not told apart"
    assert row.sentence.endswith(
        " Not compared, since the test images were not those of the base: seed 42."
    )
    for one in (run for run in of.runs if run.block == "SE_1"):
        dataclasses.replace(home.done(one)[1], images="strange").write(home.of(one))
    row = row_of(Results(home.path), "SE_1")
    assert row.sentence == (
        "SE_1: cannot be compared: the test images were not those of the base."
    )


def test_logits_that_are_no_numbers_are_wrong(tmp_path):
    of = plan(blocks=["SE"], seeds=1)
    home = make(tmp_path / "s", of, {None: 1.0, "SE_1": 1.0})
    one = next(run for run in of.runs if run.block == "SE_1")
    _, said = home.done(one)
    said.confidence[:3] = np.nan
    said.write(home.of(one))
    assert row_of(Results(home.path), "SE_1").tests[42].lost == 3


def test_what_run_knows_and_the_disk_does_not(tmp_path):
    of = plan(blocks=["SE"], seeds=1)
    home = make(tmp_path / "s", of, SKILL, leave=["small-SE_1-shapes-s42"])
    states = {run.name: State("failed", "no room") for run in of.runs}
    results = Results(home.path, states=states)
    assert results.failures == [("small-SE_1-shapes-s42", "no room")], "the other is done"
    assert "failed: small-SE_1-shapes-s42: no room" in str(results)


def test_a_result_of_another_recipe_does_not_count(tmp_path):
    of = plan(blocks=["SE"], seeds=1)
    home = make(tmp_path / "s", of, SKILL)
    other = plan(blocks=["SE"], seeds=1, recipe={**of.changes, "lr": 0.5})
    assert home.state(of.runs[0]).kind == "done" and home.state(other.runs[0]).kind != "done"


def test_tables(results):
    names = head(results)
    assert names[-3:] == ["pointing game %", "energy inside %", "IoU %"]
    for row in results.rows:
        assert len(cells(results, row)) == len(names)
    found = dict(zip(names, cells(results, results.rows[1]), strict=True))
    assert (found["ms a step"], found["parameters"], found["ECE %"]) == ("12", "5,402", "5.00")
    lines = list(csv.DictReader(io.StringIO(rows_csv(results))))
    assert [line["block"] for line in lines] == ["base", "SE_1", "SA_1", "CA_1"]
    assert float(lines[1]["difference_mean"]) == results.rows[1].difference.mean
    assert lines[0]["difference_mean"] == "" and lines[1]["verdict"] == "better"
    runs = list(csv.DictReader(io.StringIO(runs_csv(results))))
    assert len(runs) == 24 and {run["state"] for run in runs} == {"done"}
    one = next(run for run in runs if run["run"] == "small-SE_1-shapes-s42")
    assert int(one["gained"]) - int(one["lost"]) == pytest.approx(10 * float(one["difference"]))
    assert "<table>" in results._repr_html_() and "better than the base" in str(results)


def test_no_study(tmp_path):
    with pytest.raises(CheckpointError, match="holds no study"):
        Results(str(tmp_path))
