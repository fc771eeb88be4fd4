"""The benchmark: how it times, what it compares, what it refuses to time, and its report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from reference import layers as twins

from attnnet import bench
from attnnet.bench import algorithms, cams, footprint, networks, operations, scaling, timing
from attnnet.bench.apart import Apart, Failed
from attnnet.bench.engine import Attnnet, Engine, Job
from attnnet.bench.exact import convolve
from attnnet.bench.layers import PARTS, Block, Convolution, Norm, convolutions
from attnnet.bench.record import Record, comparison, ratio
from attnnet.bench.runner import Runner
from attnnet.bench.timing import Timing, interleaved
from attnnet.cli import main


def test_work_is_timed_in_turn():
    order = []
    work = {name: lambda name=name: order.append(name) for name in "ab"}
    times = interleaved(work, rounds=3, least=0)
    assert order == [*"aabb", *"ababab"]
    assert set(times) == {"a", "b"} and len(times["a"].rounds) == 3


def test_what_is_slow_after_a_rest_is_not_counted(monkeypatch):
    clock, cold = [0.0], [False]

    def sleep(seconds):
        cold[0] = True

    def work():
        clock[0] += 10 if cold[0] else 1
        cold[0] = False

    fake = types.SimpleNamespace(sleep=sleep, perf_counter=lambda: clock[0])
    monkeypatch.setattr(timing, "time", fake)
    assert interleaved({"quick": work}, rounds=3, least=4, rest=1)["quick"].rounds == (1, 1, 1)
    assert interleaved({"slow": work}, rounds=1, least=1, rest=1)["slow"].rounds == (10,)


def test_quick_work_is_repeated_within_a_round():
    calls = []
    interleaved({"quick": lambda: calls.append(1)}, rounds=1, least=0.01)
    assert len(calls) > 100


def test_median_and_spread():
    timing = Timing((1.0, 2.0, 2.0, 3.0, 100.0))
    assert timing.median == 2 and timing.spread == pytest.approx(0.25)


def record(engine, value, precision="float32", **other):
    return Record("training", "resnet18", engine, value, "images/s", precision=precision, **other)


def test_ratio_is_above_one_for_a_win():
    assert ratio(record("attnnet", 300), record("torch", 100)) == 3
    slow, fast = record("attnnet", 6, higher=False), record("torch", 3, higher=False)
    assert ratio(slow, fast) == 0.5
    assert ratio(record("attnnet", 300), record("torch", None)) is None


def test_table_compares_with_the_best_of_each_precision():
    table = comparison(
        [
            record("attnnet", 300),
            record("torch", 100),
            record("torch compile", 150),
            record("torch bf16", 400, "bfloat16"),
            record("mnn", None, note="failed: it does not train"),
        ]
    )
    cells = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
    assert cells == ["resnet18", "images/s", "300", "100", "150", "400", "-", "2.00", "0.75"]
    assert "resnet18, mnn: failed: it does not train" in table


def test_convolutions_of_a_network_at_their_shapes():
    found = convolutions("resnet18", 128)
    names = [c.name for c in found]
    assert names[:3] == [
        "conv 3x3 3->64 at 32x32",
        "conv 3x3 64->64 at 32x32",
        "conv 3x3 64->128 at 32x32, stride 2",
    ]
    assert len(names) == len(set(names)) == 11 and "conv 1x1 256->512 at 8x8, stride 2" in names
    assert found[2].flops == 2 * 128 * 16 * 16 * 128 * 64 * 9


class Wrong(Engine):
    """An engine that computes something else."""

    name = "wrong"

    def __init__(self, layers=False):
        self.layers = layers

    def infer(self, job):
        return Zeros((job.batch, job.classes))

    def train(self, job):
        raise RuntimeError("cannot")

    def layer(self, layer, part):
        if part == "backward":
            raise TypeError("wrong runs no backward pass")
        return Zeros(layer.shape)


class Zeros(Runner):
    def __init__(self, shape):
        self.shape = shape

    def logits(self):
        return np.zeros(self.shape, np.float32)

    step = logits


SMALL_LAYERS = [
    Convolution((2, 16, 6, 6), (16, 16, 3, 3), 1, 1),
    Convolution((2, 3, 6, 6), (16, 3, 3, 3), 1, 1),
    Norm((2, 16, 4, 4)),
    Block((2, 16, 6, 6), "CBAM"),
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("layer", SMALL_LAYERS, ids=lambda layer: layer.name)
def test_torch_runs_the_same_layer(layer, part):
    pytest.importorskip("torch")
    from attnnet.bench.peers.torch_engine import TorchEngine

    engines = [Attnnet(), TorchEngine("torch channels_last", channels_last=True)]
    ours, theirs = operations._layer("operations", layer, part, engines, 1, 1e9, 1e9)
    assert ours.value > 0 and theirs.value > 0, theirs.note
    assert ours.case == f"{layer.name}, {part}" and ours.unit == "ms" and not ours.higher


def test_a_layer_that_computes_something_else_is_not_timed():
    engines = [Attnnet(), Wrong(layers=True), Wrong(layers=False)]
    ours, wrong = operations._layer("operations", SMALL_LAYERS[0], "forward", engines, 1, 1, 1)
    assert ours.value > 0 and wrong.value is None
    assert wrong.note == "not timed: its result is off by 1e+02 %"
    backward = operations._layer("operations", SMALL_LAYERS[0], "backward", engines, 1, 1, 1)
    assert [r.note for r in backward][1] == "failed: TypeError: wrong runs no backward pass"


def test_attention_that_holds_whole_maps_is_timed_on_a_smaller_batch():
    block = Block((32, 64, 8, 8), "AA")
    smaller = operations._smaller(block)
    assert smaller.shape == (16, 64, 8, 8)
    for part in PARTS:  # which is the same work on the first of the images
        whole, half = (Attnnet().layer(layer, part).logits() for layer in (block, smaller))
        assert operations._wrong(half, whole, "float32") == ""
    assert operations._smaller(replace(block, block="CBAM")).shape == (32, 64, 8, 8)


def test_roofline_counts_what_the_part_must_do():
    layer = Convolution((2, 16, 6, 6), (16, 16, 3, 3), 1, 1)
    note = operations._roofline(layer, "backward", 1e-6, 100.0, 1.0)
    speed = 2 * 2 * 2 * 36 * 16 * 16 * 9 / 1e-6 / 1e9
    assert note.startswith(f"{speed:.0f} GFLOP/s, {speed:.0f} % of the peak, ")
    assert operations._roofline(Norm((1, 1000, 10, 10)), "forward", 1e-3, 1, 4) == (
        "2 GB/s, 40 % of the memory's"
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_exact_convolution(stride):
    layer = Convolution((2, 3, 7, 6), (4, 3, 3, 3), stride, 1)
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal(layer.shape), rng.standard_normal(layer.weight)
    y, backward = twins.conv2d(x, weight, None, stride, 1, 1)
    dy = rng.standard_normal(y.shape)
    dx, dweight = backward(dy)[:2]
    for found, right in zip(convolve(layer, x, weight, dy), (y, dx, dweight), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)


def test_algorithms_are_timed_and_held_against_float64(monkeypatch):
    monkeypatch.setattr(algorithms, "SHAPES", ((16, 8, 16, 1),))
    found = {(r.case, r.engine): r for r in algorithms.algorithms(2, 1)}
    names = {engine for _, engine in found}
    assert {"winograd", "implicit_gemm", "im2col"} <= names and "polyphase" not in names
    for (case, _), record in found.items():
        assert 0 < record.value < (100 if "error" in case else 1e5)
    assert len(found) == 5 * len(names)


class Counter(Runner):
    """Counts its steps; fails or dies where it is told to."""

    def __init__(self, end=None):
        self.steps, self.end = 0, end

    def logits(self):
        return np.array([self.steps])

    def step(self):
        self.steps += 1
        if self.steps == self.end:
            os._exit(3)


def state_of(pid):
    """Of a process, for example "T" for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_runner_apart_is_stopped_between_its_turns():
    with closing(Apart(Counter)) as runner:
        assert runner.seconds(3) > 0
        runner.step()
        assert runner.logits() == [4]
        pid, end = runner._process.pid, time.monotonic() + 60
        while state_of(pid) != "T" and time.monotonic() < end:
            time.sleep(0.01)
        assert state_of(pid) == "T"
    assert not Path(f"/proc/{pid}").exists()


def test_what_fails_apart_is_told_here():
    with pytest.raises(Failed, match=r"^ZeroDivisionError: "):
        Apart(partial(divmod, 1, 0))
    with closing(Apart(partial(Counter, end=2))) as runner:
        runner.step()
        for _ in range(2):
            with pytest.raises(Failed, match="exit code 3"):
                runner.step()


SCRIPT = """\
from functools import partial
from attnnet import bench
from attnnet.bench import networks
from attnnet.bench.apart import Apart, Failed
from attnnet.bench.engine import Attnnet, Job
from attnnet.bench.runner import Runner

print("begins")

class Mine(Attnnet):
    def infer(self, job):
        return super().infer(job)

job = Job("vgg11", "SE_1", 2, 10)
(found,) = networks.inference([Attnnet()], 1, [job])
print(found.value > 0)
try:
    Apart(partial(Mine().infer, job))
except Failed as error:
    print(error)
"""


@pytest.mark.parametrize("how", ["file", "module"])
def test_the_script_that_asks_is_not_run_again(tmp_path, how):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = ["script.py"] if how == "file" else ["-m", "script"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, timed, failed = done.stdout.splitlines()
    assert (first, timed) == ("begins", "True")
    assert failed.startswith("AttributeError: Mine is of the script or notebook that runs")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_runner_apart_dies_with_its_parent_and_leaves_it_ctrl_c(tmp_path):
    code = f"import sys; sys.path[:] = {sys.path!r}; from bench.test_bench import wait; wait()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                              start_new_session=True)  # fmt: skip
    with parent:
        child = int(parent.stdout.readline())
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.readline() == "Ctrl-C, 2 steps\n" and is_alive(child)
        parent.kill()
    end = time.monotonic() + 60
    while is_alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_alive(child)


def is_alive(pid):
    try:
        return state_of(pid) != "Z"  # dead, and nobody has asked how
    except OSError:
        return False


def wait():
    """Of another process: waits for Ctrl-C beside a runner apart, then to be killed."""
    runner = Apart(Counter)
    try:
        print(runner._process.pid, flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        runner.seconds(2)
        print(f"Ctrl-C, {int(runner.logits()[0])} steps", flush=True)
        time.sleep(60)


SMALL = Job("vgg11", "SE_1", 2, 10)


def test_torch_may_have_been_used_before():
    torch = pytest.importorskip("torch")
    from attnnet.bench.peers.torch_engine import TorchEngine

    images = torch.ones(8, 16, 32, 32)  # whose threads a copy of this process would wait for
    torch.nn.functional.conv2d(images, torch.ones(16, 16, 3, 3))
    _, theirs = networks.inference([Attnnet(), TorchEngine("torch")], 1, [SMALL])
    assert theirs.value > 0, theirs.note


def test_what_computes_something_else_is_not_timed():
    ours, wrong = networks.inference([Attnnet(), Wrong()], 1, [SMALL])
    assert ours.value > 0 and ours.unit == "images/s"
    assert wrong.value is None and "its logits are off by 1e+02 %" in wrong.note


def test_networks_can_be_chosen():
    jobs = networks.only(["resnet18", "vgg19:NEW_1"], networks.TRAINING)
    assert [job.network for job in jobs] == ["resnet18", "vgg19 NEW_1"]
    assert networks.only([], networks.INFERENCE) == list(networks.INFERENCE)
    with pytest.raises(ValueError, match=r"NEW_21'.*Did you mean 'resnet18:NEW_12'"):
        bench.run(["training"], only=["resnet18:NEW_21"])


def test_ours_is_held_against_the_peak():
    (found,) = networks.inference([Attnnet()], 1, [SMALL])
    job = Job("vgg11", None, 1, 10)
    assert job.flops == 2 * job.model().summary((3, 32, 32)).total_multiply_adds
    pattern = r"(\d+) direct-equivalent GFLOP/s, (\d+) % of the peak"
    flops, share = re.fullmatch(pattern, found.note).groups()
    assert int(flops) > 0 and 0 < int(share) < 1000


def test_what_fails_is_named_and_ends_nothing():
    ours, wrong = networks.training([Attnnet(), Wrong()], 1, [SMALL])
    assert ours.value > 0
    assert wrong.value is None and wrong.note == "failed: RuntimeError: cannot"


def test_batch_one_is_a_latency():
    (found,) = networks.inference([Attnnet()], 1, [Job("vgg11", None, 1, 10)])
    assert found.unit == "ms" and not found.higher


def test_only_whole_attention_maps_need_a_smaller_batch():
    assert networks.smaller(Job("resnet18", "AA_1", 128)).batch == 16
    assert networks.smaller(Job("resnet18", "CBAM_12", 128)).batch == 128


@pytest.mark.parametrize(("arch", "bfloat16"), [("resnet18", False), ("vgg11", True)])
def test_torch_runs_the_same_network(arch, bfloat16):
    pytest.importorskip("torch")
    from attnnet.bench.peers.torch_engine import TorchEngine

    engine = TorchEngine("torch", channels_last=True, bfloat16=bfloat16)
    job = Job(arch, "NEW_12", 4, 10)
    for found in (
        *networks.inference([Attnnet(), engine], 1, [job]),
        *networks.training([Attnnet(), engine], 1, [job]),
    ):
        assert found.value > 0, found


def test_more_threads_are_compared_with_one(monkeypatch):
    monkeypatch.setattr(scaling, "get_num_threads", lambda: 2)
    monkeypatch.setattr(scaling, "BATCHES", (1, 2))
    monkeypatch.setattr(scaling, "DEPTHS", ())
    monkeypatch.setattr(scaling, "BLOCKS", {"resnet18": ("AA_1",)})
    monkeypatch.setattr(scaling, "USUAL_BATCH", 2)
    found = {record.case: record.value for record in scaling.scaling(1)}
    assert list(found) == [
        "resnet18, batch 1",
        "resnet18, batch 2",
        "resnet18 AA_1, batch 2",
        "resnet18, batch 2, threads 1",
        "resnet18, batch 2, threads 2",
    ]
    assert found["resnet18, batch 2, threads 1"] == 1
    assert found["resnet18 AA_1, batch 2"] > 20, "attention over 1,024 pixels is the step"


def test_memory_is_that_of_a_training_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not beside the source tree, which would be imported instead

    class Half(Attnnet):
        precision = "bfloat16"  # what the table sets apart

    ours, half = footprint.memory([Attnnet(), Half()], 1, [SMALL])
    assert ours.note == "" and ours.value > 50 and not ours.higher
    assert (ours.precision, half.precision) == ("float32", "bfloat16")


def test_size_is_that_of_the_package_beside_its_sources_too(tmp_path, monkeypatch):
    """Where the list of files is that of the sources: tests, documentation and all."""
    (tmp_path / "attnnet.egg-info").mkdir()
    (tmp_path / "attnnet.egg-info" / "PKG-INFO").write_text("Name: attnnet\nVersion: 9\n")
    (tmp_path / "attnnet.egg-info" / "SOURCES.txt").write_text("large.bin\n")
    (tmp_path / "large.bin").write_bytes(bytes(2**26))
    monkeypatch.setattr(footprint, "INSTALLED", {"attnnet": ("attnnet",)})
    (alone,) = footprint.installed_size(["attnnet"])
    monkeypatch.syspath_prepend(tmp_path)
    (beside,) = footprint.installed_size(["attnnet"])
    assert 1 < alone.value == beside.value < 64


def test_command_writes_its_figures(tmp_path, capsys):
    assert main(["bench", "import", "size", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {r["section"] for r in found["records"]} == {"import", "size"}
    assert found["machine"]["threads"] >= 1
    assert "import attnnet" in capsys.readouterr().out


def test_unknown_sections_and_systems_are_refused(capsys):
    assert main(["bench", "trainings"]) == 2
    assert "training" in capsys.readouterr().err
    with pytest.raises(ValueError, match="torch"):
        bench.run(["size"], ["troch"])


def test_profile_of_a_step(tmp_path, capsys):
    words = ["bench", "--profile", "vgg11:SE_1", "--batch", "2", "--output", str(tmp_path)]
    assert main(words) == 0
    assert "conv2d_batch_norm, backward" in capsys.readouterr().out
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_maps_are_timed_beside_the_tool_where_they_are_the_same(monkeypatch):
    job = Job("resnet18", None, 2, 10)
    (ours, *others) = cams.cams((), 1, job)
    assert ours.section == "cams" and ours.value > 0 and ours.unit == "images/s"
    assert {record.engine for record in others} == {"attnnet"} and len(others) == 3

    peer = types.ModuleType("attnnet.bench.peers.grad_cam")
    peer.looker = lambda job, method, layer: lambda: np.zeros((2, 32, 32), np.float32)
    monkeypatch.setitem(sys.modules, peer.__name__, peer)
    monkeypatch.setattr(cams, "METHODS", ("gradcam",))
    ours, other = cams.cams(("grad-cam",), 1, job)
    assert ours.value > 0 and other.value is None
    assert other.engine == "grad-cam" and "its maps are off by 1" in other.note


def test_the_tools_maps_are_ours():
    pytest.importorskip("pytorch_grad_cam")
    found = list(cams.cams(("grad-cam",), 1, Job("resnet18", None, 2, 10)))
    assert len(found) == 8 and not [record.note for record in found if record.note]
