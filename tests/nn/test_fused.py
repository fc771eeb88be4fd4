"""The fused path: the same numbers with and without hooks, folding, and what invalidates it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from reference.compare import assert_close
from reference.memory import in_use

import attnnet
from attnnet import nn
from attnnet.nn.fused import Deferred, conv_bn

SEED = 21


def make(bias=True, stride=1, channels=5):
    """A convolution, a batch norm with non-trivial statistics, an input and a residual."""
    attnnet.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    conv = nn.Conv2d(3, channels, 3, stride=stride, padding=1, bias=bias)
    bn = nn.BatchNorm2d(channels)
    bn.weight.copy_(rng.uniform(0.5, 2, channels))
    bn.bias.copy_(rng.standard_normal(channels))
    bn.running_mean.copy_(rng.standard_normal(channels))
    bn.running_var.copy_(rng.uniform(0.5, 2, channels))
    x = attnnet.Tensor(rng.standard_normal((2, 3, 8, 8)), requires_grad=True)
    size = -(-8 // stride)
    residual = attnnet.Tensor(rng.standard_normal((2, channels, size, size)), requires_grad=True)
    return conv, bn, x, residual


def plain(conv, bn, x, residual, relu):
    """The definition, module by module."""
    y = conv(x) if bn is None else bn(conv(x))
    y = y if residual is None else y + residual
    return y.relu() if relu else y


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_bn", [True, False])
@pytest.mark.parametrize("channels", [5, 16])
def test_all_paths_agree(training, with_residual, relu, bias, with_bn, channels):
    conv, bn, x, residual = make(bias, channels=channels)
    bn.train(training)
    twin_conv, twin_bn = copy.deepcopy(conv), copy.deepcopy(bn)
    bn, twin_bn = (bn, twin_bn) if with_bn else (None, None)
    residual = residual if with_residual else None
    expected = plain(twin_conv, twin_bn, x, residual, relu)
    y = conv_bn(x, conv, bn, residual, nn.ReLU() if relu else None)
    assert_close(y, expected.numpy(), 27, f"with gradients (seed {SEED})")
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    y.backward(attnnet.Tensor(dy))
    grad = x.grad.numpy()
    x.grad = None
    expected.backward(attnnet.Tensor(dy))
    assert_close(grad, x.grad.numpy(), 128, f"dx (seed {SEED})")
    for mine, theirs in zip(conv.parameters(), twin_conv.parameters(), strict=True):
        # A bias before a batch norm in training has a zero gradient: rounding is all there is.
        assert_close(mine.grad, theirs.grad.numpy(), 128, "conv parameters", scale=10.0)
    if training and with_bn:
        assert_close(bn.running_var, twin_bn.running_var.numpy(), 128, "running variance")
        assert bn.num_batches_tracked == 1
        return
    with attnnet.no_grad():
        y = conv_bn(x, conv, bn, residual, relu)
    assert_close(y, expected.numpy(), 27, f"folded (seed {SEED})")
    assert not y.requires_grad


def test_folded_weights_follow_every_write():
    conv, bn, x, _ = make()
    bn.eval()

    def folded():
        with attnnet.no_grad():
            return conv_bn(x, conv, bn).numpy().copy()

    first = folded()
    kept = conv.__dict__["_folded"]
    np.testing.assert_array_equal(folded(), first)
    assert conv.__dict__["_folded"] is kept  # nothing changed, nothing computed
    for tensor in (conv.weight, conv.bias, bn.weight, bn.bias, bn.running_mean, bn.running_var):
        tensor.copy_(tensor.numpy() * 1.5 + 0.1)
        assert not np.array_equal(folded(), first)
        assert_close(folded(), plain(conv, bn, x, None, False).numpy(), 27)
        first = folded()
    conv.weight = nn.Parameter(conv.weight.numpy() * 2)
    assert not np.array_equal(folded(), first)
    bn.eps = 0.5
    assert_close(folded(), plain(conv, bn, x, None, False).numpy(), 27)


@pytest.mark.parametrize("with_bn", [True, False])
def test_packed_weights_follow_writes_and_batches(with_bn):
    """One image and many read other forms of the weights; a write reaches all of them."""
    conv, bn = nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64) if with_bn else None
    conv.eval()
    rng = np.random.default_rng(SEED)
    batches = [attnnet.Tensor(rng.standard_normal((n, 32, 8, 8))) for n in (1, 40)]
    for module in (conv, bn):
        if module is not None:
            module.eval()
    for factor in (1.0, 1.5, -0.5):
        conv.weight.copy_(conv.weight.numpy() * factor)
        for x in batches * 2:
            with attnnet.no_grad():
                y = conv_bn(x, conv, bn)
            assert_close(y, plain(conv, bn, x, None, False).numpy(), 9 * 32, f"{factor}")


@pytest.mark.parametrize("with_bn", [True, False])
def test_the_core_gives_the_packed_weights_back(with_bn):
    conv, bn = nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64) if with_bn else None
    x = attnnet.Tensor(np.ones((1, 64, 32, 32)))
    before = in_use()
    for module in filter(None, (conv, bn)):
        module.eval()
    with attnnet.no_grad():
        conv_bn(x, conv, bn)
        assert in_use() - before >= 4 * 4 * 9 * 64 * 64
        for module in filter(None, (conv, bn)):
            module.train()
        conv_bn(x, conv, bn)
    assert conv.__dict__["_folded"] is None
    assert in_use() == before


def test_training_gives_the_folded_weights_back():
    conv, bn, x, _ = make()
    bn.eval()
    with attnnet.no_grad():
        conv_bn(x, conv, bn)
    assert conv.__dict__["_folded"] is not None
    bn.train()
    conv_bn(x, conv, bn)
    assert conv.__dict__["_folded"] is None


@pytest.mark.parametrize("training", [True, False])
def test_hooks_see_what_fusion_hides(training):
    conv, bn, x, residual = make(bias=False, stride=2)
    relu = nn.ReLU()
    bn.train(training)
    reference = copy.deepcopy(bn)
    values = {"conv": conv(x)}
    values["bn"] = reference(values["conv"])
    values["relu"] = (values["bn"] + residual).relu()
    for name, module in (("conv", conv), ("bn", bn), ("relu", relu)):
        seen = []
        stats = bn.state_dict()
        with attnnet.no_grad(), module.register_forward_hook(lambda m, i, y: seen.append(y)):  # noqa: B023
            y = conv_bn(x, conv, bn, residual, relu)
        assert_close(seen[0], values[name].numpy(), 27, f"{name} (seed {SEED})")
        assert_close(y, values["relu"].numpy(), 27, f"output, {name} hooked (seed {SEED})")
        bn.load_state_dict(stats)
        grads = []
        with module.register_output_grad_hook(lambda m, g: grads.append(g.numpy().copy())):  # noqa: B023
            conv_bn(x, conv, bn, residual, relu).sum().backward()
        assert grads[0].shape == values[name].shape and np.isfinite(grads[0]).all()
        if name == "relu":
            np.testing.assert_array_equal(grads[0], 1.0)
        bn.load_state_dict(stats)


def test_other_modules_take_the_plain_path():
    conv, bn, x, residual = make()
    bn.eval()

    class Doubled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    doubled = Doubled(3, 5, 3, padding=1)
    doubled.load_state_dict(conv.state_dict())
    with attnnet.no_grad():
        expected = bn(conv(x) * 2) + residual
        assert_close(conv_bn(x, doubled, bn, residual), expected.numpy(), 27)
        assert_close(
            conv_bn(x, conv, nn.Identity(), None, nn.Sigmoid()), conv(x).sigmoid().numpy(), 27
        )


def test_sequential_fuses_groups_and_keeps_hooks():
    attnnet.manual_seed(SEED)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 8, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4),
    )  # fmt: skip
    x = attnnet.Tensor(np.random.default_rng(SEED).standard_normal((2, 3, 6, 6)))
    for part in net:
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(np.full(part.num_features, 0.3))
    net.eval()
    y = x
    for part in net:
        y = part(y)
    assert_close(net(x), y.numpy(), 27, "with gradients")
    with attnnet.no_grad():
        assert_close(net(x), y.numpy(), 27, "folded")
        assert len(net.__dict__["_plan"]) == 4
        shapes = []
        handles = [p.register_forward_hook(lambda m, i, o: shapes.append(o.shape)) for p in net]
        assert_close(net(x), y.numpy(), 27, "hooked")
        assert len(shapes) == 8
        for handle in handles:
            handle.remove()
        net[4] = nn.Sigmoid()
        assert not np.array_equal(net(x).numpy(), y.numpy())
        del net[4]
        assert len(net) == 7 and isinstance(net[4], nn.MaxPool2d)
        net(x)
        net.append(nn.Flatten())
        assert net(x).ndim == 2


def test_containers():
    layers = [nn.Linear(2, 2) for _ in range(3)]
    net = nn.Sequential({"a": layers[0], "b": nn.ReLU()})
    assert list(net.state_dict()) == ["a.weight", "a.bias"] and net[-1] is net.b
    assert [type(m).__name__ for m in net[1:]] == ["ReLU"]
    listed = nn.ModuleList(layers[:2])
    listed.insert(0, layers[2])
    assert list(listed) == [layers[2], *layers[:2]] and listed[1:][0] is layers[0]
    assert len(list(listed.parameters())) == 6
    with pytest.raises(IndexError, match="out of range for ModuleList of 3"):
        listed[3]
    with pytest.raises(TypeError, match="index must be an int"):
        net["a"]
    with pytest.raises(TypeError, match="no forward"):
        listed(1)
    empty = nn.Sequential()
    assert empty(5) == 5


def test_folded_weights_notice_each_kind_of_step():
    conv, bn, x, _ = make()
    bn.eval()

    def folded():
        with attnnet.no_grad():
            return conv_bn(x, conv, bn).numpy().copy()

    first = folded()
    attnnet.functional.batch_norm(
        attnnet.Tensor(np.random.default_rng(1).standard_normal((2, 5, 4, 4))),
        bn.running_mean, bn.running_var, bn.weight, bn.bias, True,
    )  # fmt: skip
    second = folded()
    assert not np.array_equal(first, second)
    conv_bn(x, conv, bn).sum().backward()
    for make_optimizer in (attnnet.optim.SGD, attnnet.optim.AdamW):
        make_optimizer([conv.weight], 0.1).step()
        third = folded()
        assert not np.array_equal(second, third)
        assert_close(third, plain(conv, bn, x, None, False).numpy(), 27)
        second = third


# channels, size, batch, kernel and stride of the second convolution: each way in which an engine
# walks over its input. 44 pixels: an image has more tiles than a task; 4: few tiles, many weights.
CHAINS = {
    "several images a task": (32, 8, 9, 3, 1),
    "several tasks an image": (16, 44, 2, 3, 1),
    "odd size": (32, 13, 5, 3, 1),
    "by channels": (256, 4, 3, 3, 1),
    "stride 2": (32, 15, 5, 3, 2),
    "stride 2 by channels": (256, 8, 2, 3, 2),
    "an engine that wants its input whole": (32, 8, 4, 1, 1),
    "a plain engine behind a blocked one": (16, 9, 3, 5, 1),
    "not blocked, so computed": (10, 8, 4, 3, 1),
}


def chain(channels, size, batch, kernel, stride, bias):
    attnnet.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    first = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
    groups = 2 if kernel == 5 else 1
    second = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=groups, bias=bias)
    norms = [nn.BatchNorm2d(channels) for _ in range(2)]
    for bn in norms:
        bn.weight.copy_(rng.uniform(-1, 2, channels))
        bn.bias.copy_(rng.standard_normal(channels))
        bn.running_mean.copy_(rng.standard_normal(channels))
    x = attnnet.Tensor(rng.standard_normal((batch, channels, size, size)), requires_grad=True)
    return first, second, norms, x


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CHAINS)
def test_what_the_next_convolution_reads_alone_need_not_be_computed(case, training, bias):
    def run(deferring, residual):
        first, second, norms, x = chain(*CHAINS[case], bias)
        for bn in norms:
            bn.train(training)
        y = conv_bn(x, first, norms[0], None, True, into=second if deferring else None)
        assert isinstance(y, Deferred) == (deferring and "computed" not in case)
        y = conv_bn(y, second, norms[1], x if residual else None, True)
        gradient = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(attnnet.Tensor(gradient))
        parameters = [*first.parameters(), *second.parameters()]
        for bn in norms:
            parameters += bn.parameters()
        return [y.numpy(), x.grad.numpy(), *(p.grad.numpy() for p in parameters)]

    residual = "stride" not in case
    for mine, computed in zip(run(True, residual), run(False, residual), strict=True):
        np.testing.assert_array_equal(mine, computed)


def test_the_gradient_through_a_chain_is_that_of_its_parts():
    for case in CHAINS.values():
        first, second, norms, x = chain(*case, True)
        twins = copy.deepcopy((first, second, norms))
        y = conv_bn(x, first, norms[0], None, True, into=second)
        y = conv_bn(y, second, norms[1], None, True)
        gradient = attnnet.Tensor(np.random.default_rng(1).standard_normal(y.shape))
        y.backward(gradient)
        dx, x.grad = x.grad.numpy(), None
        middle = plain(twins[0], twins[2][0], x, None, True)
        expected = plain(twins[1], twins[2][1], middle, None, True)
        expected.backward(gradient)
        terms = 9 * case[0]
        assert_close(y, expected.numpy(), terms, f"{case}")
        assert_close(dx, x.grad.numpy(), 4 * terms, f"dx, {case}", scale=float(abs(dx).max()))


@pytest.mark.parametrize("case", CHAINS)
def test_a_gradient_is_added_to_the_one_that_came_first(case):
    """What goes around gives its gradient first, in the layout that the convolution reads: that
    adds to it in place."""
    first, second, norms, x = chain(*CHAINS[case], False)
    entry, entry_bn = nn.Conv2d(x.shape[1], x.shape[1], 3, padding=1), nn.BatchNorm2d(x.shape[1])
    strided = second.stride != (1, 1)

    def gradient(convolve):
        for bn, fresh in zip((entry_bn, *norms), before, strict=True):
            bn.load_state_dict(fresh)
        h = convolve(entry, entry_bn, x, None, True)
        if strided:
            y = convolve(second, norms[1], h, None, True)
            y = attnnet.functional.adaptive_avg_pool2d(h, y.shape[2:]) + y
        else:
            y = convolve(first, norms[0], h, None, True)
            y = convolve(second, norms[1], y, h, True)
        (y * weights).sum().backward()
        dx, x.grad = x.grad.numpy(), None
        return dx

    before = [bn.state_dict() for bn in (entry_bn, *norms)]
    shape = conv_bn(conv_bn(x, first, None), second, None).shape
    weights = attnnet.Tensor(np.random.default_rng(1).standard_normal(shape))
    expected = gradient(plain)
    got = gradient(lambda conv, bn, x, *rest: conv_bn(x, conv, bn, *rest))
    assert_close(attnnet.Tensor(got), expected, 40 * x.shape[1], case,
                 scale=float(abs(expected).max()))


def test_a_deferred_activation_takes_no_memory():
    first, second, norms, x = chain(32, 32, 16, 3, 1, False)
    activation = 4 * x.size()[0] * 32 * 32 * 32

    def held(into):
        before = in_use()
        y = conv_bn(x, first, norms[0], None, True, into=into)
        y = conv_bn(y, second, norms[1], None, True)
        return in_use() - before, y

    computed, _ = held(None)
    deferred, _ = held(second)
    assert 0.95 * activation < computed - deferred < 1.05 * activation


def test_a_hook_on_the_reader_sees_what_it_reads():
    first, second, norms, x = chain(16, 8, 2, 3, 1, False)
    seen = []
    second.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    assert not isinstance(conv_bn(x, first, norms[0], None, True, into=second), Deferred)
    network = nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1])
    network(x)
    expected = plain(*copy.deepcopy((first, norms[0])), x, None, True)
    assert_close(seen[-1], expected.numpy(), 144)


def test_constants_that_came_with_another_tensor_are_refused():
    first, second, norms, x = chain(16, 8, 2, 3, 1, False)
    y = conv_bn(x, first, norms[0], None, True, into=second)
    wrong = attnnet.Tensor(np.ones((1, 2, 3)))
    with pytest.raises(ValueError, match=r"constants of shape \(1, 2, 3\)"):
        Deferred(y.convolved, wrong).computed()
    with pytest.raises(ValueError, match=r"constants of shape \(1, 2, 3\)"):
        conv_bn(Deferred(y.convolved, wrong), second, norms[1])
