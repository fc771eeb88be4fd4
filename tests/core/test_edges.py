"""Python's edges: cycles through hooks, weak references, odd arrays at every entrance."""

import gc
import re
import weakref

import numpy as np
import pytest
from reference.memory import held

import attnnet
from attnnet import _core, nn
from attnnet import functional as F
from attnnet.data import Dataset, Loader, from_arrays


def hold_by_forward_hook(layer):
    layer.register_forward_hook(lambda module, inputs, output: layer and None)


def hold_by_gradient_hook(layer):
    layer.register_output_grad_hook(lambda module, grad: layer and None)


def hold_by_parameter_hook(layer):
    layer.weight.register_hook(lambda grad: layer and None)


def hold_by_attribute(layer):
    layer.__dict__["me"] = layer


def hold_by_output(layer):
    """What it gave hangs on its parameters' tape, and it on what it gave."""
    layer.kept = layer(attnnet.Tensor(np.ones((1, 64), np.float32)))


@pytest.mark.parametrize("hold", [
    hold_by_forward_hook, hold_by_gradient_hook, hold_by_parameter_hook,
    hold_by_attribute, hold_by_output])  # fmt: skip
def test_a_module_that_holds_itself_is_garbage(hold):
    before = held()
    layer = nn.Linear(64, 64)
    hold(layer)
    layer(attnnet.Tensor(np.ones((2, 64), np.float32))).sum().backward()
    gone = [weakref.ref(layer), weakref.ref(layer.weight)]
    del layer
    assert held() == before
    assert [ref() for ref in gone] == [None, None]


def own_leaf():
    return attnnet.Tensor(np.ones(64, np.float32), requires_grad=True)


def result():
    return own_leaf() * 2.0


@pytest.mark.parametrize("make", [own_leaf, result])
@pytest.mark.parametrize("walked", [False, True])
def test_a_tensor_whose_hook_holds_it_is_garbage(make, walked):
    before = held()
    x = make()
    x.register_hook(lambda gradient, held=x: None)
    if walked:
        x.sum().backward()
    gone = weakref.ref(x)
    del x
    assert held() == before
    assert gone() is None


def test_a_hook_lives_as_long_as_the_tape_may_call_it():
    x, seen = own_leaf(), []
    x.register_hook(lambda gradient, held=x: seen.append(held.shape))
    y = (x * 2.0).sum()
    gone = weakref.ref(x)
    del x
    gc.collect()
    y.backward()
    assert seen == [(64,)]
    del y
    gc.collect()
    assert gone() is None


def test_weak_references():
    layer = nn.Linear(3, 2)
    things = {"module": layer, "parameter": layer.weight, "tensor": layer.weight.detach(),
              "data": Dataset(np.zeros((2, 1, 4, 4), np.uint8), np.arange(2), ["a", "b"], "x"),
              "optimiser": attnnet.optim.SGD(layer.parameters(), lr=0.1)}  # fmt: skip
    names = weakref.WeakKeyDictionary()
    for name, thing in things.items():
        names[thing] = name  # by identity: none of them compares itself away
        assert weakref.ref(thing)() is thing
    assert sorted(names.values()) == sorted(things)
    things.clear()
    del thing, layer
    gc.collect()
    assert len(names) == 0


# Arrays of every kind at every entrance


def misaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)[1:]
    out = memory.view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def read_only(x):
    out = x.copy()
    out.flags.writeable = False
    return out


def strided(x):
    return np.repeat(x, 2, axis=0)[::2]


FORMS = {
    "read-only": read_only,
    "misaligned": misaligned,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "strided": strided,
    "fortran": np.asfortranarray,
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only memory": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}
RNG = np.random.default_rng(40)
LOGITS = RNG.standard_normal((6, 5)).astype(np.float32)
LABELS = np.array([0, 4, 2, 2, 1, 3])
IMAGES = RNG.integers(0, 256, (6, 3, 8, 8), np.uint8)
MODEL = attnnet.resnet18(num_classes=5, image_size=(8, 8)).eval()


def cross_entropy(labels):
    return F.cross_entropy(attnnet.Tensor(LOGITS), labels).item()


def backward(gradient):
    x = attnnet.Tensor(LOGITS, requires_grad=True)
    (x * x).backward(gradient)
    return x.grad.tolist()


def load_state(weights):
    layer = nn.Linear(5, 6)
    layer.load_state_dict({"weight": weights, "bias": weights[:, 0]})
    return layer.weight.tolist(), layer.bias.tolist()


def load_optimizer(buffer):
    weight = nn.Parameter(np.zeros((6, 5), np.float32))
    one = attnnet.optim.SGD([weight], lr=1.0, momentum=0.5)
    state = one.state_dict()
    one.load_state_dict({**state, "state": {0: {"momentum_buffer": buffer}}})
    weight.grad = attnnet.Tensor(np.zeros((6, 5), np.float32))
    one.step()
    return weight.tolist()


def register_buffer(values):
    layer = nn.Module()
    layer.register_buffer("b", values)
    return layer.state_dict()["b"].tolist()


def batches(images, labels):
    data = from_arrays(images, labels, [*"abcde"], layout="NCHW", mean=(0.5,) * 3, std=(0.25,) * 3)
    loader = Loader(data, 4, attnnet.data.Augmentation(2, "reflect", 0.5), shuffle=True, seed=3)
    return [(b.images.tolist(), b.labels.tolist()) for b in loader.epoch(0)]


ENTRANCES = {
    "labels": (LABELS, cross_entropy),
    "labels of 4 bytes": (LABELS.astype(np.int32), cross_entropy),
    "gradient": (LOGITS, backward),
    "state dict": (LOGITS, load_state),
    "optimiser's state": (LOGITS, load_optimizer),
    "buffer": (LOGITS, register_buffer),
    "bytes to predict": (IMAGES, lambda x: MODEL.predict(x).__str__()),
    "floats to predict": (IMAGES / 255, lambda x: MODEL.predict(x).__str__()),
    "images of a data set": (IMAGES, lambda x: batches(x, LABELS)),
    "labels of a data set": (LABELS, lambda x: batches(IMAGES, x)),
    "picture to draw on": (IMAGES.transpose(0, 2, 3, 1).copy(), lambda x: attnnet.explain.image.
                           overlay(x, np.full((6, 8, 8), 0.5)).tolist()),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_form_of_array_gives_the_same(entrance, form):
    plain, use = ENTRANCES[entrance]
    given = FORMS[form](plain)
    kept = given.tobytes()
    assert use(given) == use(plain.copy())
    assert given.tobytes() == kept, "the caller's array was changed"


def pairs():
    x, weight = attnnet.Tensor(np.ones((1, 16, 8, 8))), attnnet.Tensor(np.ones((16, 16, 3, 3)))
    yield lambda pair: _core.conv2d(x, weight, None, (1, 1), pair, 1)
    yield lambda pair: _core.conv2d_fused(x, weight, None, None, False, pair, (1, 1), 1)
    yield lambda pair: _core.max_pool2d(x, pair, (1, 1), (0, 0))
    yield lambda pair: _core.avg_pool2d(x, (2, 2), (1, 1), pair, True)


@pytest.mark.parametrize("call", list(pairs()))
@pytest.mark.parametrize("count", [0, 1, 3, 8, 9])
def test_a_pair_has_two_entries(call, count):
    with pytest.raises(ValueError, match=f"has {count} entries, "):
        call((1,) * count)


def test_a_list_that_empties_itself():
    class Dim:
        def __index__(self):
            tensors.clear()
            return 0

    tensors = [attnnet.Tensor(np.ones((2, 3))) for _ in range(3)]
    assert _core.concatenate(tensors, Dim()).shape == (6, 3)


def test_more_scratch_than_can_be_counted():
    before = attnnet.get_num_threads()
    x, kernel = attnnet.Tensor(np.ones((1, 1, 1, 1))), attnnet.Tensor(np.ones((1, 1, 8192, 8192)))
    try:
        attnnet.set_num_threads(256)
        with pytest.raises(MemoryError):
            F.conv2d(x, kernel, padding=12287)
    finally:
        attnnet.set_num_threads(before)


@pytest.mark.parametrize("options", [{"eps": -1.0}, {"momentum": float("nan")}])
def test_a_gate_checks_its_batch_norm(options):
    weights = [attnnet.Tensor(np.ones(s)) for s in ((1, 2, 7, 7), (1,), (1,), (1,), (1,), (1,))]
    with pytest.raises(ValueError, match="eps >= 0 and a finite momentum"):
        F.sa(attnnet.Tensor(np.ones((2, 16, 4, 4))), *weights, True, **options)


@pytest.mark.parametrize("call", [
    (lambda x: x.var(correction=2**32), "correction=4294967296 leave nothing to divide by"),
    (lambda x: F.cross_entropy(x[:, :0], np.zeros(2, np.int64)), "at least one class"),
    (lambda x: _core.set_peers(print, 1, 2**40, 0), f"0 to {2**31}"),
])  # fmt: skip
def test_messages_say_what_came(call):
    work, words = call
    with pytest.raises(ValueError, match=words):
        work(attnnet.Tensor(np.ones((2, 3))))


@pytest.mark.parametrize("call", [
    (lambda x: F.sum(x, 1.5), TypeError, "sum: dim is 1.5; expected one or more integers"),
    (lambda x: F.permute(x, (0, "1")), TypeError, "permute: dims is"),
    (lambda x: F.pad(x, (1, 0.5)), TypeError, "pad: padding is"),
    (lambda x: F.split(x, (1, 1.5)), TypeError, "split: size_or_sections is"),
    (lambda x: F.flatten(x, 3), ValueError, "start_dim 3 is out of range for 2 dimensions"),
    (lambda x: F.flatten(x, -3), ValueError, "start_dim -3 is out of range"),
])  # fmt: skip
def test_dimensions_are_integers(call):
    work, error, words = call
    x = attnnet.Tensor(np.ones((2, 3)))
    with pytest.raises(error, match=words):
        work(x)
    assert F.reshape(x, 6).shape == (6,) and F.flatten(x, 2).shape == (2, 3, 1)


@pytest.mark.parametrize("call", [
    (lambda x: x.unsqueeze(5), "[-3, 2], but got 5"),
    (lambda x: x.unsqueeze(-4), "[-3, 2], but got -4"),
    (lambda x: x.squeeze(2), "[-2, 1], but got 2"),
    (lambda x: x.squeeze(-3), "[-2, 1], but got -3"),
    (lambda x: x[0, 0].squeeze(1), "[-1, 0], but got 1"),
    (lambda x: x[0, 0].unsqueeze(1), "[-1, 0], but got 1"),
])  # fmt: skip
def test_there_is_no_such_dimension(call):
    work, words = call
    words = f"Dimension out of range (expected to be in range of {words})"
    with pytest.raises(IndexError, match=re.escape(words)):
        work(attnnet.Tensor(np.ones((2, 3))))


def test_dimensions_come_and_go():
    x = attnnet.Tensor(np.ones((2, 1, 3)))
    shapes = [x.unsqueeze(d).shape for d in range(-4, 4)]
    assert shapes[:4] == shapes[4:] == [(1, 2, 1, 3), (2, 1, 1, 3), (2, 1, 1, 3), (2, 1, 3, 1)]
    assert [x.squeeze(d).shape for d in (0, 1, -2, -1)] == [x.shape, (2, 3), (2, 3), x.shape]
    scalar = x.sum()
    assert scalar.squeeze(0).shape == scalar.squeeze(-1).shape == ()
    assert scalar.unsqueeze(-1).shape == (1,)


@pytest.mark.parametrize("pair", [1.9, (1.9, 1.9), (1, 2.0), ("1", "1"), (True, 1), (1,), None])
def test_a_pair_is_of_integers(pair):
    x, weight = attnnet.Tensor(np.ones((1, 1, 8, 8))), attnnet.Tensor(np.ones((1, 1, 3, 3)))
    with pytest.raises(ValueError, match="conv2d: stride must be an integer or two of them"):
        F.conv2d(x, weight, stride=pair)
    assert F.conv2d(x, weight, stride=[np.int64(3), 2]).shape == (1, 1, 2, 3)


def test_a_huge_step_takes_one():
    assert attnnet.Tensor(np.arange(6.0).reshape(2, 3))[:: 2**62].tolist() == [[0.0, 1.0, 2.0]]


def test_nothing_in_nothing_out():
    empty = np.zeros((0, 3, 8, 8), np.uint8)
    assert len(MODEL.predict(empty)) == 0
    assert MODEL(attnnet.Tensor(np.zeros((0, 3, 8, 8)))).shape == (0, 5)
    with pytest.raises(attnnet.errors.DataError, match="no images to load"):
        Loader(from_arrays(empty, LABELS[:0], [*"ab"]))
    layer = nn.Linear(5, 6)
    with pytest.raises(ValueError, match="size mismatch for weight"):
        layer.load_state_dict({"weight": LOGITS[:0], "bias": LOGITS[:, 0]})
