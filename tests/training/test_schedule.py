"""The learning rate of every step: the study's recipes, PyTorch's formulas, warm-up."""

import math

import numpy as np
import pytest

import attnnet
from attnnet.training.fields import SCHEDULES
from attnnet.training.recipe import Recipe
from attnnet.training.schedule import LearningRates, make_optimizer

from .tiny import Tiny, recipe


def rates(setting, batches):
    """The rate of every step of the recipe's epochs, and of the first step of each epoch."""
    rates = LearningRates(setting, make_optimizer(setting, Tiny(10, 3, (32, 32))), batches)
    every = [rates.set(e, b) for e in range(setting.epochs) for b in range(batches)]
    return every, every[::batches]


def test_the_studys_cosine_and_steps():
    _, by_epoch = rates(Recipe.preset("resnet18-cifar100"), 2)
    for epoch, rate in enumerate(by_epoch):
        assert abs(rate - 0.05 * (1 + math.cos(math.pi * epoch / 200))) <= 1e-15
    _, by_epoch = rates(Recipe.preset("vgg19-cifar10"), 2)
    assert by_epoch == [0.05 * 0.5 ** (epoch // 30) for epoch in range(300)]


def test_five_epochs_of_the_studys_schedule():
    setting = Recipe.preset("resnet18-cifar100", epochs=5, schedule_epochs=200)
    assert rates(setting, 3)[0] == rates(Recipe.preset("resnet18-cifar100"), 3)[0][:15]


@pytest.mark.parametrize(("epochs", "batches", "rise"), [(6, 10, 1.5), (4, 7, 1.0), (10, 3, 0.5)])
def test_one_cycle_is_pytorchs(epochs, batches, rise):
    torch = pytest.importorskip("torch")
    setting = recipe(epochs=epochs, warmup_epochs=rise, final_lr=1e-4, lr=0.2)
    weights = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weights], lr=0.2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.2, total_steps=epochs * batches, pct_start=rise / epochs,
        cycle_momentum=False, div_factor=25, final_div_factor=0.2 / 25 / 1e-4,
    )  # fmt: skip
    for rate in rates(setting, batches)[0]:
        assert abs(rate - optimizer.param_groups[0]["lr"]) <= 1e-12
        optimizer.step()
        schedule.step()


def test_one_cycle_ends_at_zero_by_default():
    every, _ = rates(recipe(), 7)
    assert every[-1] == 0.0 and max(every) <= 0.05 and min(every[:-1]) > 0.0
    assert abs(every[0] - 0.05 / 25) <= 1e-12


def test_warm_up_then_the_schedule_as_if_nothing_had_been():
    setting = recipe(schedule="cosine", warmup_epochs=1.5, epochs=4)
    plain = recipe(schedule="cosine", warmup_epochs=0.0, epochs=4)
    warm, cold = rates(setting, 4)[0], rates(plain, 4)[0]
    assert warm[6:] == cold[6:]
    line = [0.05 * (1 / 6 + 5 / 6 * i / 6) for i in range(6)]
    assert np.allclose(warm[:6], line, rtol=1e-12, atol=0)


def test_linear_rises_and_falls_in_straight_lines():
    setting = recipe(schedule="linear", warmup_epochs=0.75, epochs=3, lr=0.4, final_lr=0.04)
    every, _ = rates(setting, 8)
    rise = [0.4 * (1 / 6 + 5 / 6 * i / 6) for i in range(6)]
    fall = [0.4 - 0.36 * i / 18 for i in range(18)]
    assert np.allclose(every, rise + fall, rtol=1e-12, atol=0)
    longer = recipe(schedule="linear", warmup_epochs=0.0, epochs=2, schedule_epochs=4, lr=0.4)
    assert np.allclose(rates(longer, 5)[0], [0.4 * (1 - i / 20) for i in range(10)], rtol=1e-12)
    short = recipe(schedule="linear", warmup_epochs=0.9, epochs=1, lr=0.4)  # rises all the way
    assert np.allclose(rates(short, 2)[0], [0.2, 0.3], rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_depends_on_the_place_alone(schedule):
    setting = recipe(schedule=schedule, milestones=(1, 3), step_size=2)
    every, _ = rates(setting, 5)
    later = LearningRates(setting, make_optimizer(setting, Tiny(10, 3, (32, 32))), 5)
    for step in np.random.default_rng(0).permutation(20):
        assert later.set(int(step) // 5, int(step) % 5) == every[step]


def test_optimisers_get_the_recipes_numbers():
    model = Tiny(10, 3, (32, 32))
    group = make_optimizer(Recipe.preset("vgg19-cifar10"), model).param_groups[0]
    assert [group[k] for k in ("lr", "momentum", "weight_decay", "nesterov")] == [
        0.05, 0.9, 5e-4, False,
    ]  # fmt: skip
    assert len(group["params"]) == len(list(model.parameters()))
    assert isinstance(make_optimizer(recipe(optimizer="adamw"), model), attnnet.optim.AdamW)


@pytest.mark.parametrize("decay_norms", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_of_norms_and_biases(optimizer, decay_norms):
    """Where the gradient is zero, a step is the decay alone."""
    model = Tiny(10, 3, (32, 32))
    setting = recipe(optimizer=optimizer, decay_norms=decay_norms, lr=0.5, weight_decay=0.1)
    before = {name: p.numpy() + np.float32(1) for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.copy_(before[name])
        p.grad = attnnet.Tensor(np.zeros(p.shape, np.float32))
    stepper = make_optimizer(setting, model)
    rates = LearningRates(setting, stepper, 1)
    for group in stepper.param_groups:
        group["lr"] = 0.5
    stepper.step()
    # Nesterov's first step goes (1 + momentum) times as far.
    factor = 1 - 0.5 * 0.1 * (1.9 if optimizer == "sgd" else 1.0)
    kept = {"conv.bias", "bn.weight", "bn.bias", "linear.bias"}
    for name, p in model.named_parameters():
        expected = before[name] * (1.0 if name in kept and not decay_norms else factor)
        assert np.abs(p.numpy() - expected).max() <= 4 * 2.0**-24 * np.abs(expected).max(), name
    rates.set(3, 0)
    assert len({group["lr"] for group in stepper.param_groups}) == 1


def test_two_groups_step_as_one_where_nothing_decays():
    results = []
    for decay_norms in (True, False):
        attnnet.manual_seed(3)
        model = Tiny(10, 3, (32, 32))
        setting = recipe(decay_norms=decay_norms, weight_decay=0.0)
        stepper = make_optimizer(setting, model)
        rng = np.random.default_rng(3)
        for _ in range(3):
            for p in model.parameters():
                p.grad = attnnet.Tensor(rng.standard_normal(p.shape).astype(np.float32))
            stepper.step()
        results.append(model.state_dict())
    assert all(results[0][name].tobytes() == results[1][name].tobytes() for name in results[0])
