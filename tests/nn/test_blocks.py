"""The attention blocks as modules: composed against twins and golden values, fused against both."""

from __future__ import annotations

import numpy as np
import pytest
from reference import blocks, golden
from reference.compare import assert_close
from reference.states import draw_state

import attnnet
from attnnet import nn
from attnnet.nn import hooks

SEED = 31
CASES = [(name, {}) for name in blocks.BLOCKS]
CASES += [("CA", {"pool_types": ("lp", "lse")}), ("AA", {"form": "original"})]


def make(name, channels=32, height=8, width=7, **options):
    if name in ("AA", "NAB"):
        options |= {"height": height, "width": width}
    return getattr(nn, name)(channels, **options)


def ways(block):
    """The two ways through a block."""
    return {"composed": block.reference, "called": block}


@pytest.mark.parametrize("way", ["composed", "called"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_against_the_twin(name, options, training, way):
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((3, 32, 8, 7)).astype(np.float32)
    state = draw_state(name, 32, 8, 7, rng)
    expected, backward, after = blocks.twin(name, x, state, training, **options)
    block = make(name, **options)
    assert block.load_state_dict(state) == ([], [])
    block.train(training)
    tensor = attnnet.Tensor(x, requires_grad=True)
    y = ways(block)[way](tensor)
    assert_close(y, expected, x[0].size, f"y of {name} (seed {SEED})")
    dy = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(attnnet.Tensor(dy))
    dx, grads = backward(dy.astype(np.float64))
    assert_close(tensor.grad, dx, x.size, f"dx of {name} (seed {SEED})")
    got = {key: p.grad for key, p in block.named_parameters()}
    assert set(got) == set(grads)
    largest = max(np.abs(g).max() for g in grads.values())
    for key, value in grads.items():
        # Where a gradient is zero but for rounding, it is measured against the others; a gate's
        # single numbers are sums of terms of order 1 that cancel.
        scale = largest if golden.is_zero_gradient(key) and training else float(value.size == 1)
        assert_close(got[key], value, x.size, f"{key} of {name} (seed {SEED})", scale=scale)
    saved = block.state_dict()
    for key, value in after.items():
        assert_close(saved[key], value, x.size, f"{key} of {name} (seed {SEED})")
        if key.endswith("num_batches_tracked"):
            assert saved[key].dtype == np.int64
    counts = [v for k, v in saved.items() if k.endswith("num_batches_tracked")]
    assert all(count == 3 + training for count in counts)


@pytest.mark.parametrize("entry", golden.CASES)
def test_against_the_study(entry):
    name, options = golden.CASES[entry]
    values = golden.load(entry)
    n, channels, height, width = values.x.shape
    block = make(name, channels, height, width, **options)
    block.load_state_dict(values.before)
    assert list(block.state_dict()) == list(values.before)
    x = attnnet.Tensor(values.x, requires_grad=True)
    y = block(x)
    length = values.x[0].size
    assert_close(y, values.y, length, "y")
    y.backward(attnnet.Tensor(values.dy))
    assert_close(x.grad, values.dx, n * length, "dx")
    largest = max(np.abs(g).max() for g in values.grad.values())
    for key, parameter in block.named_parameters():
        scale = largest if golden.is_zero_gradient(key) else float(parameter.numel() == 1)
        assert_close(parameter.grad, values.grad[key], n * length, key, scale=scale)
    saved = block.state_dict()
    for key, value in values.after.items():
        assert_close(saved[key], value, n * length, key)
    block.eval()
    assert_close(block(x), values.y_eval, length, "y_eval")


@pytest.mark.parametrize("name", blocks.BLOCKS)
def test_hooks_inside_see_true_values(name):
    attnnet.manual_seed(SEED)
    block = make(name).eval()
    x = attnnet.Tensor(np.random.default_rng(SEED).standard_normal((2, 32, 8, 7)))
    plain = block(x).numpy()
    for path, part in block.named_modules():
        if isinstance(part, nn.ModuleList) or path == "":
            continue
        seen = []
        with part.register_forward_hook(lambda m, i, o: seen.append(o.numpy().copy())):  # noqa: B023
            assert_close(block(x), plain, 2000, f"{name} with {path} hooked")
        assert len(seen) == (2 if ".mlp" in f".{path}" else 1), f"{name}.{path}"
        assert np.isfinite(seen[0]).all()
    assert not hooks.any_alive()


@pytest.mark.parametrize("name", [n for n in blocks.BLOCKS if n != "AA"])
def test_gates_multiply_to_the_output(name):
    attnnet.manual_seed(SEED)
    block = make(name).eval()
    x = attnnet.Tensor(np.random.default_rng(SEED).standard_normal((2, 32, 8, 7)))
    gates = {kind: gate.numpy() for kind, gate in block.gates(x).items()}
    channel, spatial = gates.get("channel"), gates.get("spatial")
    assert channel is None or channel.shape == (2, 32, 1, 1)
    assert spatial is None or spatial.shape == (2, 1, 8, 7)
    factor = 1.0 if spatial is None else spatial
    if channel is not None:
        residual = name in ("SE", "NEW", "SE_SA")
        factor = factor * (1 + channel if residual else channel)
    assert_close(block(x), x.numpy() * factor, 2000, name)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", blocks.BLOCKS)
def test_the_relu_behind_a_block(name, training):
    """Fused, and one after the other where a hook watches: the same output, gradient and state."""
    rng = np.random.default_rng(SEED)
    array, state = rng.standard_normal((2, 32, 8, 7)), draw_state(name, 32, 8, 7, rng)
    dy = rng.standard_normal(array.shape)
    results = []
    for hooked in (False, True):
        block, relu, seen = make(name).train(training), nn.ReLU(), []
        block.load_state_dict(state)
        x = attnnet.Tensor(array, requires_grad=True)
        if hooked:
            handle = block.register_forward_hook(lambda m, i, o: seen.append(o.numpy().copy()))  # noqa: B023
        y = block.then_relu(x, relu)
        y.backward(attnnet.Tensor(dy))
        results.append((y.numpy(), x.grad.numpy(), block.state_dict()))
        if hooked:
            np.testing.assert_array_equal(np.maximum(seen[0], 0), y.numpy())
            handle.remove()
    (y, dx, after), (plain_y, plain_dx, plain_after) = results
    assert_close(y, plain_y, 2000, f"{name} (seed {SEED})")
    assert_close(dx, plain_dx, 2000, f"dx of {name} (seed {SEED})")
    for key, value in plain_after.items():
        assert_close(after[key], value, 2000, key)
    block = make(name).eval()
    x = attnnet.Tensor(array)
    assert_close(block.then_relu(x, nn.Tanh()), np.tanh(block(x).numpy()), 2000)


def test_block_errors():
    with pytest.raises(ValueError, match="SE needs at least 8 channels, got 4"):
        nn.SE(4)
    with pytest.raises(ValueError, match="CA needs at least 16 channels, got 8"):
        nn.CBAM(8)
    with pytest.raises(ValueError, match="pool_types must be one or more of avg, max, lp, lse"):
        nn.CA(32, pool_types=("mean",))
    with pytest.raises(ValueError, match="AA needs height and width"):
        nn.AA(64)
    with pytest.raises(ValueError, match="AA needs at least 32 channels, got 16"):
        nn.AA(16, 8, 8)
    with pytest.raises(ValueError, match="form must be one of paper, original: got 'new'"):
        nn.AA(64, 8, 8, form="new")
    with pytest.raises(ValueError, match=r"made for inputs \(N, 32, 8, 8\), got \(1, 32, 7, 7\)"):
        nn.AA(32, 8, 8)(attnnet.Tensor(np.zeros((1, 32, 7, 7))))
    with pytest.raises(ValueError, match=r"at least 7 x 7 pixels .* got 6 x 8"):
        nn.NAB(16, 6, 8)
    with pytest.raises(ValueError, match=r"at least 7 x 7 pixels .* got 7 x 6"):
        nn.NAB(16)(attnnet.Tensor(np.zeros((1, 16, 7, 6))))


def test_aa_depths():
    for channels, dk, dv in ((64, 160, 16), (128, 160, 32), (512, 160, 128), (2048, 512, 512)):
        block = nn.AA(channels, 2, 3)
        assert (block.dk, block.dv) == (dk, dv)
        assert block.rel_encoding_h.shape == (3, dk // 8)
        assert block.rel_encoding_w.shape == (5, dk // 8)


def test_aa_tables_start_from_a_standard_normal():
    attnnet.manual_seed(SEED)
    values = nn.AA(64, 32, 32).rel_encoding_w.numpy()
    assert abs(values.mean()) < 5 / np.sqrt(values.size)
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / values.size)


def test_a_subclass_is_computed_by_what_it_says():
    class Doubled(nn.SE):
        def forward(self, x):
            return 2 * super().forward(x)

    class Shut(nn.CBAM):
        def gates(self, x):
            return {name: 0 * gate for name, gate in super().gates(x).items()}

        def reference(self, x):
            return x * self.gates(x)["spatial"]

    x, relu = attnnet.Tensor(np.random.default_rng(0).standard_normal((2, 16, 8, 8))), nn.ReLU()
    block = Doubled(16)
    assert_close(block.then_relu(x, relu).numpy(), relu(2 * nn.SE.forward(block, x)).numpy())
    assert not Shut(16).then_relu(x, relu).numpy().any() and not Shut(16)(x).numpy().any()
    assert nn.SE(16).is_fused and nn.CBAM(16).is_fused and not block.is_fused


def test_a_cumulative_mean_in_the_batch_norm_of_a_block():
    x = attnnet.Tensor(np.random.default_rng(0).standard_normal((2, 16, 8, 8)))
    block = nn.SA()
    block.spatial.bn.momentum = None
    block(x)
    mean = block.spatial.bn.running_mean.numpy().copy()
    block(x)
    assert_close(block.spatial.bn.running_mean.numpy(), mean)
