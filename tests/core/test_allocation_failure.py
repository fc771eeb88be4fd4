"""Memory runs out anywhere in a step: MemoryError, nothing lost, and the next step is right.

``_core.fail_allocation(n)`` makes the n-th allocation of the core from then on fail, once. Every n
of a step has its turn: forward, loss, backward, clipping and optimiser, with small networks of both
families that hold every kind of attention block.
"""

from __future__ import annotations

import contextlib
import gc

import numpy as np
import pytest
from reference import bindings
from reference.narrow import narrowed

import attnnet
from attnnet import _core, optim
from attnnet import functional as F
from attnnet.models.resnet import BasicBlock, ResNet
from attnnet.models.vgg import VGG

LABELS = np.array([1, 0, 3])
NEVER = 2**60


def resnet(block):
    return ResNet("resnet10", BasicBlock, (1, 1, 1, 1), block, 4, 3, 8)


def vgg(block):
    return VGG("vgg8", (1, 1, 1, 1, 1), block, 4, 3, 32)


NETWORKS = {
    "resnet, SE AA SA": (resnet, "SE_1+AA_2+SA_34", "sgd"),
    "resnet, NEW CBAM CA SEC": (resnet, "NEW_1+CBAM_2+CA_3+SEC_4", "adamw"),
    "vgg, NAB NEW": (vgg, "NAB_1+NEW_2", "sgd"),
}
OPTIMISERS = {
    "sgd": lambda params: optim.SGD(params, 0.1, 0.9, 1e-4, nesterov=True),
    "adamw": lambda params: optim.AdamW(params, 0.01),
}


@pytest.fixture(autouse=True)
def _exact_bytes():
    """Under a limit no block is larger than was asked for: bytes compare exactly."""
    attnnet.set_memory_limit(2**40)
    yield
    attnnet.set_memory_limit(0)


@contextlib.contextmanager
def failing(n):
    """The n-th allocation fails; afterwards none does."""
    _core.fail_allocation(n)
    try:
        yield
    finally:
        _core.fail_allocation(0)


def runs_out(call, n) -> bool:
    """Whether the n-th allocation's failure comes out as a MemoryError. It holds no traceback."""
    with failing(n):
        try:
            call()
        except MemoryError:
            return True
    return False


def allocations(call) -> int:
    """How many a call makes."""
    with failing(NEVER):
        call()
        return NEVER - _core.fail_allocation(0)


class Training:
    """A network, its optimiser, one batch, and what is needed to begin again."""

    def __init__(self, make, block, optimiser):
        attnnet.manual_seed(3)
        with narrowed(4):
            self.model = make(block)
        self.optimiser = OPTIMISERS[optimiser](self.model.parameters())
        size = self.model.image_size
        self.images = np.random.default_rng(5).standard_normal((3, 3, *size)).astype("f4")
        self.random = attnnet.get_rng_state()
        self.buffers = {k: np.array(v) for k, v in self.model.named_buffers()}

    def rewind_forward(self):
        """Takes back what a forward pass leaves, as the next step of a training would not."""
        attnnet.set_rng_state(self.random)
        for name, buffer in self.model.named_buffers():
            if isinstance(buffer, np.ndarray):
                buffer[...] = self.buffers[name]
            else:
                buffer.copy_(self.buffers[name])

    def step(self):
        self.optimiser.zero_grad()
        loss = F.cross_entropy(self.model(attnnet.Tensor(self.images)), LABELS)
        loss.backward()
        optim.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimiser.step()
        return loss.item()

    def held(self):
        self.optimiser.zero_grad()
        stats = _core.memory_stats()
        return stats["in_use"], stats["objects"]

    def values(self):
        state = self.optimiser.state_dict()["state"]
        return [*self.model.state_dict().values(),
                *(value for kept in state.values() for value in kept.values())]


def same(first, second):
    return len(first) == len(second) and all(map(np.array_equal, first, second))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_allocation_of_a_step(name):
    reference = Training(*NETWORKS[name])
    reference.step()  # the second step: the optimiser has its state
    reference.rewind_forward()
    total = allocations(reference.step)
    expected = reference.values()
    del reference

    training = Training(*NETWORKS[name])
    training.step()
    training.rewind_forward()
    model, optimiser = training.model, training.optimiser
    saved = model.state_dict(), optimiser.state_dict()
    gc.collect()
    before = training.held()
    assert total > 300
    for n in range(1, total + 1):
        versions = [p.version for p in model.parameters()]
        assert runs_out(training.step, n), f"allocation {n} of {total} was no error"
        if training.held() != before:
            gc.collect()
        assert training.held() == before, f"allocation {n} of {total}"
        assert [p.version for p in model.parameters()] == versions, f"allocation {n} of {total}"
        if n % 32 == 1 or n > total - 8:  # the step that follows is right
            training.rewind_forward()
            training.step()
            assert same(training.values(), expected), f"the step after allocation {n} of {total}"
            model.load_state_dict(saved[0])
            optimiser.load_state_dict(saved[1])
    training.rewind_forward()
    training.step()
    assert same(training.values(), expected)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_optimiser_s_first_step(optimiser):
    """Its state is made there; a step that failed has left none of it."""

    def start():
        weights = [bindings.tensor(6, 5), bindings.tensor(7)]
        for w in weights:
            w.grad = attnnet.Tensor(np.sin(np.arange(w.numel()) - 2.0).reshape(w.shape))
        return weights, OPTIMISERS[optimiser](weights)

    weights, stepper = start()
    total = allocations(stepper.step)
    stepper.step()
    expected = [w.numpy() for w in weights]
    for n in range(1, total + 1):
        weights, stepper = start()
        assert runs_out(stepper.step, n)
        assert not stepper.state
        stepper.step()
        stepper.step()
        assert same([w.numpy() for w in weights], expected), f"allocation {n} of {total}"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_allocation_of_a_prediction(name):
    """The folded weights are made at the first one."""
    training = Training(*NETWORKS[name])
    model = training.model.eval()

    def forget_and_predict():
        model.load_state_dict(model.state_dict())  # new versions: what was folded is stale
        with attnnet.no_grad():
            return model(attnnet.Tensor(training.images)).numpy()

    expected = forget_and_predict()
    total = allocations(forget_and_predict)
    for n in range(1, total + 1):
        assert runs_out(forget_and_predict, n), f"allocation {n} of {total}"
        if n % 8 == 1:
            assert np.array_equal(forget_and_predict(), expected), f"allocation {n} of {total}"
    assert np.array_equal(forget_and_predict(), expected)


def test_a_failed_walk_forgets_its_gradients():
    """What gathered where the walk broke off is not added to the next one."""
    for retained in (False, True):
        x = bindings.tensor(2, 3)
        h = x * x
        if retained:
            h.retain_grad()
        first, second = F.split(h.sigmoid() + h, 1)
        loss = (first * second + first + x[:1] * 3.0).sum()
        total = allocations(lambda: loss.backward(retain_graph=True))  # noqa: B023
        expected = x.grad.numpy().copy()
        for n in range(1, total + 1):
            x.grad = h.grad = None
            with failing(n), pytest.raises(MemoryError):
                loss.backward(retain_graph=True)
            x.grad = h.grad = None
            loss.backward(retain_graph=True)
            assert np.array_equal(x.grad.numpy(), expected), f"allocation {n} of {total}"


@pytest.mark.parametrize("name", bindings.functions())
def test_every_allocation_of_every_function(name):
    function, case = bindings.functions()[name]
    if name in ("load_blas", "fail_allocation"):
        return

    def call():
        result = function(*case.make())
        if isinstance(result, attnnet.Tensor) and result.grad_fn is not None:
            result.backward(np.ones(result.shape, np.float32))
        if case.undo:
            case.undo()

    call()
    total = allocations(call)
    gc.collect()
    before = _core.memory_stats()
    for n in range(1, total + 1):
        assert runs_out(call, n), f"allocation {n} of {total} was no error"
    after = _core.memory_stats()
    for key in ("in_use", "objects"):
        assert after[key] == before[key], key
