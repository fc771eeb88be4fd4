"""A NaN or an infinity put into any place of a network is reported with the name of the place."""

import numpy as np
import pytest

import attnnet
from attnnet.training.nan_check import BufferSnapshot, find_source, first_bad_gradient

from .tiny import poison

IMAGES = np.random.default_rng(3).standard_normal((2, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    attnnet.manual_seed(1)
    return attnnet.resnet18("SE_1+CBAM_2+NEW_3+AA_4", image_size=(16, 16)).train()


def inject(value):
    def hook(module, inputs, output):
        array = output.numpy().copy()
        array.flat[array.size // 2] = value
        return output + attnnet.Tensor(array - output.numpy())

    return hook


def leaves(model):
    return [name for name, module in model.named_modules() if not list(module.children())]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs(model, value):
    """Every layer without layers inside, those of attention blocks among them."""
    snapshot = BufferSnapshot(model)
    modules, called = dict(model.named_modules()), []
    step = 1 if value != value else 7  # every place once, and some with each infinity
    for name in leaves(model)[::step]:
        seen = []
        counting = modules[name].register_forward_hook(lambda *_, seen=seen: seen.append(1) or None)
        handle = modules[name].register_forward_hook(inject(value))
        where = find_source(model, IMAGES, snapshot.restore)
        handle.remove()
        counting.remove()
        if seen:  # Identity and the like may never be called
            called.append(name)
            expected = f"the output of {name} ({type(modules[name]).__name__})"
            assert where == expected, (value, where, expected)
    assert len(called) > 50 // step and any("image_module" in name for name in called)


def test_parameters_and_images(model):
    snapshot = BufferSnapshot(model)
    for name, parameter in model.named_parameters():
        before = parameter.numpy().copy()
        poison(parameter, np.inf)
        assert f"the parameter {name}," in find_source(model, IMAGES, snapshot.restore)
        parameter.copy_(before)
    broken = IMAGES.copy()
    broken[1, 2, 3, 4] = np.nan
    assert find_source(model, broken, snapshot.restore) == "the batch of images itself"
    assert find_source(model, IMAGES, snapshot.restore).startswith("the loss itself")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradients(model, value):
    named = list(model.named_parameters())
    for _, parameter in named:
        parameter.grad = attnnet.Tensor(np.ones(parameter.shape, np.float32))
    assert first_bad_gradient(model) is None
    # Backward goes from the last layer to the first: the last that is broken is the first to be.
    for name, parameter in named[::9]:
        poison(parameter.grad, value)
        assert first_bad_gradient(model) == name
    model.zero_grad()
