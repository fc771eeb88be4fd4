"""The report: whole by itself, escaped, and true to the runs; also of a study half done."""

import sys
from html.parser import HTMLParser

import pytest

from attnnet import explain
from attnnet.explain import layers
from attnnet.study import Plan, Results, run, write_report
from attnnet.study.folder import write_failure
from attnnet.study.heat import heat_map
from attnnet.study.presets import PUBLISHED
from attnnet.study.strips import strips
from study.small import plan
from study.synthetic import make

VOID = {"meta", "br", "img", "link", "hr"}
NAMES = ("SE_1", "SE_12", "CBAM_1", "CBAM_12")


class Reader(HTMLParser):
    """Collects what refers to somewhere, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.references, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [v for k, v in attributes if k in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    reader = Reader()
    with open(path, encoding="utf-8") as file:
        reader.feed(file.read())
    assert not reader.open
    return reader, "".join(reader.text)


@pytest.fixture
def made(tmp_path):
    of = plan(name="a <b> study", blocks=["SE", "CBAM"], stages=["1", "12"], seeds=4)
    skill = {None: 0.7, "SE_1": 0.76, "SE_12": 0.71, "CBAM_1": 0.64, "CBAM_12": 0.7}
    home = make(tmp_path / "s", of, skill, spread=0.005, leave=["small-SE_12-shapes-s44"])
    write_failure(home.of(of.runs[12]), "Died", "its process was <killed> | SIGKILL")
    assert of.runs[12].name == "small-SE_12-shapes-s44"
    return home


def test_the_page_is_whole_by_itself(made):
    pytest.importorskip("matplotlib", reason="draws the figures (attnnet[plots])")
    reader, text = read(write_report(made.path))
    assert all(v.startswith(("#", "data:")) for v in reader.references), reader.references
    assert reader.tags.count("svg") == 2 and "Study a <b> study" in text
    assert "19 of 20 runs done, 1 failed." in text
    assert "its process was <killed> | SIGKILL" in text
    for name in NAMES:
        assert f"{name}: " in text
    assert "SE_1: better than the base, +" in text and "CBAM_1: worse than the base, -" in text
    assert "Failed: seed 44." in text and "made up" in text


def test_the_figures_take_the_colours_of_the_page(made):
    pytest.importorskip("matplotlib", reason="draws the figures (attnnet[plots])")
    with open(write_report(made.path), encoding="utf-8") as file:
        page = file.read()
    assert "#010203" not in page and "#040506" not in page
    assert "currentColor" in page and "var(--soft)" in page


def test_without_matplotlib_the_rest_is_there(made, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    reader, text = read(write_report(made.path))
    assert "no figures: figures need matplotlib" in text and "svg" not in reader.tags
    assert "SE_1: better than the base" in text


def test_markdown_and_csv_say_the_same(made):
    write_report(made.path)
    results = Results(made.path)
    with open(made.file("report.md"), encoding="utf-8") as file:
        text = file.read()
    for row in results.rows:
        assert f"- {row.sentence}\n" in text and f"| {row.name} | " in text
    assert "its process was <killed> \\| SIGKILL" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    with open(made.file("rows.csv")) as file:
        assert len(file.readlines()) == 1 + 5
    with open(made.file("runs.csv")) as file:
        assert len(file.readlines()) == 1 + 20


def test_the_heat_map(made):
    results = Results(made.path)
    (family,) = results.plan.families
    head, rows = heat_map(results, family)
    assert head == ["block", "stage 1", "stages 12"] and [row[0] for row in rows] == ["SE", "CBAM"]
    gap = next(row.difference.mean for row in results.rows if row.block == "CBAM_1")
    assert f">{gap:+.2f} ▼<" in rows[1][1] and "var(--bad)" in rows[1][1]
    assert "var(--good) 55%" in rows[0][1], "the largest has the most colour"


def test_no_heat_map_of_one_line(tmp_path):
    of = plan(blocks=["SE"], stages=["1", "12"], seeds=2)
    make(tmp_path / "s", of, {None: 0.7, "SE_1": 0.7, "SE_12": 0.7}, spread=0.01)
    results = Results(str(tmp_path / "s"))
    assert heat_map(results, of.families[0]) is None


def test_published_figures_stand_beside_ours(tmp_path):
    of = Plan.preset("vgg19-cifar10", seeds=2)
    published = PUBLISHED["vgg19", "cifar10"]
    make(tmp_path / "s", of, {b: v[0] / 100 for b, v in published.items()}, spread=0.001)
    write_report(tmp_path / "s")
    text = (tmp_path / "s" / "report.md").read_text()
    assert "| NEW_1 | 94.15 | 94.19 | 94." in text and "single runs" in text


def test_a_study_that_has_hardly_begun(tmp_path):
    of = plan(seeds=2)
    home = make(tmp_path / "s", of, {None: 0.7, "SE_1": 0.7}, leave=[r.name for r in of.runs])
    _, text = read(write_report(home.path))
    assert "0 of 4 runs done; the rest is still to do." in text
    assert "SE_1: no run is done. Not done yet: seed 42, 43." in text


def test_the_same_images_in_every_network(tmp_path, monkeypatch):
    of = plan(blocks=["CBAM"], seeds=1, recipe={**plan().changes, "epochs": 1})
    run(of, tmp_path / "s", 0, progress=False)
    results = Results(str(tmp_path / "s"))
    with pytest.raises(ValueError, match="layer"):
        strips(results, of.families[0])
    assert "no pictures of images: " in read(write_report(results.home.path))[1]
    for module in (layers, explain):
        monkeypatch.setattr(module, "last_layer", lambda model: "features.2")
    head, rows = strips(results, of.families[0])
    assert [row[0] for row in rows] == ["the images", "base", "CBAM_1"] and len(head) == 3
    assert rows[1][1].startswith('<img alt="Grad-CAM of base"') and rows[1][2] == ""
    assert rows[2][2].startswith('<img alt="spatial masks of CBAM_1"')
    reader, _ = read(write_report(results.home.path))
    assert reader.tags.count("img") == 4


def test_a_lost_history_costs_its_curve_alone(made):
    pytest.importorskip("matplotlib", reason="draws the figures (attnnet[plots])")
    with open(made.of(made.plan().runs[0], "history.json"), "w") as file:
        file.write("[")
    reader, text = read(write_report(made.path))
    assert "no curve of small-base-shapes-s42: history.json is missing there or corrupt" in text
    assert reader.tags.count("svg") == 2
    assert "no pictures of images: " in text, "there are no checkpoints"


def test_the_report_says_what_was_trained(made):
    _, text = read(write_report(made.path))
    line = "2 epochs of 32 images a step, adamw lr 0.002 onecycle, weight decay 0.05; 10 % of the"
    assert line in text
