"""The tape and the backward walk: gathering, hooks, freed graphs, threads, interrupts."""

import copy
import gc
import os
import signal
import threading
import time
import weakref

import numpy as np
import pytest
from reference import processes
from reference.memory import in_use

import attnnet


def leaf(*values):
    return attnnet.Tensor(list(values), requires_grad=True)


def test_gradients_gather_over_uses_and_calls():
    x = leaf(1.0, 2.0)
    y = x * x + x  # x is used three times
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 5.0]
    (x * 2).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]


def test_leaves_never_share_a_gradient():
    a, b = leaf(1.0), leaf(2.0)
    (a + b).backward(attnnet.Tensor([1.0]))
    a.grad.zero_()
    assert b.grad.tolist() == [1.0]


def test_diamond_and_partly_used_outputs():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    first, second = attnnet.functional.split(x, 2)
    (first * first).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 0.0, 0.0]
    assert second.grad_fn is not None


def test_detach_and_no_grad_stop_gradients():
    x = leaf(3.0)
    (x.detach() * x).backward()
    assert x.grad.tolist() == [3.0]
    with attnnet.no_grad():
        assert not attnnet.is_grad_enabled()
        assert not (x * x).requires_grad
        with attnnet.enable_grad():
            assert (x * x).requires_grad
    assert attnnet.is_grad_enabled()

    @attnnet.no_grad()
    def function():
        return x * x

    assert not function().requires_grad


def test_grad_mode_is_of_the_thread():
    seen = []
    with attnnet.no_grad():
        thread = threading.Thread(target=lambda: seen.append(attnnet.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_second_backward_needs_a_retained_graph():
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8.0]
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_in_place_write_before_backward_is_an_error():
    x = leaf(1.0, 2.0)
    y = x * x
    x.copy_([3.0, 4.0])
    with pytest.raises(RuntimeError, match=r"mul needs .* changed in place"):
        y.sum().backward()


def test_a_product_keeps_only_what_its_gradient_needs():
    x, constant = leaf(1.0, 2.0), attnnet.Tensor([3.0, 5.0])
    y = x * constant
    x.copy_([7.0, 7.0])
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 5.0]
    y = constant / x
    before = in_use()
    z = attnnet.Tensor(np.ones(1 << 16), requires_grad=True) * 2.0
    twice = z * 2.0
    with_both = in_use()
    del z
    assert in_use() < with_both and twice.shape == (1 << 16,)
    del twice
    assert in_use() == before
    y.sum().backward()
    np.testing.assert_allclose(x.grad.tolist(), [3 - 3 / 49, 5 - 5 / 49], rtol=1e-6)


def test_backward_arguments():
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"shape \(2,\) needs a gradient"):
        (x * 1).backward()
    with pytest.raises(ValueError, match=r"gradient has shape \(3,\), the tensor has \(2,\)"):
        (x * 1).backward([1, 1, 1])
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        attnnet.Tensor([1.0]).backward()
    x.backward([5.0, 6.0])
    assert x.grad.tolist() == [5.0, 6.0]


def test_grad_can_be_set_and_cleared():
    x = leaf(1.0)
    x.grad = attnnet.Tensor([4.0])
    assert x.grad.tolist() == [4.0]
    x.grad = None
    assert x.grad is None
    with pytest.raises(ValueError, match="grad has shape"):
        x.grad = attnnet.Tensor([1.0, 2.0])
    with pytest.raises(TypeError):
        x.grad = 3.0


def test_requires_grad_of_a_result_cannot_be_turned_off():
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad = False


def test_hooks_see_the_whole_gradient_and_may_replace_it():
    x = leaf(1.0, 2.0)
    y = x * 3
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    handle = y.register_hook(lambda g: g * 10)
    y.retain_grad()
    (y + y * y).sum().backward(retain_graph=True)
    assert seen == [[7.0, 13.0]]
    assert y.grad.tolist() == [70.0, 130.0] and x.grad.tolist() == [210.0, 390.0]
    handle.remove()
    handle.remove()
    x.grad = None
    (y + 0).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_failing_hook_leaves_nothing_behind():
    x = leaf(1.0)
    y = x * 2

    def fail(gradient):
        raise ZeroDivisionError("from the hook")

    handle = y.register_hook(fail)
    z = y * 1
    with pytest.raises(ZeroDivisionError, match="from the hook"):
        z.sum().backward(retain_graph=True)
    assert x.grad is None
    handle.remove()
    z.sum().backward()
    assert x.grad.tolist() == [2.0]


def test_hook_must_return_a_fitting_tensor():
    for wrong, error in (("text", TypeError), (attnnet.Tensor([1.0, 2.0]), ValueError)):
        x = leaf(1.0)
        x.register_hook(lambda g, wrong=wrong: wrong)
        with pytest.raises(error, match="gradient hook"):
            (x * 1).sum().backward()


def test_a_long_chain_is_walked_and_freed_without_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 0.0
    y.backward()
    assert x.grad.tolist() == [1.0]
    before = in_use()
    del y
    assert in_use() < before


def test_dropping_the_loss_frees_what_was_saved():
    x = leaf(*np.ones(10_000))
    before = in_use()
    y = ((x * x) * (x + 1)).sum()
    assert in_use() > before + 80_000
    del y
    assert in_use() == before


def test_threads_differentiate_side_by_side():
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((64, 1000)).astype("f4") for _ in range(4)]

    def gradient(array):
        x = attnnet.Tensor(array, requires_grad=True)
        ((x * x).sigmoid() * x.exp()).mean().backward()
        return x.grad.numpy().copy()

    expected = [gradient(a) for a in arrays]
    got = [None] * 4

    def work(i):
        for _ in range(20):
            got[i] = gradient(arrays[i])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert all(np.array_equal(e, g) for e, g in zip(expected, got, strict=True))


def test_threads_that_meet_at_a_leaf_never_lose_a_gradient():
    w = attnnet.Tensor(np.ones(1 << 17), requires_grad=True)
    whole, refused = [], []

    def work():
        for _ in range(60):
            y = w * 1.0
            for _ in range(9):
                y = y + w * 1.0
            try:
                y.sum().backward()
                whole.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    def look():
        found = None
        while any(worker.is_alive() for worker in workers):
            before, found = found, w.grad
            assert before is None or found.shape == w.shape, "once there it stays"

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    look()
    for worker in workers:
        worker.join()
    assert whole and len(whole) + len(refused) == 180
    assert all("another thread is computing a gradient" in words for words in refused)
    assert (w.grad.numpy() == 10 * len(whole)).all()


def test_a_hook_may_walk_back_itself():
    x = leaf(1.0, 2.0)
    y = x * 3.0

    def inner(grad):
        (x * 10.0).sum().backward()
        with pytest.raises(RuntimeError, match="changed in place"):
            stale.backward()

    z = attnnet.Tensor([1.0, 1.0], requires_grad=True)
    product = x * z
    stale = (product * product).sum()
    with attnnet.no_grad():
        product.copy_([0.0, 0.0])
    y.register_hook(inner)
    (x * 100.0 + y).sum().backward()
    assert x.grad.tolist() == [113.0, 113.0]


@pytest.mark.parametrize("retain", [False, True])
def test_a_hook_may_walk_back_to_its_own_tensor(retain):
    x = leaf(1.0, 2.0)
    y = x * 2.0
    y.retain_grad()
    squares, seen = (y * y).sum(), []

    def inner(grad):
        seen.append(grad.tolist())
        if len(seen) == 1:
            squares.backward(retain_graph=retain)

    y.register_hook(inner)
    if retain:
        y.sum().backward()
    else:  # the inner walk has used y's own operation up
        with pytest.raises(RuntimeError, match="a second time through mul"):
            y.sum().backward()
    assert seen == [[1.0, 1.0], [4.0, 8.0]] and y.grad.tolist() == [5.0, 9.0]
    assert x.grad.tolist() == ([10.0, 18.0] if retain else [8.0, 16.0])
    thread = threading.Thread(target=lambda: (x * y.detach()).sum().backward())
    thread.start()  # nothing is claimed any more
    thread.join()
    assert x.grad.tolist() == ([12.0, 22.0] if retain else [10.0, 20.0])


def test_a_hook_that_walks_back_to_itself_for_ever():
    x = leaf(1.0, 2.0)
    y = x * 2.0
    squares = (y * y).sum()
    y.register_hook(lambda grad: squares.backward())
    with pytest.raises(RuntimeError, match="a second time through sum"):
        y.sum().backward()
    assert x.grad is None
    (x * 3.0).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_walks_within_walks_that_return_to_one_tensor():
    x = leaf(1.0)
    y = x * 2.0
    losses = [(y * factor).sum() for factor in (10.0, 100.0, 1000.0)]

    def inner(grad):
        if losses:
            losses.pop().backward(retain_graph=True)

    y.register_hook(inner)
    y.sum().backward()
    assert not losses and x.grad.tolist() == [2222.0]


def test_what_was_turned_off_and_on_is_as_before():
    w = leaf(1.0, 2.0)
    w.grad = attnnet.Tensor([10.0, 10.0])
    seen = []
    handle = w.register_hook(lambda grad: seen.append(grad.tolist()))
    loss = (w * 2.0).sum()
    w.requires_grad_(False)
    assert w.is_leaf and not w.requires_grad and not (w * 2.0).requires_grad
    assert w.grad.tolist() == [10.0, 10.0]  # still there, as in PyTorch
    loss.backward(retain_graph=True)
    assert w.grad.tolist() == [10.0, 10.0]  # but nothing is added
    twin = copy.deepcopy(w)
    assert twin.grad.tolist() == [10.0, 10.0] and not twin.requires_grad
    w.requires_grad_()
    loss.backward(retain_graph=True)
    assert w.grad.tolist() == [12.0, 12.0] and seen == [[2.0, 2.0]] * 2
    w.requires_grad_(False)
    handle.remove()
    w.grad = None
    w.requires_grad_(True)
    loss.backward()
    assert w.grad.tolist() == [2.0, 2.0] and len(seen) == 2


def test_what_is_turned_off_is_freed_with_its_tensor():
    before = in_use()
    w = attnnet.Tensor(np.ones(1 << 16), requires_grad=True)
    w.grad = attnnet.Tensor(np.ones(1 << 16))
    w.register_hook(lambda grad, held=w: None)  # a circle
    gone = weakref.ref(w)
    w.requires_grad_(False)
    del w
    gc.collect()
    assert gone() is None and in_use() == before


def test_an_explanation_leaves_the_loss_to_go_backward():
    net = attnnet.nn.Sequential(
        attnnet.nn.Conv2d(3, 5, 3), attnnet.nn.ReLU(), attnnet.nn.AdaptiveAvgPool2d(1),
        attnnet.nn.Flatten(), attnnet.nn.Linear(5, 4))
    x = attnnet.Tensor(np.random.default_rng(1).random((2, 3, 8, 8)))
    gradients = []
    for explained in (False, True):
        net.zero_grad()
        loss = (net(x) * 2.0).sum()
        if explained:
            attnnet.explain.cam(net, x, layers="1")
        loss.backward()
        gradients.append([p.grad.numpy() for p in net.parameters()])
    assert all(map(np.array_equal, *gradients))


def test_a_hook_may_look_at_its_tensor_as_it_goes():
    x, seen = leaf(1.0), []

    class Hook:
        def __call__(self, grad):
            pass

        def __del__(self):
            seen.append((x.requires_grad, x.grad.tolist()))

    x.grad = attnnet.Tensor([3.0])
    handle = x.register_hook(Hook())
    x.requires_grad = False
    gc.collect()
    assert seen == []
    handle.remove()
    assert seen == [(False, [3.0])]


@pytest.mark.parametrize("write", [lambda z: z.copy_([5.0]), lambda z: z.zero_()])
def test_results_are_not_written_to_where_gradients_are_recorded(write):
    y = leaf(1.0)
    z = y * 2.0
    with pytest.raises(RuntimeError, match=r"_: the tensor is a result of mul, .* no_grad"):
        write(z)
    assert z.tolist() == [2.0]
    with attnnet.no_grad():
        write(z)
    write(y)
    write(z.detach())


def test_a_gradient_wanted_too_late_is_not_recorded():
    """The gather stands for another thread, which may turn gradients on during an operation."""
    shape = (2, 16, 4, 4)
    x, residual = attnnet.Tensor(np.ones(shape)), attnnet.Tensor(np.ones(shape))
    weight = attnnet.Tensor(np.full((16, 16, 1, 1), 0.1))

    def late(own):
        for tensor in (x, residual, weight):
            tensor.requires_grad_(True)
        return own

    def fused():
        return attnnet._core.conv2d_batch_norm(
            x, weight, None, None, (1, 1), (0, 0), 1, None, None, None, None, residual, True, 0.1,
            True, 1e-5, False)[0]

    def plain():
        return attnnet.functional.batch_norm(x, None, None, training=True, residual=residual,
                                             relu=True)

    for work in (plain, fused):
        for tensor in (x, residual, weight):
            tensor.requires_grad_(False)
        attnnet._core.set_peers(late, 1, 2, 0)
        try:
            y = work()
        finally:
            attnnet._core.set_peers(None, 1, 0, 0)
        assert x.requires_grad and not y.requires_grad
        work().sum().backward()
        assert residual.grad is not None


def test_gradients_turned_on_by_another_thread():
    x = attnnet.Tensor(np.random.default_rng(0).standard_normal((8, 16, 32, 32)))
    end = threading.Event()

    def turn():
        while not end.is_set():
            x.requires_grad_(False)
            time.sleep(0)
            x.requires_grad_(True)
            time.sleep(0)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        for _ in range(300):
            y = attnnet.functional.max_pool2d(x, 2)
            if y.requires_grad:
                y.sum().backward()
    finally:
        end.set()
        thread.join()


def test_interrupt_ends_a_backward_walk():
    x = leaf(*np.ones(1000))
    y = x
    for _ in range(200_000):
        y = y * 1.0
    timer = threading.Timer(0.05, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    start = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in range(1000):
                y.sum().backward(retain_graph=True)
        assert time.perf_counter() - start < 1.0
    finally:
        timer.cancel()
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.numpy()[0] == 2.0


def test_hooks_may_remove_hooks_while_they_run():
    x = leaf(1.0, 2.0)
    seen, handles = [], {}

    def hook(name, *gone):
        def call(grad):
            seen.append(name)
            for other in gone:
                handles.pop(other).remove()

        handles[name] = x.register_hook(call)

    hook("itself", "itself")
    hook("the next", "gone")
    hook("gone")
    hook("both", "the next", "both")
    hook("last")
    for expected in (["itself", "the next", "both", "last"], ["last"]):
        seen.clear()
        (x * 2).sum().backward()
        assert seen == expected


def test_hook_may_take_the_leaf_off_the_tape():
    x = leaf(3.0)
    x.register_hook(lambda grad: x.requires_grad_(False) and None)
    x.backward(attnnet.Tensor([1.0]))
    assert x.grad is None and not x.requires_grad


@pytest.mark.skipif(processes.UNDER_ASAN, reason="a fork leaves AddressSanitizer's own lock behind")
def test_a_forked_child_trains_what_another_thread_was_at():
    """The child has no thread that could give back what was claimed when it was forked."""
    w, claimed, end = leaf(1.0, 2.0), threading.Event(), threading.Event()
    other = leaf(1.0)

    def wait(grad):
        claimed.set()
        end.wait(60)

    y = other * 1.0
    y.register_hook(wait)  # runs when w's gradient is gathered, as y is older
    loss = (w * y).sum()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    assert claimed.wait(60)
    with pytest.raises(RuntimeError, match="another thread"):
        (w * 3.0).sum().backward()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        (w * 3.0).sum().backward()
        right = w.grad.tolist() == [3.0, 3.0]
        errors = []

        def again():
            try:
                (w * 3.0).sum().backward()
            except RuntimeError as error:
                errors.append(error)

        later = threading.Thread(target=again)
        later.start()
        later.join()
        os._exit(0 if right and not errors and w.grad.tolist() == [6.0, 6.0] else 1)
    status = os.waitpid(pid, 0)[1]
    end.set()
    thread.join()
    assert status == 0 and w.grad.tolist() == [1.0, 1.0]


@pytest.mark.skipif(processes.UNDER_ASAN, reason="a fork leaves AddressSanitizer's own lock behind")
def test_a_walk_goes_on_in_a_child_that_its_hook_forked():
    x = leaf(1.0, 2.0)
    y = x * 2.0
    pids = []
    y.register_hook(lambda grad: pids.append(os.fork()))
    (x * 5.0 + y).sum().backward()
    if pids == [0]:
        os._exit(0 if x.grad.tolist() == [7.0, 7.0] else 1)
    assert os.waitpid(pids[0], 0)[1] == 0 and x.grad.tolist() == [7.0, 7.0]
