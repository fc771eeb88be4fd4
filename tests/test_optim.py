"""Optimisers, schedules and clipping: definitions, PyTorch, state, and thread counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference.compare import assert_close

import attnnet
from attnnet import nn, optim

SHAPES = [(), (3,), (7, 5), (16, 8, 3, 3), (70_001,), (0, 4)]
SEED = 17


def draw(rng):
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def set_grads(params, grads):
    for param, grad in zip(params, grads, strict=True):
        param.grad = attnnet.Tensor(grad)


SGD = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.01},
    {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
]
ADAMW = [{}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}]


def sgd_twin(w, v, g, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
    """One step of the definition in float64; returns w and v."""
    d = g + weight_decay * w
    v = d if v is None else momentum * v + d
    step = d + momentum * v if nesterov else v if momentum else d
    return w - lr * step, v


@pytest.mark.parametrize("options", SGD, ids=str)
def test_sgd_follows_its_definition(options):
    rng = np.random.default_rng(SEED)
    start = draw(rng)
    params = [nn.Parameter(w) for w in start]
    exact, velocity = [w.astype(np.float64) for w in start], [None] * len(start)
    optimizer = optim.SGD(params, **options)
    for step in range(6):
        grads = draw(rng)
        set_grads(params, grads)
        before = [param.version for param in params]
        optimizer.step()
        for i, param in enumerate(params):
            exact[i], velocity[i] = sgd_twin(exact[i], velocity[i], grads[i], **options)
            assert_close(param, exact[i], 6, f"step {step}, shape {SHAPES[i]} (seed {SEED})")
            assert param.version > before[i]
            np.testing.assert_array_equal(param.grad.numpy(), grads[i])  # untouched


def torch_run(make, torch_make, steps=12):
    """Largest difference to PyTorch's own after some steps with the same gradients."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(SEED)
    start = draw(rng)
    params = [nn.Parameter(w) for w in start]
    theirs = [torch.tensor(w, requires_grad=True) for w in start]
    mine, oracle = make(params), torch_make(torch.optim, theirs)
    for step in range(steps):
        grads = draw(rng)
        for i, (param, other) in enumerate(zip(params, theirs, strict=True)):
            late = i == 2 and step < 3  # one parameter gets its first gradient later
            param.grad = None if late else attnnet.Tensor(grads[i])
            other.grad = None if late else torch.tensor(grads[i])
        mine.step()
        oracle.step()
    for param, other, shape in zip(params, theirs, SHAPES, strict=True):
        assert_close(param, other.detach().numpy(), steps, f"shape {shape} (seed {SEED})")


@pytest.mark.parametrize("options", SGD, ids=str)
def test_sgd_is_pytorchs(options):
    torch_run(lambda p: optim.SGD(p, **options), lambda o, p: o.SGD(p, **options))


@pytest.mark.parametrize("options", ADAMW, ids=str)
def test_adamw_is_pytorchs(options):
    torch_run(lambda p: optim.AdamW(p, **options), lambda o, p: o.AdamW(p, **options))


@pytest.mark.parametrize("options", ADAMW, ids=str)
def test_adamw_follows_its_definition(options):
    rng = np.random.default_rng(SEED)
    lr, wd = options.get("lr", 1e-3), options.get("weight_decay", 0.01)
    (b1, b2), eps = options.get("betas", (0.9, 0.999)), options.get("eps", 1e-8)
    start = rng.standard_normal(1000)
    param = nn.Parameter(start)
    w, m, v = start.astype(np.float32).astype(np.float64), 0.0, 0.0
    optimizer = optim.AdamW([param], **options)
    for step in range(1, 8):
        g = rng.standard_normal(1000).astype(np.float32)
        param.grad = attnnet.Tensor(g)
        optimizer.step()
        w = w * (1 - lr * wd)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g.astype(np.float64) ** 2
        w = w - lr * (m / (1 - b1**step)) / (np.sqrt(v / (1 - b2**step)) + eps)
        assert_close(param, w, 8, f"step {step} (seed {SEED})")


@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, 0.1, 0.9, 1e-3, True), lambda p: optim.AdamW(p)
])  # fmt: skip
def test_bits_do_not_depend_on_threads(make):
    results, threads = [], attnnet.get_num_threads()
    for count in (1, 2, 3):
        attnnet.set_num_threads(count)
        rng = np.random.default_rng(SEED)
        params = [nn.Parameter(w) for w in draw(rng)]
        optimizer = make(params)
        norms = []
        for _ in range(3):
            set_grads(params, draw(rng))
            norms.append(optim.clip_grad_norm_(params, 5.0))
            optimizer.step()
        results.append((norms, [p.numpy().copy() for p in params]))
    attnnet.set_num_threads(threads)
    for norms, values in results[1:]:
        assert norms == results[0][0]
        for mine, first in zip(values, results[0][1], strict=True):
            np.testing.assert_array_equal(mine, first)


def test_groups_and_parameters_without_gradients():
    a, b, c = (nn.Parameter([1.0]) for _ in range(3))
    optimizer = optim.SGD(
        [{"params": [a], "lr": 1.0}, {"params": b, "weight_decay": 0.5}, {"params": [c]}], lr=0.1
    )
    set_grads([a, b], [np.ones(1), np.ones(1)])
    optimizer.step()
    assert [a.item(), b.item(), c.item()] == pytest.approx([0.0, 0.85, 1.0])
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.step()
    assert a.item() == pytest.approx(-0.5)
    optimizer.zero_grad()
    assert a.grad is None and b.grad is None
    optimizer.step()  # nothing to do
    assert "group 1: 1 parameters, " in repr(optimizer)


@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.AdamW(p, 0.01)
])  # fmt: skip
def test_state_goes_on_bit_for_bit(make):
    rng = np.random.default_rng(SEED)
    start, grads = draw(rng), [draw(rng) for _ in range(6)]
    straight = [nn.Parameter(w) for w in start]
    optimizer = make(straight)
    for g in grads[:3]:
        set_grads(straight, g)
        optimizer.step()
    saved = optimizer.state_dict()
    resumed = [nn.Parameter(p.numpy()) for p in straight]
    other = make(resumed)
    other.param_groups[0]["lr"] = 77.0
    other.load_state_dict(saved)
    for g in grads[3:]:
        for params, one in ((straight, optimizer), (resumed, other)):
            set_grads(params, g)
            one.step()
    for mine, theirs in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    assert saved["param_groups"][0]["params"] == list(range(len(SHAPES)))
    assert isinstance(next(iter(saved["state"].values())), dict)


def test_optimizer_errors():
    p = nn.Parameter([1.0])
    for options, message in (
        ({"lr": -1.0}, "invalid lr: -1.0"),
        ({"lr": math.nan}, "invalid lr: nan"),
        ({"lr": 1.0, "momentum": -0.1}, "invalid momentum"),
        ({"lr": 1.0, "weight_decay": -1}, "invalid weight_decay"),
        ({"lr": 1.0, "nesterov": True}, "Nesterov momentum requires"),
    ):
        with pytest.raises(ValueError, match=message):
            optim.SGD([p], **options)
    with pytest.raises(ValueError, match="invalid betas"):
        optim.AdamW([p], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD([], 0.1)
    with pytest.raises(TypeError, match="but got one Tensor"):
        optim.SGD(p, 0.1)
    with pytest.raises(TypeError, match="can only optimize Tensors, got float"):
        optim.SGD([1.0], 0.1)
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([p * 2], 0.1)
    with pytest.raises(ValueError, match="more than once"):
        optim.SGD([p, p], 0.1)
    with pytest.raises(ValueError, match="SGD has no setting 'rate'; it has lr, momentum"):
        optim.SGD([{"params": [p], "rate": 1}], 0.1)
    optimizer = optim.SGD([p], 0.1, momentum=0.9)
    p.grad = attnnet.Tensor([1.0])
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["momentum_buffer"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"momentum_buffer of parameter 0 has shape \(3,\)"):
        optimizer.load_state_dict(state)
    state["param_groups"].append({"params": [1]})
    with pytest.raises(ValueError, match="2 parameter groups, the optimizer 1"):
        optimizer.load_state_dict(state)
    with pytest.raises(ValueError, match="2 parameters in group 0, the optimizer 1"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]})


def test_core_errors():
    from attnnet import _core

    p, q = attnnet.Tensor([1.0]), attnnet.Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"parameter 0 has shape \(1.*but its gradient has \(2"):
        _core.sgd_step([p], [q], None, 0.1, 0.0, 0.0, False, None)
    with pytest.raises(ValueError, match="grads holds 0 tensors, expected 1"):
        _core.sgd_step([p], [], None, 0.1, 0.0, 0.0, False, None)
    with pytest.raises(ValueError, match="first must be a list of 1 truth values"):
        _core.sgd_step([p], [p], [p], 0.1, 0.0, 0.0, False, [])
    with pytest.raises(TypeError, match=r"params\[0\] must be an attnnet.Tensor, got int"):
        _core.sgd_step([1], [p], None, 0.1, 0.0, 0.0, False, None)
    with pytest.raises(ValueError, match="counts steps from 1, got 0"):
        _core.adamw_step([p], [p], [p], [p], 0.1, 0.9, 0.999, 1e-8, 0.0, 0)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        _core.clip_value_([p], -1.0)


def test_clipping_by_norm():
    rng = np.random.default_rng(SEED)
    params = [nn.Parameter(w) for w in draw(rng)]
    grads = draw(rng)
    exact = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads))
    set_grads(params, grads)
    assert optim.clip_grad_norm_(params, 1e9) == pytest.approx(exact, rel=1e-12)
    np.testing.assert_array_equal(params[3].grad.numpy(), grads[3])
    assert optim.clip_grad_norm_(iter(params), 2.5) == pytest.approx(exact, rel=1e-12)
    for param, grad in zip(params, grads, strict=True):
        assert_close(param.grad, grad * (2.5 / (exact + 1e-6)), 1)
    params[0].grad = None
    huge = nn.Parameter([0.0, 0.0])
    huge.grad = attnnet.Tensor([3e30, 4e30])
    assert optim.clip_grad_norm_(huge, 1.0) == pytest.approx(5e30, rel=1e-6)
    assert_close(huge.grad, np.array([0.6, 0.8]), 1)
    huge.grad = attnnet.Tensor([np.nan, 1.0])
    with pytest.raises(RuntimeError, match="norm of the gradients is nan"):
        optim.clip_grad_norm_(huge, 1.0, error_if_nonfinite=True)
    assert math.isnan(optim.clip_grad_norm_(huge, 1.0))
    with pytest.raises(ValueError, match="max_norm must be 0 or more"):
        optim.clip_grad_norm_(params, -1)


def test_clipping_by_value():
    param = nn.Parameter(np.zeros(5))
    param.grad = attnnet.Tensor([-3.0, -1.0, 0.5, 7.0, np.nan])
    optim.clip_grad_value_([param, nn.Parameter([1.0])], 1.0)
    np.testing.assert_array_equal(param.grad.numpy(), [-1.0, -1.0, 0.5, 1.0, np.nan])
    with pytest.raises(ValueError, match="clip_value must be 0 or more"):
        optim.clip_grad_value_(param, math.nan)


# ---- averages -------------------------------------------------------------------------------


class Normed(nn.Module):
    """Large enough for several tasks of the pool, with statistics and a counter."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(300, 250)
        self.bn = nn.BatchNorm2d(5)


def members(model):
    return {name: np.array(value) for name, value in model.state_dict().items()}


def step_at_random(model, rng):
    for value in [*model.parameters(), model.bn.running_mean, model.bn.running_var]:
        value.copy_(rng.standard_normal(value.shape).astype(np.float32))
    model.bn.num_batches_tracked[...] += 1


def test_averages_follow_their_definition():
    rng = np.random.default_rng(SEED)
    model = Normed()
    average = optim.AveragedModel(model, decay=0.7)
    exact = {name: value.astype(np.float64) for name, value in members(model).items()}
    for step in range(30):
        step_at_random(model, rng)
        before = members(model)
        versions = [p.version for p in average.module.parameters()]
        average.update_parameters(model)
        keep = min(0.7, step / (step + 9))
        for name, value in before.items():
            counter = name.endswith("tracked")
            exact[name] = value if counter else keep * exact[name] + (1 - keep) * value
            np.testing.assert_array_equal(members(model)[name], value)  # untouched
            assert_close(
                members(average.module)[name],
                exact[name],
                step + 1,
                f"{name} at step {step} (seed {SEED})",
            )
        assert all(
            p.version > v for p, v in zip(average.module.parameters(), versions, strict=True)
        )
    assert average.n_averaged == 30 and not average.module.training


def test_a_long_average_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(SEED)
    model, theirs = Normed(), torch.nn.Linear(300, 250)
    utils = torch.optim.swa_utils
    oracle = utils.AveragedModel(theirs, multi_avg_fn=utils.get_ema_multi_avg_fn(0.9))
    average = optim.AveragedModel(model, 0.9)
    average.n_averaged = 1000  # past the steps at the beginning that differ
    oracle.n_averaged += 1000
    start = members(model)["linear.weight"]
    with torch.no_grad():
        oracle.module.weight.copy_(torch.from_numpy(start))
    for _ in range(10):
        step_at_random(model, rng)
        with torch.no_grad():
            theirs.weight.copy_(torch.from_numpy(members(model)["linear.weight"]))
        average.update_parameters(model)
        oracle.update_parameters(theirs)
    assert_close(
        average.module.linear.weight, oracle.module.weight.detach().numpy(), 20, f"seed {SEED}"
    )


def test_averages_have_the_same_bits_with_any_number_of_threads():
    results, threads = [], attnnet.get_num_threads()
    try:
        for count in (1, 2, 3):
            attnnet.set_num_threads(count)
            rng = np.random.default_rng(SEED)
            attnnet.manual_seed(SEED)
            model = Normed()
            average = optim.AveragedModel(model, 0.5)
            for _ in range(3):
                step_at_random(model, rng)
                average.update_parameters(model)
            results.append({k: v.tobytes() for k, v in members(average.module).items()})
    finally:
        attnnet.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


def test_average_errors():
    model = Normed()
    for decay in (0.0, 1.0, math.nan, "0.9", True):
        with pytest.raises(ValueError, match="decay must be above 0 and below 1"):
            optim.AveragedModel(model, decay)
    average = optim.AveragedModel(model)
    before = members(average.module)
    for other in (nn.Linear(300, 250), nn.Sequential(nn.Linear(300, 251), nn.BatchNorm2d(5))):
        with pytest.raises(ValueError, match="not built as the averaged one"):
            average.update_parameters(other)
    assert average.n_averaged == 0
    assert all(np.array_equal(v, before[k]) for k, v in members(average.module).items())
    from attnnet import _core

    a, b = attnnet.Tensor([1.0]), attnnet.Tensor([3.0])
    _core.average_step([a], [b], 0.25)
    assert a.item() == 1.5 and b.item() == 3.0
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="share in an average must be 0 to 1"):
            _core.average_step([a], [b], share)
    with pytest.raises(ValueError, match="shape"):
        _core.average_step([a], [attnnet.Tensor([1.0, 2.0])], 0.5)
    assert a.item() == 1.5


# ---- schedules ------------------------------------------------------------------------------


def two_groups(library, make_param, **options):
    groups = [{"params": [make_param()], "lr": 0.5}, {"params": [make_param()]}]
    return library.SGD(groups, lr=0.1, momentum=0.9, **options)


def _warmup(o, s):
    return s.LinearWarmup(o, 5, 0.1, s.CosineAnnealingLR(o, 10))


def _torch_warmup(o, s):
    parts = [s.LinearLR(o, 0.1, 1.0, 5), s.CosineAnnealingLR(o, 10)]
    return s.SequentialLR(o, parts, [5])


SCHEDULES = {
    "step": (lambda o, s: s.StepLR(o, 3, 0.5), None, 20),
    "multi-step": (lambda o, s: s.MultiStepLR(o, [8, 2, 2], 0.3), None, 12),
    "cosine": (lambda o, s: s.CosineAnnealingLR(o, 10, 0.01), None, 25),
    "linear": (lambda o, s: s.LinearLR(o), None, 8),
    "linear, to the end": (lambda o, s: s.LinearLR(o, 1.0, 0.02, 11), None, 13),
    "warm-up": (lambda o, s: s.LinearWarmup(o, 5), lambda o, s: s.LinearLR(o, 1 / 3, 1.0, 5), 9),
    "warm-up, then cosine": (_warmup, _torch_warmup, 15),
    "one-cycle": (lambda o, s: s.OneCycleLR(o, [1.0, 0.3], 20), None, 19),
    "one-cycle, lines": (
        lambda o, s: s.OneCycleLR(
            o, 0.8, epochs=4, steps_per_epoch=6, pct_start=0.4, anneal_strategy="linear",
            div_factor=10, final_div_factor=100, base_momentum=0.8, max_momentum=0.9,
        ),
        None,
        23,
    ),
    "one-cycle, momentum kept": (
        lambda o, s: s.OneCycleLR(o, 0.8, 11, cycle_momentum=False), None, 10
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules_are_pytorchs(case):
    torch = pytest.importorskip("torch")
    make, torch_make, steps = SCHEDULES[case]
    mine = two_groups(optim, lambda: nn.Parameter([1.0]))
    theirs = two_groups(torch.optim, lambda: torch.nn.Parameter(torch.ones(1)))
    schedule = make(mine, optim)
    oracle = (torch_make or make)(theirs, torch.optim.lr_scheduler)
    for step in range(steps + 1):
        got = schedule.get_last_lr()
        expected = [group["lr"] for group in theirs.param_groups]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12, err_msg=f"step {step}")
        momenta = [[g["momentum"] for g in o.param_groups] for o in (mine, theirs)]
        np.testing.assert_allclose(*momenta, rtol=1e-9, err_msg=f"momentum at step {step}")
        theirs.step()
        schedule.step()
        oracle.step()


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules_resume_with_the_same_bits(case):
    make, _, steps = SCHEDULES[case]
    straight = make(two_groups(optim, lambda: nn.Parameter([1.0])), optim)
    half = steps // 2
    for _ in range(half):
        straight.step()
    resumed = make(two_groups(optim, lambda: nn.Parameter([1.0])), optim)
    resumed.load_state_dict(straight.state_dict())
    assert resumed.last_epoch == half
    for _ in range(steps - half):
        assert resumed.get_last_lr() == straight.get_last_lr()
        straight.step()
        resumed.step()
    assert resumed.get_last_lr() == straight.get_last_lr()


def test_the_studys_schedules():
    optimizer = optim.SGD([nn.Parameter([1.0])], 0.05)
    schedule = optim.StepLR(optimizer, 30, 0.5)
    rates = []
    for _ in range(300):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert rates == [0.05 * 0.5 ** (epoch // 30) for epoch in range(300)]
    optimizer = optim.SGD([nn.Parameter([1.0])], 0.1)
    schedule = optim.CosineAnnealingLR(optimizer, 200)
    for _ in range(200):
        schedule.step()
    assert schedule.get_last_lr() == [0.0]


def test_one_cycle_turns_adamws_first_beta():
    optimizer = optim.AdamW([nn.Parameter([1.0])])
    schedule = optim.OneCycleLR(optimizer, 0.1, 10)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    schedule.step()
    schedule.step()
    assert optimizer.param_groups[0]["betas"][0] == pytest.approx(0.85)


def test_schedule_errors():
    optimizer = optim.SGD([nn.Parameter([1.0])], 0.1)
    for make, message in (
        (lambda: optim.StepLR(optimizer, 0), "step_size must be an int of at least 1, got 0"),
        (lambda: optim.CosineAnnealingLR(optimizer, 2.5), "T_max must be an int"),
        (lambda: optim.LinearWarmup(optimizer, 3, 0.0), "start_factor must be above 0"),
        (lambda: optim.LinearLR(optimizer, 0.0), "start_factor must be above 0"),
        (lambda: optim.LinearLR(optimizer, 1.0, 1.5), "end_factor must be between 0 and 1"),
        (lambda: optim.OneCycleLR(optimizer, 0.1), "needs total_steps, or epochs"),
        (lambda: optim.OneCycleLR(optimizer, 0.1, 5, pct_start=2), "pct_start must be"),
        (lambda: optim.OneCycleLR(optimizer, 0.1, 5, anneal_strategy="no"), "'cos' or 'linear'"),
        (lambda: optim.OneCycleLR(optimizer, [0.1, 0.2], 5), "expected 1 values for max_lr"),
        (lambda: optim.StepLR(optimizer, 1).load_state_dict({}), "does not fit StepLR"),
        (
            lambda: optim.LinearWarmup(optimizer, 2).load_state_dict({"after": {}}),
            "differ in what comes after",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="expected an attnnet optimizer, got list"):
        optim.StepLR([], 1)
    other = optim.SGD([nn.Parameter([1.0])], 0.1)
    with pytest.raises(ValueError, match="same optimizer"):
        optim.LinearWarmup(optimizer, 2, after=optim.StepLR(other, 1))
    schedule = optim.OneCycleLR(optimizer, 0.1, 2)
    schedule.step()
    schedule.step()
    with pytest.raises(ValueError, match="tried to step 3 times; the cycle has 2 steps"):
        schedule.step()
