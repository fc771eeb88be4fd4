"""Models recognised in files of weights, filled, and given back, with equal logits."""

import json

import numpy as np
import pytest
from reference.memory import in_use

import attnnet
from attnnet.data.cifar import CIFAR10, CIFAR100
from attnnet.data.cifar_names import CIFAR10_NAMES, CIFAR100_NAMES
from attnnet.errors import CheckpointError
from attnnet.interop import from_torch_state_dict, to_torch_state_dict
from attnnet.interop.study import recognise, unwrapped
from attnnet.models.resnet import DEPTHS as RESNETS
from attnnet.models.vgg import DEPTHS as VGGS
from attnnet.nn import Module

from . import torch_bytes as tb

BLOCKS = [None, "CA", "SE", "SEC", "SA", "AA", "CBAM", "NEW", "NAB", "SE_SA", "SEC_SA"]


def logits(model: Module, x: np.ndarray) -> np.ndarray:
    with attnnet.no_grad():
        return model(attnnet.Tensor(x)).numpy()


def write(path, arrays, **beside) -> str:
    """A file as the study writes it: the state under ``net`` or ``state_dict``, numbers beside."""
    entry = "net" if "linear.weight" in unwrapped(arrays) else "state_dict"
    pickled, contents = tb.state(arrays)
    facts = {key: tb.number(value) for key, value in beside.items()}
    path.write_bytes(tb.zip_file(tb.plain_dict({entry: pickled, **facts}), contents))
    return str(path)


@pytest.fixture(scope="module")
def resnet():
    attnnet.manual_seed(0)
    return attnnet.resnet18("NEW_1", num_classes=100).eval()


# Against PyTorch


@pytest.fixture(scope="module")
def twins():
    """Makes a network of the study in PyTorch, with its names and running statistics of use."""
    torch = pytest.importorskip("torch")
    from attnnet.bench.peers import torch_blocks, torch_networks

    def make(arch, placement, **options):
        torch.manual_seed(3)
        net = torch_networks.create(arch, placement, **options)
        for part in net.modules():
            if isinstance(part, torch_blocks.AA):
                part.form = "original"
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.uniform_(-0.2, 0.2)
                part.running_var.uniform_(0.8, 1.2)
        if arch.startswith("vgg"):  # the study counts both parts of a chain
            flat = [
                part
                for step in net.features
                for part in (step if isinstance(step, torch.nn.Sequential) else [step])
            ]
            net.features = torch.nn.Sequential(*flat)
        return net.eval()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make
    torch.set_num_threads(threads)


def check_both_ways(torch, net, model, size):
    """Equal logits, and PyTorch computes the same from what the model gives back."""
    x = np.random.default_rng(5).standard_normal((2, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        theirs = net(torch.from_numpy(x)).numpy()
        truth = net.double()(torch.from_numpy(x).double()).numpy()
        net.float()
        gap = np.abs(theirs - truth).max()
        # 40 times PyTorch's own gap, as in tests/models: Winograd is that much less exact.
        error = np.abs(logits(model, x) - truth).max()
        assert not (error > 40 * gap), (error, gap)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        for value in net.state_dict().values():
            value.zero_()
        net.load_state_dict(to_torch_state_dict(model))
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("arch", ["resnet18", "vgg11"])
def test_every_block_opens_with_equal_logits(arch, block, twins, tmp_path):
    torch = pytest.importorskip("torch")
    size = 8 if arch == "resnet18" else 32
    options = {"image_size": size} if size != 32 else {}
    net = twins(arch, f"{block}_1" if block else None, **options)
    state, path = net.state_dict(), tmp_path / "checkpoint_3.pth"
    zipped = block in ("CA", "AA", "NEW")
    if arch == "resnet18":
        wrapped = {f"module.{key}": value for key, value in state.items()}
        content = {"net": wrapped, "acc": 41.5, "epoch": 3}
    else:
        wrapped = {k.replace("features.", "features.module."): v for k, v in state.items()}
        optimizer = torch.optim.SGD(net.parameters(), 0.1).state_dict()
        content = {"epoch": 4, "state_dict": wrapped, "best_prec1": torch.tensor(41.5),
                   "optimizer": optimizer}  # fmt: skip
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    model = attnnet.load(path, **options) if block != "AA" else attnnet.load(path)
    form = "AA_ORIGINAL" if block == "AA" else block
    base = "RESNET" if arch == "resnet18" else "VGG11"
    assert (model.arch, model.block_name) == (arch, f"{form}_1" if block else base)
    assert model.image_size == (size, size) and not model.training
    assert model.source.pop("path") == str(path)
    best = {"acc": 41.5} if arch == "resnet18" else {"best_prec1": 41.5}
    assert model.source == {"epoch": content["epoch"], **best}
    check_both_ways(torch, net, model, size)


@pytest.mark.parametrize("arch, placement, options", [
    ("vgg19", "SE_SA_12+CBAM_3+SEC_SA_45", {"num_classes": 7}),
    ("vgg13", "SEC_SA_5", {"batch_norm": False, "image_size": 64}),
    ("resnet50", "CBAM_1+NEW_4", {"in_channels": 3}),
])  # fmt: skip
def test_mixed_placements(arch, placement, options, twins):
    torch = pytest.importorskip("torch")
    net = twins(arch, placement, **options)
    model = from_torch_state_dict(net.state_dict())
    assert model.block_name == placement
    check_both_ways(torch, net, model, options.get("image_size", 32))


def shapes_of(twins, arch, placement, **options):
    """A state dict of the right shapes that takes no memory."""
    torch = pytest.importorskip("torch")
    from attnnet.bench.peers import torch_networks

    with torch.device("meta"):
        net = torch_networks.create(arch, placement, **options)
    zero = np.zeros((), np.float32)
    return {key: np.broadcast_to(zero, tuple(v.shape)) for key, v in net.state_dict().items()}


@pytest.mark.parametrize("arch", [*RESNETS, *VGGS])
@pytest.mark.parametrize("placement", [None, "SE_1", "SEC_23", "CA_123", "AA_2", "NAB_1+NEW_34"])
def test_recognises_every_network(arch, placement, twins):
    vgg = arch in VGGS
    for options in [{"num_classes": 10}, {"num_classes": 100, "in_channels": 1, "image_size": 64}]:
        for plain in [{}, {"batch_norm": False}] if vgg else [{}]:
            made = options | plain
            config = recognise(shapes_of(twins, arch, placement, **made))
            expected = {
                "arch": arch, "num_classes": made["num_classes"],
                "in_channels": made.get("in_channels", 3),
                "block": placement and placement.replace("AA", "AA_ORIGINAL"),
            }  # fmt: skip
            if vgg:
                expected["batch_norm"] = made.get("batch_norm", True)
            if vgg or placement == "AA_2":
                expected["image_size"] = (made.get("image_size", 32),) * 2
            got = attnnet.models.read_placement(config.pop("block"), 5, "base").blocks
            blocks = attnnet.models.read_placement(expected.pop("block"), 5, "base").blocks
            assert config == expected and got == blocks


# Without PyTorch


def test_a_file_of_the_study(resnet, tmp_path):
    state = to_torch_state_dict(resnet, data_parallel=True, tensors=False)
    assert all(key.startswith("module.") for key in state)
    before = attnnet.get_rng_state()
    model = attnnet.load(write(tmp_path / "checkpoint_9.pth", state, acc=77, epoch=9))
    assert attnnet.get_rng_state() == before
    assert model.config == resnet.config and not model.training
    assert model.source == {"path": str(tmp_path / "checkpoint_9.pth"), "acc": 77, "epoch": 9}
    assert model.normalization == (CIFAR100.mean, CIFAR100.std)
    assert model.class_names == list(CIFAR100_NAMES)
    x = np.ones((1, 3, 32, 32), np.float32)
    assert logits(model, x).tobytes() == logits(resnet, x).tobytes()


def test_vgg_counts_as_the_study_does(tmp_path):
    attnnet.manual_seed(1)
    vgg = attnnet.vgg11("SE_SA_1+SEC_SA_5").eval()
    state = to_torch_state_dict(vgg, data_parallel=True, tensors=False)
    assert {"features.module.3.fc.0.weight", "features.module.4.spatial.conv.weight",
            "features.module.7.running_mean", "classifier.6.bias"} <= state.keys()  # fmt: skip
    path = write(tmp_path / "checkpoint_5.tar", state, best_prec1=90, epoch=6)
    for model in (attnnet.load(path), attnnet.load(path, attnnet.vgg11("SE_SA_1+SEC_SA_5"))):
        assert model.block_name == "SE_SA_1+SEC_SA_5"
        assert model.normalization == (CIFAR10.mean, CIFAR10.std)
        assert model.class_names == list(CIFAR10_NAMES)
        ours = vgg.state_dict()
        assert all(ours[k].tobytes() == v.tobytes() for k, v in model.state_dict().items())
    assert from_torch_state_dict(vgg.state_dict()).block_name == "SE_SA_1+SEC_SA_5"


def test_data_are_the_studys_where_the_classes_are_as_many(tmp_path):
    for network in (attnnet.resnet18(num_classes=10), attnnet.vgg11(num_classes=100),
                    attnnet.resnet18(num_classes=100, in_channels=1)):  # fmt: skip
        state = to_torch_state_dict(network, tensors=False)
        beside = {"acc": 1} if "linear.weight" in state else {"best_prec1": 1}
        model = attnnet.load(write(tmp_path / "checkpoint_9.pth", state, epoch=9, **beside))
        assert model.class_names is None and model.normalization is None
        plain = attnnet.load(write(tmp_path / "plain.pth", state))
        assert plain.class_names is None and plain.normalization is None


def test_a_plain_state_dict_and_safetensors(resnet, tmp_path):
    from safetensors.numpy import save_file

    state = resnet.state_dict()
    (tmp_path / "a.pt").write_bytes(tb.zip_file(*tb.state(state)))
    save_file(state, tmp_path / "b.safetensors", {"made": "by hand"})
    for name in ("a.pt", "b.safetensors"):
        model = attnnet.load(tmp_path / name)
        assert model.normalization is None and model.block_name == "NEW_1"
        assert all(state[k].tobytes() == v.tobytes() for k, v in model.state_dict().items())
    assert model.source == {"path": str(tmp_path / "b.safetensors"), "made": "by hand"}


@pytest.mark.parametrize("length", [0x0280, 0x9680, 0x4B50])
def test_safetensors_whose_length_begins_like_a_file_of_torch(tmp_path, length):
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}})
    data = length.to_bytes(8, "little") + header.ljust(length).encode()
    (tmp_path / "x.safetensors").write_bytes(data + np.array([[1, 2]], "<f4").tobytes())
    model = attnnet.load(tmp_path / "x.safetensors", attnnet.nn.Linear(2, 1, bias=False))
    assert model.weight.tolist() == [[1, 2]]


def test_safetensors_in_bfloat16(tmp_path):
    raw = np.array([[1.0, -2.5]], np.float32).view(np.uint32) >> 16
    table = {"weight": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}
    head = json.dumps(table).encode()
    data = len(head).to_bytes(8, "little") + head + raw.astype("<u2").tobytes()
    (tmp_path / "x.safetensors").write_bytes(data)
    model = attnnet.load(tmp_path / "x.safetensors", attnnet.nn.Linear(2, 1, bias=False))
    assert model.weight.tolist() == [[1.0, -2.5]]


def test_old_files_count_no_batches(resnet):
    state = {k: v for k, v in resnet.state_dict().items() if "num_batches" not in k}
    model = from_torch_state_dict(state)
    assert model.block_name == "NEW_1" and int(model.bn1.num_batches_tracked) == 0


def test_own_checkpoints_open_as_before(tmp_path):
    from attnnet.training import checkpoint

    attnnet.manual_seed(2)
    model = attnnet.vgg11("SE_1")
    meta = {"model": model.config, "classes": list("abcdefghij")}
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, checkpoint.Checkpoint(model.state_dict(), meta=meta))
    for place in (path, tmp_path):
        assert attnnet.load(place).class_names == list("abcdefghij")
        assert attnnet.load(place, attnnet.vgg11("SE_1")).class_names == list("abcdefghij")
        with pytest.raises(ValueError, match="takes no image_size"):
            attnnet.load(place, image_size=64)
    with pytest.raises(CheckpointError, match=r"Did you mean .*last\.safetensors"):
        attnnet.load(tmp_path / "lost.safetensors")


def test_options_and_given_models(resnet, tmp_path):
    state = resnet.state_dict()
    path = write(tmp_path / "x.pth", state, epoch=1)
    assert attnnet.load(path, image_size=(16, 24)).image_size == (16, 24)
    assert attnnet.load(path, arch="resnet18", block="NEW_1", num_classes=100).arch == "resnet18"
    with pytest.raises(ValueError, match="takes no options, got block"):
        from_torch_state_dict(state, resnet, block="NEW_1")
    with pytest.raises(CheckpointError, match="Did you mean 'resnet18'"):
        from_torch_state_dict(state, arch="resnet81")


def test_a_block_of_ones_own():
    @attnnet.register_block("Halver")
    class Halver(Module):
        def __init__(self, channels):
            super().__init__()
            self.half = attnnet.nn.Conv2d(channels, channels, 1)

        def forward(self, x):
            return x * self.half(x)

    state = attnnet.vgg11("Halver_2").state_dict()
    assert from_torch_state_dict(state).block_name == "Halver_2"


def changed(state, **changes):
    state = dict(state)
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize("changes, words", [
    ({"linear__weight": np.zeros((100, 3), "f4")}, r"size mismatch for linear\.weight"),
    ({"linear__bias": None}, r"Missing key\(s\) in state_dict: \"linear\.bias\""),
    ({"extra": np.zeros(3, "f4")}, r"Unexpected key\(s\) in state_dict: \"extra\""),
    ({"linear__weight": None}, r"linear\.weight is missing"),
    ({"linear__weight": np.zeros(3, "f4")}, "expected 2 dimensions"),
    ({"linear__weight": np.zeros((0, 512), "f4")}, r"linear\.weight is empty"),
    ({"layer1__0__image_module__fc__0__weight": None}, "no block that is known"),
    ({"layer4__2__conv1__weight": np.zeros((1, 1, 3, 3), "f4")}, "2-2-2-3 blocks"),
    ({"layer2__0__image_module__fc__0__weight": np.zeros(3, "f4"),
      "layer2__0__image_module__fc__2__weight": np.zeros(3, "f4")},
     r"layer2\.1\..* holds no block, the other .* hold SE"),
    ({"module__linear__bias": np.zeros(100, "f4")}, "there twice"),
])  # fmt: skip
def test_what_does_not_map_is_listed(resnet, changes, words):
    with pytest.raises(CheckpointError, match=words):
        from_torch_state_dict(changed(resnet.state_dict(), **changes))


def test_states_that_are_no_network():
    with pytest.raises(CheckpointError, match=r"neither .* \(a, b.*Make the model"):
        from_torch_state_dict({"a": np.ones(2), "b": np.ones(2)})
    with pytest.raises(TypeError, match="x: expected an array of numbers"):
        from_torch_state_dict({"x": "text"})
    vgg = attnnet.vgg11().state_dict()
    for changes, words in [
        ({"classifier__1__weight": np.zeros((512, 1024), "f4")}, "no square image"),
        ({"features__0__weight": None, "features__0__bias": None}, "7 convolutions"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            from_torch_state_dict(changed(vgg, **changes))


@pytest.mark.parametrize("content, words", [
    (b"]", "holds a list"),
    (tb.plain_dict({"epoch": tb.number(1)}), "holds no state dict"),
    (tb.plain_dict({key: tb.ordered_dict({"w": tb.tensor(tb.storage("0"), [1], [1])})
                    for key in "ab"}), r"several state dicts \(a, b\)"),
])  # fmt: skip
def test_files_without_a_state(content, words, tmp_path):
    (tmp_path / "x.pth").write_bytes(tb.zip_file(content, {"0": bytes(4)}))
    with pytest.raises(CheckpointError, match=words) as caught:
        attnnet.load(tmp_path / "x.pth")
    assert "x.pth" in str(caught.value)


def test_a_small_file_cannot_ask_for_a_large_network(tmp_path):
    """Every name of a ResNet152 with NAB, 7 GB of weights, each of them one number."""
    names = {f"layer{s}.{i}.conv{c}.weight" for s, n in enumerate((3, 8, 36, 3), 1)
             for i in range(n) for c in (1, 2, 3)}  # fmt: skip
    names |= {f"layer3.{i}.image_module.{part}.0.{kind}" for i in range(36)
              for part in ("sam", "cam") for kind in ("weight", "bias")}  # fmt: skip
    one = np.ones((1, 1, 1, 1), np.float32)
    state = dict.fromkeys(sorted(names | {"conv1.weight"}), one) | {"linear.weight": one[0, 0]}
    path = write(tmp_path / "x.pth", state)
    attnnet.set_memory_limit(in_use() + 2**25)
    try:
        with pytest.raises(CheckpointError, match="more parameters than its file has room for"):
            attnnet.load(path)
    finally:
        attnnet.set_memory_limit(0)


def test_torch_tensors_need_torch(resnet, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="tensors=False"):
        to_torch_state_dict(resnet)


@pytest.mark.parametrize("arch, block", [("resnet18", "SE_SA_2+AA_3"), ("vgg11", "SE_SA_1+AA_5")])
def test_scrambled_states_never_do_worse_than_a_refusal(arch, block):
    seed = 77
    rng = np.random.default_rng(seed)
    made = attnnet.create_model(arch, block)
    state = to_torch_state_dict(made, tensors=False)
    keys, refused = list(state), 0
    for trial in range(300):
        broken = dict(state)
        for _ in range(rng.integers(1, 6)):
            key, other = rng.choice(keys, 2)
            shape = tuple(rng.integers(0, 70, rng.integers(0, 5)))
            kind = rng.integers(4)
            if kind == 0:
                broken.pop(key, None)
            elif kind == 1:
                broken[key] = np.broadcast_to(np.float32(0), shape)
            elif kind == 2:
                broken[f"{key}.{other}"] = state[key]
            else:
                broken[other.replace("1", "3", 1)] = state[key]
        try:
            config = recognise(unwrapped(broken))
            assert config["arch"] in (*RESNETS, *VGGS)
        except CheckpointError:
            refused += 1
        except Exception as error:
            pytest.fail(f"seed {seed}, trial {trial}: {error!r}")
    assert 50 < refused < 300
