"""ONNX files: checked by ONNX, and ONNX Runtime computes what attnnet computes."""

import json
import sys

import numpy as np
import pytest
from reference.narrow import narrowed

import attnnet
from attnnet import nn
from attnnet.models.resnet import DEPTHS as RESNETS
from attnnet.models.vgg import DEPTHS as VGGS
from attnnet.nn import attention

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

BLOCKS = ["CA", "SE", "SEC", "SA", "AA", "AA_ORIGINAL", "CBAM", "NEW", "NAB", "SE_SA", "SEC_SA"]


def stirred(model: nn.Module) -> nn.Module:
    """Running statistics and affine weights that are not the first ones."""
    rng = np.random.default_rng(9)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(rng.uniform(-0.2, 0.2, part.num_features))
            part.running_var.copy_(rng.uniform(0.8, 1.2, part.num_features))
            if part.affine:
                part.weight.copy_(rng.uniform(0.5, 1.5, part.num_features))
                part.bias.copy_(rng.uniform(-0.5, 0.5, part.num_features))
    return model


def session(path):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check(model, path, shape, bound, **options):
    """Equal outputs for batches of one and three; ``bound`` is relative to the largest output."""
    attnnet.export_onnx(stirred(model), path, **options)
    ran = session(path)
    (entry,) = ran.get_inputs()
    assert entry.shape == ["N", *shape]
    model.eval()
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        (got,) = ran.run(None, {entry.name: x})
        with attnnet.no_grad():
            expected = model(attnnet.Tensor(x)).numpy()
        assert got.shape == expected.shape
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert not (error > bound), error
    return onnx.load(path)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block(name, opset, tmp_path):
    attnnet.manual_seed(4)
    block = nn.registry.make_block(name, 64, 8, 9)
    # Sums of up to 7 * 7 * 64 products: 1e-5 is 84 units of float32.
    check(block, tmp_path / "x.onnx", (64, 8, 9), 1e-5, input_shape=(64, 8, 9), opset=opset)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_block_that_was_set_later_stands_before_the_relu(arch, tmp_path):
    attnnet.manual_seed(6)
    with narrowed(4):
        model = attnnet.create_model(arch, None, num_classes=7, image_size=8)
    wide = model.layer1[0].bn2.num_features if arch == "resnet18" else 64
    model.layer1[0].attention = nn.SE(wide)
    model.layer2[0].attention = nn.SA()
    check(model, tmp_path / "x.onnx", (3, 8, 8), 3e-4)
    model.layer1[0].attention = None
    check(model, tmp_path / "x.onnx", (3, 8, 8), 3e-4)


@pytest.mark.parametrize("arch, size", [("resnet18", 8), ("vgg11", 32)])
def test_what_forward_never_calls_is_left_out(arch, size, tmp_path):
    attnnet.manual_seed(6)
    with narrowed(4):
        model = attnnet.create_model(arch, "SA_1", num_classes=7, image_size=size)
    model.spare = nn.Linear(7, 2)
    for block in model.attention_blocks().values():
        block.spatial.spare = nn.Tanh()
    made = check(model, tmp_path / "x.onnx", (3, size, size), 3e-4)
    assert not [c.name for c in made.graph.initializer if "spare" in c.name]


def test_pool_types(tmp_path):
    block = attention.CA(32, pool_types=("lp", "lse", "avg"))
    check(block, tmp_path / "x.onnx", (32, 6, 5), 1e-5, input_shape=(32, 6, 5))


def test_layers(tmp_path):
    made = nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding=(0, 2), groups=2), nn.BatchNorm2d(8),
        nn.Tanh(), nn.AvgPool2d(3, 2, padding=1), nn.MaxPool2d(2, 1, padding=1), nn.Dropout(),
        nn.BatchNorm2d(8, affine=False), nn.Identity(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(8, 3, bias=False), nn.Softmax(),
    )  # fmt: skip
    check(made, tmp_path / "x.onnx", (4, 11, 12), 1e-5, input_shape=(4, 11, 12))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_on_pictures(bias, tmp_path):
    made = nn.Sequential(nn.Linear(6, 5, bias=bias), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten(),
                         nn.Linear(30, 3, bias=bias))  # fmt: skip
    found = check(made, tmp_path / "x.onnx", (4, 3, 6), 1e-5, input_shape=(4, 3, 6))
    assert {node.op_type for node in found.graph.node} >= {"MatMul", "Gemm"}


@pytest.mark.parametrize("arch, block, size", [
    ("resnet18", "CBAM_1+SE_SA_3+AA_4", 16), ("resnet50", "NEW_4", 8),
    ("vgg11", "SEC_SA_1+NAB_2", 32),
])  # fmt: skip
def test_networks(arch, block, size, tmp_path):
    attnnet.manual_seed(6)
    model = attnnet.create_model(arch, block, num_classes=7, image_size=size)
    model.class_names = list("abcdefg")
    model.normalization = ((0.5,) * 3, (0.25,) * 3)
    # Winograd's errors, 2e-6 a layer, over the network's layers.
    made = check(model, tmp_path / "x.onnx", (3, size, size), 1e-4)
    facts = {prop.key: prop.value for prop in made.metadata_props}
    assert facts["arch"] == arch and facts["block"] == block
    assert json.loads(facts["class_names"]) == model.class_names
    assert json.loads(facts["normalization"])["std"] == [0.25] * 3
    names = {constant.name for constant in made.graph.initializer}
    assert {key for key in model.state_dict() if "num_batches" not in key and "rel_" not in key} \
        <= names


@pytest.mark.parametrize("arch", [*RESNETS, *VGGS])
def test_every_network(arch, tmp_path):
    """With a quarter of its widths; Winograd's errors, 2e-6 a layer, over up to 152 layers."""
    attnnet.manual_seed(7)
    size = 32 if arch.startswith("vgg") else 8
    with narrowed(4):
        model = attnnet.create_model(arch, "CBAM_1", num_classes=7, image_size=size)
    check(model, tmp_path / "x.onnx", (3, size, size), 3e-4)


def test_without_batch_norm_and_with_one_image(tmp_path):
    model = attnnet.vgg11(batch_norm=False)
    attnnet.export_onnx(model, tmp_path / "x.onnx", dynamic_batch=False)
    (entry,) = session(tmp_path / "x.onnx").get_inputs()
    assert entry.shape == [1, 3, 32, 32] and entry.name == "images"


@pytest.mark.parametrize("numbers", [
    np.float32([0.5, 0.25, 0.125]), [np.float32(0.5), np.float64(0.25), 0.125],
])  # fmt: skip
def test_normalisation_of_numpys_numbers(numbers, tmp_path):
    with narrowed(4):
        model = attnnet.resnet18(num_classes=2, image_size=8)
    model.normalization = (numbers, numbers)
    model.class_names = np.array(["cat", "dog"])
    attnnet.export_onnx(model, tmp_path / "x.onnx")
    facts = {prop.key: prop.value for prop in onnx.load(tmp_path / "x.onnx").metadata_props}
    known = json.loads(facts["normalization"])
    assert known["mean"] == known["std"] == [0.5, 0.25, 0.125]
    assert json.loads(facts["class_names"]) == ["cat", "dog"]


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * self.conv(x).sigmoid()


class Doubled(attention.SE):
    def reference(self, x):
        return x * 2

    fused = reference


def test_own_modules(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 16, 1), Gate(16), Doubled(16))
    with pytest.raises(TypeError, match=r"1 is a Gate.*@attnnet\.interop\.onnx_nodes\(Gate\)"):
        attnnet.export_onnx(model, tmp_path / "x.onnx", (3, 4, 4))
    assert not list(tmp_path.iterdir())

    @attnnet.interop.onnx_nodes(Gate)
    def gate(graph, module, x):
        return graph.node("Mul", x, graph.node("Sigmoid", graph.module(module, "conv", x)))

    # A subclass that computes something else is not taken for its base.
    with pytest.raises(TypeError, match="2 is a Doubled"):
        attnnet.export_onnx(model, tmp_path / "x.onnx", (3, 4, 4))
    del model[2]
    check(model, tmp_path / "x.onnx", (3, 4, 4), 1e-5, input_shape=(3, 4, 4))


def test_what_is_refused(tmp_path, monkeypatch):
    path, block = tmp_path / "x.onnx", attention.SE(16)
    with pytest.raises(ValueError, match=r"SE takes images of many sizes.*input_shape"):
        attnnet.export_onnx(block, path)
    for opset in (12, 999):
        with pytest.raises(ValueError, match=f"got {opset}"):
            attnnet.export_onnx(block, path, (16, 4, 4), opset=opset)
    with pytest.raises(ValueError, match="7"):
        attnnet.export_onnx(attention.NAB(16), path, (16, 4, 4))
    for layer, words in [(nn.AdaptiveAvgPool2d(2), "adaptive pool"),
                         (nn.Flatten(0), "joins images"),
                         (nn.BatchNorm2d(16, track_running_stats=False), "running")]:
        with pytest.raises(TypeError, match=words):
            attnnet.export_onnx(layer, path, (16, 4, 4))
    with pytest.raises(OSError):
        attnnet.export_onnx(block, tmp_path / "none" / "x.onnx", (16, 4, 4))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"attnnet\[onnx\]"):
        attnnet.export_onnx(block, path, (16, 4, 4))
    assert not list(tmp_path.iterdir())
