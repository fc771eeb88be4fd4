"""The networks: parameter counts of the study, names, sizes, initial values, summaries."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from reference.study import COUNTS

import attnnet
from attnnet import models, nn


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("arch", "block", "classes"), COUNTS)
def test_parameter_counts_of_the_study(arch, block, classes):
    assert (
        count(attnnet.create_model(arch, block, num_classes=classes))
        == COUNTS[arch, block, classes]
    )


def test_every_network_is_listed_and_made_by_name():
    listed = attnnet.list_models()  # networks that other tests registered may follow
    assert listed[:9] == [
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
        "vgg11", "vgg13", "vgg16", "vgg19",
    ]  # fmt: skip
    assert models.find_model("ResNet50") == "resnet50"
    assert models.find_model("VGG19_BN") == models.find_model("vgg19") == "vgg19"
    with pytest.raises(ValueError, match=r"unknown model 'resnet19'. Did you mean 'resnet1"):
        attnnet.create_model("resnet19")


def test_own_network(monkeypatch):
    monkeypatch.setattr(models.registry, "_factories", dict(models.registry._factories))

    @models.register_model("tiny")
    def tiny(block=None, num_classes=10):
        return nn.Linear(3, num_classes)

    assert attnnet.create_model("TINY", num_classes=4).out_features == 4
    assert "tiny" in attnnet.list_models()
    with pytest.raises(TypeError, match="needs a callable"):
        models.register_model("other", 3)


def test_names_of_modules_and_state():
    model = attnnet.resnet18("NEW_1")
    keys = list(model.state_dict())
    assert keys[:2] == ["conv1.weight", "bn1.weight"]
    assert "layer1.0.image_module.sg.spatial.bn.num_batches_tracked" in keys
    assert "layer2.0.shortcut.1.running_var" in keys and "linear.bias" in keys
    block = model.get_submodule("layer1.0.attention")
    assert block is model.layer1[0].image_module and isinstance(block, nn.NEW)
    assert dict(model.named_modules())["layer1.0.image_module"] is block
    assert list(model.attention_blocks()) == ["layer1.0.attention", "layer1.1.attention"]
    model.layer1[0].attention = None
    assert list(model.attention_blocks()) == ["layer1.1.attention"]
    vgg = attnnet.vgg11("SE_SA_1+CA_2")
    keys = list(vgg.state_dict())
    assert "features.3.0.fc.0.weight" in keys  # conv, bn, relu, then the block
    assert "features.5.weight" in keys and "features.8.mlp.1.weight" in keys
    assert keys[-1] == "classifier.6.bias"
    assert list(vgg.attention_blocks()) == ["features.3", "features.8"]
    plain = attnnet.vgg11(batch_norm=False)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in plain.modules())
    assert "features.3.weight" in plain.state_dict()


def test_config_makes_the_same_network():
    for model in (
        attnnet.resnet18("se_2+cbam_1", num_classes=7, in_channels=1, image_size=(16, 20)),
        attnnet.vgg11(None, batch_norm=False, dropout=0.1),
    ):
        twin = attnnet.create_model(**model.config)
        assert twin.config == model.config
        assert twin.load_state_dict(model.state_dict()) == ([], [])
    assert model.block_name == model.config["block"] == "VGG11"
    assert attnnet.resnet18(None).block_name == "RESNET"


@pytest.mark.parametrize(
    ("arch", "options", "shape"),
    [
        ("resnet18", {}, (3, 32, 32)),
        ("resnet18", {"in_channels": 1, "image_size": 7}, (1, 7, 7)),
        ("resnet18", {"image_size": (9, 12)}, (3, 9, 12)),
        ("resnet50", {"image_size": 8}, (3, 8, 8)),
        ("vgg11", {"image_size": 48}, (3, 48, 48)),
        ("vgg11", {"image_size": (32, 64), "in_channels": 2, "batch_norm": False}, (2, 32, 64)),
    ],
)
def test_sizes(arch, options, shape):
    model = attnnet.create_model(arch, "CA_1", num_classes=6, **options).eval()
    rng = np.random.default_rng(1)
    with attnnet.no_grad():
        y = model(attnnet.Tensor(rng.standard_normal((2, *shape))))
    assert y.shape == (2, 6) and np.isfinite(y.numpy()).all()


def test_other_sizes_than_made_for():
    model = attnnet.resnet18(image_size=32).eval()
    with attnnet.no_grad():
        assert model(attnnet.Tensor(np.zeros((1, 3, 17, 40)))).shape == (1, 10)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("make", [
    lambda: attnnet.resnet18("CBAM_1", image_size=8), lambda: attnnet.vgg11("NEW_1")
])  # fmt: skip
def test_copies_and_pickles(make, duplicate):
    model = make()
    model.class_names = list("abcdefghij")
    twin = duplicate(model)
    assert twin.config == model.config and twin.class_names == model.class_names
    assert list(twin.attention_blocks()) == list(model.attention_blocks())
    image = np.full((1, 3, *model.image_size), 0.3)
    np.testing.assert_array_equal(
        twin.predict_probabilities(image), model.predict_probabilities(image)
    )


@pytest.mark.parametrize("training", [True, False])
def test_inputs_that_do_not_fit(training):
    resnet, vgg = attnnet.resnet18().train(training), attnnet.vgg11().train(training)
    with attnnet.no_grad():
        for model in (resnet, vgg):
            for shape in ((2, 4, 32, 32), (3, 32, 32), (2, 3)):
                with pytest.raises(ValueError, match=r"conv2d|this vgg11"):
                    model(np.zeros(shape))
            assert model(np.zeros((2, 3, 32, 32), np.uint8)).shape == (2, 10)
        with pytest.raises(ValueError, match="this vgg11 was made for images of 32 x 32 pixels"):
            vgg(attnnet.Tensor(np.zeros((2, 3, 64, 32))))
        with pytest.raises(ValueError, match="this vgg11 was made for images of 32 x 32 pixels"):
            vgg(attnnet.Tensor(np.zeros((2, 3, 31, 32))))
        assert vgg(attnnet.Tensor(np.zeros((2, 3, 40, 63)))).shape == (2, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: attnnet.resnet18("NAB_4"), r"NAB at stage 4 \(512 channels, 4 x 4 pixels\)"),
        (lambda: attnnet.vgg19("NAB_1234"), r"vgg19 with NAB_1234: NAB at stage 4"),
        (lambda: attnnet.vgg19(image_size=31), "halves the image five times.*at least 32"),
        (lambda: attnnet.resnet18(num_classes=0), "num_classes must be an int of at least 1"),
        (lambda: attnnet.resnet18(in_channels=2.5), "in_channels must be an int"),
        (
            lambda: attnnet.resnet18(image_size="big"),
            "image_size must be an integer or two of them, each at least 1: got 'big'",
        ),
        (lambda: attnnet.vgg11(dropout=2), "between 0 and 1, but got 2"),
        (lambda: attnnet.vgg11("NEW_6"), "there is no stage 6; stages are 1 to 5"),
        (lambda: attnnet.vgg16("VGG19"), "unknown block placement 'VGG19'. Did you mean 'VGG16'"),
    ],
)
def test_errors_when_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nab_fits_where_there_are_seven_pixels():
    attnnet.resnet18("NAB_3")
    attnnet.resnet18("NAB_4", image_size=56)


@pytest.mark.parametrize("block", ["CBAM_1", "AA_1"])
def test_initial_values(block):
    attnnet.manual_seed(42)
    resnet, vgg = attnnet.resnet18(block), attnnet.vgg11(block)
    for model, variance in ((resnet, None), (vgg, "vgg")):
        for name, part in model.named_modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                values = part.weight.numpy()
                bound = 1 / math.sqrt(values[0].size)
                if variance and isinstance(part, nn.Conv2d):
                    rows, columns = part.kernel_size
                    std = math.sqrt(2 / (rows * columns * part.out_channels))
                    spread = 5 / math.sqrt(2 * values.size)
                    assert abs(values.std() / std - 1) < spread, name
                    assert part.bias is not None and not part.bias.numpy().any(), name
                else:
                    assert np.abs(values).max() <= bound, name
                    if part.bias is not None:
                        assert 0 < np.abs(part.bias.numpy()).max() <= bound, name
            if isinstance(part, nn.BatchNorm2d):
                assert (part.weight.numpy() == 1).all() and not part.bias.numpy().any()
                assert (part.running_var.numpy() == 1).all()
    attnnet.manual_seed(42)
    again = attnnet.resnet18(block).state_dict()
    for key, value in resnet.state_dict().items():
        np.testing.assert_array_equal(value, again[key], err_msg=key)


def test_summary_and_html():
    model = attnnet.resnet18("CBAM_12", num_classes=100)
    summary = model.summary()
    assert summary.title == "resnet18, block CBAM_12, 100 classes"
    assert summary.total_parameters == count(model)
    assert sum(row.parameters for row in summary.rows) == count(model)
    base = attnnet.resnet18(num_classes=100).summary()
    assert base.total_multiply_adds == 555_468_800
    rows = {row.name: row for row in summary.rows}
    assert rows["layer2.0.conv1"].output_shape == (1, 128, 16, 16)
    assert rows["linear"].parameters == 51_300
    assert "layer1.0.image_module.SpatialGate" in rows
    assert model.training
    assert "resnet18, block CBAM_12" in model._repr_html_()
