"""cam(): layers, targets, batches, smoothing, methods that ask the network, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from reference.memory import in_use

import attnnet
from attnnet import functional as F
from attnnet import nn
from attnnet.explain import cam, list_methods, network_methods, register_method
from attnnet.explain.fullgrad import biased, images_at_once
from attnnet.explain.maps import join_layers, resize, scaled_layer
from attnnet.explain.methods import METHODS
from attnnet.explain.record import record
from attnnet.explain.targets import Target
from attnnet.nn import hooks
from attnnet.nn.attention_augmented import AA

from . import tiny

CLOSE = {"rtol": 0, "atol": 2e-5}  # of maps in 0..1 whose convolutions took another path


@pytest.fixture(scope="module")
def model():
    return tiny.network()


@pytest.fixture(scope="module")
def x():
    return attnnet.Tensor(tiny.images(3, 16))


def test_gradients_are_those_of_the_whole_graph(model, x):
    """The shortened forward and backward against an ordinary one with everything recorded."""
    names = ["layer1.0.attention", "layer2.0.bn1", "layer3", "layer1.1.conv2"]
    layers = {name: model.get_submodule(name) for name in names}
    seen = record(model, layers, x.numpy(), Target([4, 0, 7], 3))
    outputs = {}
    model.eval()
    handles = [
        part.register_forward_hook(lambda m, i, y, name=name: outputs.update({name: y}))
        for name, part in layers.items()
    ]
    logits = model(attnnet.Tensor(x, requires_grad=True))
    for output in outputs.values():
        output.retain_grad()
    (logits[0, 4] + logits[1, 0] + logits[2, 7]).backward()
    for handle in handles:
        handle.remove()
    model.zero_grad()
    model.train()
    np.testing.assert_allclose(seen.logits, logits.numpy(), rtol=1e-4, atol=1e-5)
    for name in names:
        for got, expected in ((seen.activations, outputs[name]), (seen.gradients,
                                                                  outputs[name].grad)):
            expected = expected.numpy()
            limit = 2e-5 * np.abs(expected).max()
            assert np.abs(got[name] - expected).max() <= limit, name


def test_the_model_is_left_as_it_was(model, x):
    model.train()
    model.layer1.eval()
    model.conv1.weight.requires_grad_(False)
    model.linear.weight.grad = attnnet.Tensor(np.ones(model.linear.weight.shape))
    before = model.state_dict()
    for method in ("gradcam", "fullgrad"):
        cam(model, x, method)
    with pytest.raises(ValueError):
        cam(model, x, target=10)
    assert model.training and not model.layer1.training and model.layer2[0].bn1.training
    asks = [p.requires_grad for p in model.parameters()]
    assert not asks[0] and all(asks[1:]) and not hooks.any_alive() and attnnet.is_grad_enabled()
    assert model.linear.weight.grad.numpy().min() == 1 and model.linear.bias.grad is None
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    model.conv1.weight.requires_grad_(True)
    model.zero_grad()
    model.train()


def test_result(model, x):
    names = [f"class_{i}" for i in range(10)]
    model.class_names = names
    result = cam(model, x, layers=["layer1", "layer3"])
    with attnnet.no_grad():
        logits = model.eval()(x).numpy()
    model.train()
    np.testing.assert_allclose(result.logits, logits, rtol=1e-4, atol=1e-5)
    assert result.maps.shape == (3, 16, 16) and result.maps.dtype == np.float32
    assert result.maps.min() >= 0 and 0.99 < result.maps.max() <= 1
    np.testing.assert_array_equal(np.asarray(result), result.maps)
    assert len(result) == 3 and result.layers == ["layer1", "layer3"]
    assert {k: v.shape for k, v in result.layer_maps.items()} == {
        "layer1": (3, 16, 16), "layer3": (3, 4, 4)}
    np.testing.assert_array_equal(result.predicted, logits.argmax(1))
    np.testing.assert_array_equal(result.target, result.predicted)
    np.testing.assert_allclose(result.probabilities.sum(1), 1)
    chance = result.probabilities[0, result.target[0]]
    assert result.titles()[0] == f"class_{result.target[0]} {100 * chance:.0f} %"
    alone = cam(model, x, layers="layer3").maps
    np.testing.assert_allclose(result.of_layer("layer3"), alone, **CLOSE)
    assert repr(result) == "CAM(Grad-CAM of layer1, layer3: 3 maps of 16 x 16)"
    assert "<img" in result._repr_html_() and "class_" in result._repr_html_()
    nobody = replace(result, maps=result.maps[:0], images=x[:0], logits=result.logits[:0])
    assert "0 maps" in nobody._repr_html_()
    assert result.overlay().shape == (3, 16, 16, 3)
    small = cam(model, x, layers="layer3", resize=False)
    assert small.maps.shape == (3, 4, 4) and "<img" not in small._repr_html_()
    np.testing.assert_allclose(
        small.maps, join_layers([scaled_layer(small.layer_maps["layer3"], None)]), atol=1e-6)
    with pytest.raises(ValueError, match="overlays need resize=True"):
        small.overlay()
    with pytest.raises(ValueError, match="layer 'layer2' was not looked at, only layer1, layer3"):
        result.of_layer("layer2")
    with pytest.raises(ValueError, match="resize=False needs layers of one size"):
        cam(model, x, layers=["layer1", "layer3"], resize=False)
    model.class_names = None


def test_targets(model, x):
    def raw(target):
        return cam(model, x, layers="layer3", target=target).layer_maps["layer3"]

    predicted = cam(model, x).predicted
    np.testing.assert_array_equal(raw(None), raw(predicted))
    each = raw([1, 2, 3])
    for i in range(3):
        np.testing.assert_allclose(each[i], raw(i + 1)[i], rtol=0, atol=1e-6)
    difference = raw(lambda logits: logits[:, 3] - 2 * logits[:, 5])
    scale = np.abs(difference).max()
    np.testing.assert_allclose(difference, raw(3) - 2 * raw(5), rtol=0, atol=1e-5 * scale)
    assert cam(model, x, target=lambda logits: logits[:, 0]).target is None
    model.class_names = list("abcdefghij")
    np.testing.assert_array_equal(raw("d"), raw(3))
    np.testing.assert_array_equal(raw(["d", 3, np.int64(3)]), raw(3))
    with pytest.raises(ValueError, match="unknown class 'z'"):
        raw("z")
    model.class_names = None


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (10, ValueError, r"target must be 0 to 9 \(the classes\), got 10"),
        (-1, ValueError, "target must be 0 to 9 .*, got -1"),
        ([0, 1], ValueError, "target has 2 entries for 3 images"),
        ([0, 1, 11], ValueError, "got 11"),
        ("cat", ValueError, "target 'cat': the model knows no class_names"),
        (1.5, TypeError, "target must be None .*: got float"),
        ([0, 1, 2.5], TypeError, "got float"),
        (True, TypeError, "got bool"),
        (lambda logits: logits.sum(), ValueError, r"one score an image, shape \(3,\): got \(\)"),
        (lambda logits: 3, ValueError, "one score an image.* got int"),
    ],
)
def test_wrong_targets(model, x, target, error, message):
    with pytest.raises(error, match=message):
        cam(model, x, target=target)


def test_layers(model, x):
    assert cam(model, x, layers=model.layer3).layers == ["layer3"]
    assert cam(model, x, layers=["layer1.0.attention", model.layer2[0].conv1]).layers == [
        "layer1.0.attention", "layer2.0.conv1"]
    inside = cam(model, x, layers="layer1.0.attention.sg.spatial.conv")
    assert inside.layer_maps["layer1.0.attention.sg.spatial.conv"].shape == (3, 16, 16)
    assert cam(tiny.network(size=32), attnnet.Tensor(tiny.images(1, 32))).layers == ["layer4"]
    vgg = tiny.network("vgg11", "SE_5", 32)
    default = cam(vgg, attnnet.Tensor(tiny.images(1, 32)))
    assert default.layers == list(vgg.attention_blocks()) == ["features.28"]
    assert default.layer_maps["features.28"].shape == (1, 2, 2)


class Twice(nn.Module):
    """Calls one layer twice, another never, and gives a tuple on the way."""

    def __init__(self):
        super().__init__()
        self.twice, self.never, self.pair = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), Pair()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        x = self.pair(self.twice(self.twice(x)))[0]
        return self.linear(F.mean(x, (2, 3)))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ("layer5", ValueError, r"no module 'layer5'. Did you mean 'layer[1-4]'\?"),
        ("layer1.0.atention", ValueError, "Did you mean 'layer1.0.attention'"),
        (["layer1", "layer1"], ValueError, "'layer1' is given twice"),
        (["layer1.0.attention", "layer1.0.image_module"], ValueError, "given twice"),
        ([], ValueError, "layers: none given"),
        ([3], TypeError, "names or modules of the model, got int"),
        (nn.ReLU(), ValueError, "this ReLU is no module of the model"),
        ("linear", ValueError, r"'linear' has an output of shape \(3, 10\): a map needs"),
        ("avgpool", ValueError, "'avgpool' has an output of one position only"),
    ],
)
def test_wrong_layers(model, x, layers, error, message):
    with pytest.raises(error, match=message):
        cam(model, x, layers=layers)


def test_networks_of_ones_own(x):
    own = Twice()
    with pytest.raises(ValueError, match=r"which layer of .* twice, never, pair, linear"):
        cam(own, x)
    for name, message in {"twice": "is called more than once", "never": "takes no part",
                          "pair": "gives a tuple, not a tensor"}.items():
        with pytest.raises(ValueError, match=f"layer {name!r} {message}"):
            cam(own, x, layers=name)
    with pytest.raises(TypeError, match="how to prepare images for a Twice is not known"):
        cam(own, x.numpy(), layers="twice")
    with pytest.raises(TypeError, match="model must be an attnnet Module, got int"):
        cam(3, x)
    simple = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                           nn.Linear(5, 4))
    assert cam(simple, x, layers="1").maps.shape == (3, 16, 16)
    picture = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    with pytest.raises(ValueError, match=r"logits \(N, K\), got \(3, 5, 14, 14\)"):
        cam(picture, x, layers="0")
    simple[4].bias.copy_(np.full(4, np.inf))
    with pytest.raises(ValueError, match="output is not finite"):
        cam(simple, x, layers="1")


def test_images(model):
    """Every kind gives the same as the normalised Tensor; wrong ones are named."""
    model.normalization = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    pixels = np.random.default_rng(8).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    mean, std = model.normalization
    ready = attnnet.Tensor(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2))
    expected = cam(model, ready, layers="layer2")
    for images in (pixels, pixels.transpose(0, 3, 1, 2), pixels / 255,
                   [Image.fromarray(p) for p in pixels],
                   [Image.fromarray(p).convert("RGBA") for p in pixels]):
        got = cam(model, images, layers="layer2")
        np.testing.assert_allclose(got.images, expected.images, atol=1e-5)
        np.testing.assert_allclose(got.maps, expected.maps, rtol=0, atol=1e-3)
    assert cam(model, Image.fromarray(pixels[0]).convert("L"), layers="layer2").maps.shape[0] == 1
    for wrong, message in (
        (pixels[..., 0], r"images must be .* got shape"),  # gray arrays
        (np.zeros((2, 16, 16, 4), np.uint8), r"got shape \(2, 16, 16, 4\)"),  # RGBA arrays
        (np.zeros((2, 24, 24, 3), np.uint8), r"images \(N, 3, 16, 16\), got \(2, 3, 24, 24\)"),
        (attnnet.Tensor(np.zeros((1, 3, 8, 8))), r"got \(1, 3, 8, 8\)"),
        (np.zeros((0, 3, 16, 16), np.uint8), r"N at least 1, got shape \(0, 3, 16, 16\)"),
        (attnnet.Tensor(np.zeros((0, 3, 16, 16))), "N at least 1"),
        ([], "N at least 1"),
        (ready.numpy(), "float images must be 0 to 1, got .* attnnet Tensor for input that is"),
    ):
        with pytest.raises(ValueError, match=message):
            cam(model, wrong, layers="layer2")
    model.normalization = None


@pytest.mark.parametrize("method", ["gradcam", "fullgrad", "eigencam"])
def test_batches_change_nothing(model, x, method):
    one = cam(model, x, method, target=[1, 2, 3])
    many = cam(model, x, method, target=[1, 2, 3], batch_size=2)
    np.testing.assert_allclose(many.maps, one.maps, **CLOSE)
    np.testing.assert_array_equal(many.target, [1, 2, 3])
    with pytest.raises(ValueError, match="batch_size must be"):
        cam(model, x, method, batch_size=0)


def test_aug_smooth_is_the_mean_of_six(model, x):
    images, target = x.numpy(), [5, 4, 2]
    total = 0
    for factor in (0.9, 1.0, 1.1):
        for mirror in (False, True):
            seen = images[..., ::-1] if mirror else images
            maps = cam(model, attnnet.Tensor(seen * np.float32(factor)), "gradcam", "layer3",
                       target).maps
            total = total + (maps[..., ::-1] if mirror else maps)
    got = cam(model, x, "gradcam", "layer3", target, aug_smooth=True)
    np.testing.assert_allclose(got.maps, total / 6, **CLOSE)
    assert got.maps.max() < 1, "it must not be scaled again"


@pytest.mark.parametrize("resize", [True, False])
def test_aug_smooth_of_each_of_several_layers(model, x, resize):
    options = {"aug_smooth": True, "target": [5, 4, 2], "resize": resize}
    both = cam(model, x, layers=["layer3", "layer3.1.conv1"], **options)
    for name in both.layers:
        alone = cam(model, x, layers=name, **options)
        np.testing.assert_allclose(both.of_layer(name), alone.maps, **CLOSE)
        np.testing.assert_array_equal(alone.of_layer(name), alone.maps)
        plain = cam(model, x, layers=name, target=[5, 4, 2], resize=resize).maps
        assert np.abs(alone.maps - plain).max() > 0.01
    assert not cam(model, x, layers="layer3").smoothed


def test_titles_of_a_function_name_what_is_predicted(model, x):
    result = cam(model, x, target=lambda logits: logits[:, 0])
    first = result.predicted[0]
    chance = 100 * result.probabilities[0, first]
    assert result.titles()[0] == f"predicted: class {first} {chance:.0f} %"
    assert "predicted: class" in result._repr_html_()


def test_cam_is_gradcam_where_the_head_is_linear(x):
    """Zhou's weights are Grad-CAM's times the number of positions, for layer4 of a ResNet."""
    model = tiny.network(size=32)
    x = attnnet.Tensor(tiny.images(2, 32))
    plain, grad = (cam(model, x, method, target=[8, 5]) for method in ("cam", "gradcam"))
    np.testing.assert_allclose(plain.maps, grad.maps, **CLOSE)
    positions = grad.layer_maps["layer4"][0].size
    expected = positions * grad.layer_maps["layer4"]
    np.testing.assert_allclose(plain.layer_maps["layer4"], expected, rtol=1e-3, atol=1e-4)
    for other, layer in ((model, "layer3"), (tiny.network("vgg11", None, 32), None)):
        with pytest.raises(ValueError, match="method 'cam' needs a network whose logits are"):
            cam(other, x, "cam", layer)
    with pytest.raises(ValueError, match="explains classes, not functions"):
        cam(model, x, "cam", target=lambda logits: logits[:, 0])


def test_scorecam_by_its_definition(model, x):
    image, shown = x.numpy()[:1], []
    with model.conv1.register_forward_hook(lambda m, i, y: shown.append(i[0].numpy())):
        # Fifty times the logit, so that the softmax tells masks apart that differ a little.
        got = cam(model, x[:1], "scorecam", "layer3", lambda logits: 50 * logits[:, 5],
                  batch_size=7)
    a = record(model, {"layer3": model.layer3}, image, Target(5, 1), False).activations["layer3"]
    corners = np.linspace(0, 3, 16)  # 4 pixels spread over 16 with the corners on each other
    masked = []
    for channel in a[0].astype(np.float64):
        mask = np.stack([np.interp(corners, range(4), row) for row in channel])
        mask = np.stack([np.interp(corners, range(4), column) for column in mask.T]).T
        masked.append(image[0] * (mask - mask.min()) / (mask.max() - mask.min() + 1e-8))
    assert shown[0].shape[0] == 1 and max(len(batch) for batch in shown) == 7
    np.testing.assert_allclose(np.concatenate(shown[1:]), masked, rtol=0, atol=1e-4)
    model.eval()
    scores = 50 * model(attnnet.Tensor(np.array(masked))).numpy()[:, 5]
    model.train()
    powers = np.exp(scores - scores.max())
    expected = np.einsum("c,chw->hw", powers / powers.sum(), a[0])
    np.testing.assert_allclose(got.layer_maps["layer3"][0], expected, rtol=1e-3, atol=1e-5)


def test_scorecam_holds_no_more_masks_than_it_shows_at_once(monkeypatch, model, x):
    sizes = []
    monkeypatch.setattr(network_methods, "resize",
                        lambda maps, *size, **how: sizes.append(maps.shape[:-2])
                        or resize(maps, *size, **how))  # fmt: skip
    cam(model, x[:2], "scorecam", "layer3", batch_size=40)
    assert sizes == 2 * [(40,), (24,)]


def test_ablationcam_of_no_score(x):
    """Where it is 0 no channel has a share of it."""
    model = tiny.network()
    for part in (model.linear.weight, model.linear.bias):
        part.copy_(np.concatenate([part.numpy()[:9], np.zeros_like(part.numpy()[9:])]))
    with pytest.raises(ValueError, match=r"image 1 \(of its batch\), whose score is 0, that is"):
        cam(model, x, "ablationcam", "layer3", [5, 9, 5])


@pytest.mark.parametrize("layer", ["layer3", "layer2.0.bn1", "layer3.0.conv1"])
def test_ablationcam_by_its_definition(model, x, layer):
    """Also inside a residual block, where a shortcut leads around the layer."""
    image, module = x[:1], model.get_submodule(layer)
    seen = record(model, {layer: module}, image.numpy(), Target(5, 1), False)
    a, score = seen.activations[layer][0], seen.logits[0, 5]
    off = 0 if a.min() == 0 else a.min() - 1e7
    assert (off == 0) == (layer == "layer3")
    weights = []
    model.eval()
    for channel in range(len(a)):
        def ablate(_m, _x, y, channel=channel):
            values = y.numpy().copy()
            values[:, channel] = off
            return attnnet.Tensor(values)

        with module.register_forward_hook(ablate):
            weights.append((score - model(image)[0, 5].item()) / score)
    model.train()
    expected = np.einsum("c,chw->hw", np.array(weights), a)
    got = cam(model, image, "ablationcam", layer, 5, batch_size=10).layer_maps[layer][0]
    limit = 1e-4 if off == 0 else 2e-2  # 1e7 leaves float32 no digits behind the point
    assert np.abs(got - expected).max() <= limit * np.abs(expected).max()


def test_fullgrad_by_its_definition(x):
    """One convolution with bias and one batch norm: three terms."""
    rng = np.random.default_rng(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    bn = net[1]
    for value in (bn.weight, bn.bias, bn.running_mean):
        value.copy_(rng.standard_normal(4))
    seen = record(net, {"0": net[0], "1": net[1]}, x.numpy(), Target(1, 3), at_input=True)
    shift = bn.bias.numpy() - bn.running_mean.numpy() * bn.weight.numpy() / np.sqrt(1 + 1e-5)
    terms = [np.abs(x.numpy() * seen.input_gradient)]
    for bias, name in ((net[0].bias.numpy(), "0"), (shift, "1")):
        terms.append(np.abs(bias[:, None, None] * seen.gradients[name]))
    total = 0
    for term in terms:
        low = term - term.min((2, 3), keepdims=True)
        scaled = low / (1e-7 + low.max((2, 3), keepdims=True))
        total = total + np.stack([
            np.asarray([Image.fromarray(c).resize((16, 16), Image.Resampling.BILINEAR)
                        for c in image]).sum(0)
            for image in scaled.astype(np.float32)
        ])
    total -= total.min((1, 2), keepdims=True)
    expected = total / (1e-7 + total.max((1, 2), keepdims=True))
    got = cam(net, x, "fullgrad", target=1)
    np.testing.assert_allclose(got.maps, expected, rtol=0, atol=1e-5)
    assert got.layers == []
    for options in ({"layers": "0"}, {"resize": False}):
        with pytest.raises(ValueError, match="fullgrad adds up all layers, at the image's size"):
            cam(net, x, "fullgrad", **options)


@pytest.mark.parametrize(
    "block", ["SE_1", "SEC_1", "CA_1", "SA_1", "AA_2", "SE_SA_1", "SEC_SA_1", "CBAM_1", "NEW_1",
              "NAB_1", "CBAM_1+SE_34"])
def test_every_block(block):
    model = tiny.network("resnet18", block, 8)
    names = list(model.attention_blocks())[:1]
    x = attnnet.Tensor(tiny.images(2, 8))
    for method in ("layercam", "fullgrad"):
        result = cam(model, x, method, None if method == "fullgrad" else [*names, "layer3"])
        assert np.isfinite(result.maps).all() and result.maps.max() > 0.99


def test_whole_attention_maps_are_few_at_a_time():
    """32 MiB an image and block here: at once the five held 800 MiB."""
    model = tiny.network("resnet18", "AA_2", 64)
    x = attnnet.Tensor(tiny.images(5, 64))
    inside = "layer2.0.attention.kqv_conv"
    assert images_at_once(model, biased(model)) == 1
    assert images_at_once(model, {inside: model.get_submodule(inside)}) == 2
    for name in ("layer2", "layer2.0.attention"):  # whose output is seen from outside
        assert images_at_once(model, {name: model.get_submodule(name)}) > 2**40
    seen = []
    with model.conv1.register_forward_hook(lambda m, i, y: seen.append(len(y))):
        attnnet.set_memory_limit(in_use() + 2**28)
        try:
            many = cam(model, x, "fullgrad", target=list(range(5)))
            cam(model, x, "eigencam", inside)
        finally:
            attnnet.set_memory_limit(0)
    assert seen == [1] * 5 + [2, 2, 1] and many.maps.shape == (5, 64, 64)
    last = cam(model, x[4:], "fullgrad", target=4)
    np.testing.assert_allclose(many.maps[4:], last.maps, **CLOSE)
    np.testing.assert_array_equal(many.target, range(5))


@pytest.mark.parametrize("form", ["paper", "original"])
def test_whole_attention_maps_are_one_at_a_time_without_gradients(form):
    """32 MiB an image here; with more images than are joined at once, on fewer pixels."""
    for count, size in ((5, 32), (70, 2)):
        block = AA(32, size, size, form=form)
        x = attnnet.Tensor(np.random.default_rng(1).standard_normal((count, 32, size, size)))
        with attnnet.no_grad():
            expected = block(x).numpy()
            attnnet.set_memory_limit(in_use() + 2**27)
            try:
                got = block.reference(x).numpy()
            finally:
                attnnet.set_memory_limit(0)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_own_methods(model, x):
    try:
        @register_method("test-free", "Mean of A", gradients=False)
        def formula(a, g):
            assert g is None
            return a

        result = cam(model, x, "test-free", "layer3")
        assert result.method.title == "Mean of A" and "test-free" in list_methods()
    finally:
        METHODS.pop("test-free", None)
