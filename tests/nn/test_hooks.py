"""Hooks on forward outputs and on their gradients."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import attnnet
from attnnet import nn
from attnnet.nn import hooks


def test_forward_hooks_see_and_replace():
    layer = nn.ReLU()
    seen = []
    with layer.register_forward_hook(lambda m, x, y: seen.append((m, x[0], y))):
        x = attnnet.Tensor([-1.0, 2.0])
        y = layer(x)
        assert seen[0][0] is layer and seen[0][1] is x and seen[0][2] is y
    layer(x)
    assert len(seen) == 1
    handle = layer.register_forward_hook(lambda m, x, y: y * 10)
    again = layer.register_forward_hook(lambda m, x, y: y + 1)
    np.testing.assert_array_equal(layer(x).numpy(), [1.0, 21.0])
    handle.remove()
    handle.remove()
    np.testing.assert_array_equal(layer(x).numpy(), [1.0, 3.0])
    again.remove()
    assert not layer._hooked and not hooks.any_alive()


def test_output_grad_hooks_see_and_replace():
    first, second = nn.Linear(2, 3), nn.Linear(3, 1)
    grads = []
    handle = first.register_output_grad_hook(lambda m, grad: grads.append((m, grad.numpy().copy())))
    x = attnnet.Tensor(np.ones((4, 2)), requires_grad=True)
    second(first(x)).sum().backward()
    assert grads[0][0] is first
    np.testing.assert_allclose(grads[0][1], np.tile(second.weight.numpy(), (4, 1)))
    handle.remove()
    first.zero_grad()
    handle = first.register_output_grad_hook(lambda m, grad: grad * 0)
    second(first(x)).sum().backward()
    assert np.abs(first.weight.grad.numpy()).max() == 0
    handle.remove()


def test_grad_hooks_pass_over_outputs_without_gradients():
    layer = nn.ReLU()
    with layer.register_output_grad_hook(lambda m, grad: pytest.fail("not called")):
        layer(attnnet.Tensor([1.0]))
        with attnnet.no_grad():
            layer(attnnet.Tensor([1.0], requires_grad=True))


def test_a_hook_must_be_callable():
    with pytest.raises(TypeError, match="a hook must be callable, got int"):
        nn.ReLU().register_forward_hook(3)
    assert not hooks.any_alive()


def test_hooks_are_forgotten_with_their_module():
    layer = nn.ReLU()
    gone = weakref.ref(layer)
    handle = layer.register_forward_hook(lambda m, i, o, layer=layer: None)  # refers to its module
    layer.register_output_grad_hook(lambda m, g: None)
    assert hooks.any_alive()
    del layer
    gc.collect()
    assert gone() is None and not hooks.any_alive()
    handle.remove()
    assert not hooks.any_alive()


def test_an_error_in_a_hook_reaches_the_caller():
    layer = nn.ReLU()

    def fail(*_):
        raise ZeroDivisionError("from the hook")

    with layer.register_forward_hook(fail), pytest.raises(ZeroDivisionError, match="from the hook"):
        layer(attnnet.Tensor([1.0]))
    with (
        layer.register_output_grad_hook(lambda m, g: fail()),
        pytest.raises(ZeroDivisionError, match="from the hook"),
    ):
        layer(attnnet.Tensor([1.0], requires_grad=True)).sum().backward()
