"""The PyTorch oracle itself: parameter counts of the study, and keys of its checkpoints."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from reference.study import COUNTS  # noqa: E402

from attnnet.bench.peers import torch_networks  # noqa: E402


@pytest.mark.parametrize(("arch", "block", "classes"), COUNTS)
def test_parameter_counts_of_the_study(arch, block, classes):
    with torch.device("meta"):
        model = torch_networks.create(arch, block, num_classes=classes)
    assert torch_networks.parameter_count(model) == COUNTS[arch, block, classes]


def test_keys():
    with torch.device("meta"):
        keys = torch_networks.create("resnet50", "SE_SA_2").state_dict()
        assert "layer2.0.image_module.1.spatial.bn.num_batches_tracked" in keys
        assert "layer1.0.shortcut.0.weight" in keys and "layer4.2.conv3.weight" in keys
        keys = torch_networks.create("vgg11", "CBAM_1+SE_2").state_dict()
    assert keys["features.3.ChannelGate.mlp.1.weight"].shape == (4, 64)
    assert keys["features.5.weight"].shape == (128, 64, 3, 3)  # after block and pool
    assert keys["features.8.fc.0.weight"].shape == (16, 128)
    assert keys["classifier.6.bias"].shape == (10,)


def test_placements():
    assert torch_networks.stages_of(None) == {}
    assert torch_networks.stages_of("SE_SA_13+NEW_4") == {1: "SE_SA", 3: "SE_SA", 4: "NEW"}
