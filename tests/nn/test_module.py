"""Module: registration, walking, state dicts, modes, copies."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import attnnet
from attnnet import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.gain = nn.Parameter([2.0])
        self.register_buffer("seen", np.zeros((), np.int64))
        self.second = nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU())

    def forward(self, x):
        return self.second(self.first(x)) * self.gain


NAMES = ["gain", "first.weight", "first.bias", "second.0.weight"]


def test_registration_and_order():
    module = Small()
    assert [name for name, _ in module.named_parameters()] == NAMES
    assert list(module.parameters(recurse=False)) == [module.gain]
    assert [name for name, _ in module.named_buffers()] == ["seen"]
    assert [n for n, _ in module.named_modules()] == ["", "first", "second", "second.0", "second.1"]
    assert [n for n, _ in module.named_children()] == ["first", "second"]
    assert list(module.state_dict()) == [NAMES[0], "seen", *NAMES[1:]]
    assert module.second[0] is module.get_submodule("second.0")
    assert module.get_submodule("") is module


def test_shared_members_are_walked_once_and_saved_twice():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    shared = nn.Sequential(module, module)
    assert len(list(shared.parameters())) == 3
    assert len(list(shared.modules())) == 4
    assert len(shared.state_dict()) == 8


def test_replacing_and_deleting():
    module = Small()
    module.first = None
    assert module.first is None and "first.weight" not in module.state_dict()
    module.first = nn.Linear(3, 4, bias=False)
    assert "first.weight" in module.state_dict() and "first.bias" not in module.state_dict()
    module.gain = None
    assert "gain" not in module.state_dict()
    del module.second
    assert not hasattr(module, "second")
    module.seen = np.full((), 5, np.int64)
    assert module.state_dict()["seen"] == 5
    module.note = "plain attributes stay plain"
    assert module.note.startswith("plain")


def test_registration_errors():
    module = Small()
    with pytest.raises(TypeError, match="cannot assign float as parameter 'gain'"):
        module.gain = 1.0
    with pytest.raises(TypeError, match="cannot assign int as child module 'first'"):
        module.first = 3
    with pytest.raises(TypeError, match="cannot assign str object to buffer 'seen'"):
        module.seen = "no"
    with pytest.raises(KeyError, match=r"can't be empty or contain '.'"):
        module.add_module("a.b", nn.ReLU())
    with pytest.raises(KeyError, match="already exists"):
        module.register_parameter("forward", nn.Parameter([1.0]))
    with pytest.raises(TypeError, match="list is not a Module"):
        module.add_module("third", [])
    with pytest.raises(TypeError, match="Tensor object to parameter 'third'"):
        module.register_parameter("third", attnnet.Tensor([1.0]))

    class Late(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Late()
    with pytest.raises(TypeError, match=r"has no forward\(\)"):
        nn.Module()(1)


def test_attribute_errors_name_the_nearest():
    module = Small()
    with pytest.raises(AttributeError, match=r"no attribute 'secnd'. Did you mean 'second'"):
        _ = module.secnd
    with pytest.raises(ValueError, match=r"no module 'second.7'"):
        module.get_submodule("second.7")
    with pytest.raises(ValueError, match=r"no module 'frist'. Did you mean 'first'"):
        module.get_submodule("frist")
    assert "gain" in dir(module) and "first" in dir(module)


def test_state_dict_is_a_copy_and_loads_back():
    attnnet.manual_seed(3)
    module, other = Small(), Small()
    state = module.state_dict()
    assert isinstance(state, OrderedDict) and state["seen"].dtype == np.int64
    state["gain"][:] = 9.0
    assert module.gain.item() == 2.0
    state["seen"] = np.int64(7)
    before = other.first.weight.version
    assert other.load_state_dict(state) == ([], [])
    assert other.first.weight.version > before
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[key])


def test_load_state_dict_names_everything_that_does_not_fit():
    module = Small()
    before = module.state_dict()
    wrong = module.state_dict()
    del wrong["gain"], wrong["seen"]
    wrong["extra.weight"] = np.zeros(3)
    wrong["first.weight"] = np.zeros((4, 5))
    wrong["first.bias"] = np.zeros(3)
    with pytest.raises(RuntimeError) as caught:
        module.load_state_dict(wrong)
    text = str(caught.value)
    assert 'Missing key(s) in state_dict: "gain", "seen"' in text
    assert 'Unexpected key(s) in state_dict: "extra.weight"' in text
    assert "size mismatch for first.weight" in text and "(4, 5)" in text and "(4, 3)" in text
    assert "size mismatch for first.bias" in text
    assert isinstance(caught.value, attnnet.errors.CheckpointError)
    for key, value in module.state_dict().items():  # nothing was written
        np.testing.assert_array_equal(value, before[key])
    with pytest.raises(RuntimeError, match="size mismatch"):  # shapes matter without strict too
        module.load_state_dict(wrong, strict=False)


def test_load_state_dict_not_strict_and_other_sources():
    module = Small()
    missing, unexpected = module.load_state_dict({"gain": [4.0], "more": 1}, strict=False)
    assert missing == ["seen", *NAMES[1:]] and unexpected == ["more"]
    assert module.gain.item() == 4.0
    module.load_state_dict({"gain": attnnet.Tensor([5.0], requires_grad=True)}, strict=False)
    assert module.gain.item() == 5.0
    with pytest.raises(RuntimeError, match="wrong type for gain"):
        module.load_state_dict({"gain": np.array(["a"])}, strict=False)
    with pytest.raises(TypeError, match="expected state_dict to be a mapping, got list"):
        module.load_state_dict([1])
    prefixed = {f"module.{key}": value for key, value in module.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"Every key begins with 'module.'"):
        module.load_state_dict(prefixed)


def test_modes_gradients_apply():
    module = Small()
    assert module.training
    assert module.eval() is module
    assert not any(part.training for part in module.modules())
    module.train()
    assert all(part.training for part in module.modules())
    with pytest.raises(ValueError, match="boolean"):
        module.train("yes")
    module(attnnet.Tensor(np.ones((2, 3)))).sum().backward()
    assert module.first.weight.grad is not None
    module.zero_grad()
    assert all(parameter.grad is None for parameter in module.parameters())
    module.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    visited = []
    module.apply(lambda part: visited.append(type(part).__name__))
    assert visited == ["Linear", "Linear", "ReLU", "Sequential", "Small"]


def test_unsaved_buffers():
    module = nn.Module()
    module.register_buffer("kept", attnnet.Tensor([1.0]))
    module.register_buffer("cache", attnnet.Tensor([2.0]), persistent=False)
    assert list(module.state_dict()) == ["kept"]
    assert [name for name, _ in module.named_buffers()] == ["kept", "cache"]
    module.cache = attnnet.Tensor([3.0])
    assert list(module.state_dict()) == ["kept"] and module.cache.item() == 3.0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_apart(duplicate):
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2))
    module.eval()
    handle = module.register_forward_hook(lambda *_: pytest.fail("hooks are not copied"))
    twin = duplicate(module)
    handle.remove()
    assert not twin.training and not twin._hooked
    for (key, value), other in zip(
        module.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        np.testing.assert_array_equal(value, other, err_msg=key)
        assert value.dtype == other.dtype and value.shape == other.shape
    assert isinstance(twin[0].weight, nn.Parameter) and twin[0].weight.requires_grad
    twin[0].weight.copy_(np.zeros((2, 3)))
    twin[1].num_batches_tracked[...] += 1
    assert np.abs(module[0].weight.numpy()).max() > 0 and module[1].num_batches_tracked == 0


def test_repr():
    text = repr(Small())
    assert "(first): Linear(in_features=3, out_features=4, bias=True)" in text
    assert "  (second): Sequential(\n    (0): Linear" in text
    html = Small()._repr_html_()
    assert "<code>second</code>" in html and "25 parameters" in html
