"""Operations that look across a batch, where several processes share it: here threads stand for
them, because the peers of an operation are those of its thread."""

import threading

import numpy as np
import pytest

import attnnet
from attnnet import _core, nn
from attnnet import functional as F
from attnnet.nn.fused import conv_bn

IMAGES, CHANNELS, SIDE = 13, 32, 6
PARTS = {"even": (7, 6), "uneven": (1, 9, 3), "one has none": (8, 0, 5)}


class Meeting:
    """The gather of threads that all call it."""

    def __init__(self, ranks):
        self.given = [b""] * ranks
        self.barrier = threading.Barrier(ranks, timeout=600)

    def of(self, rank):
        def gather(own):
            self.given[rank] = own
            self.barrier.wait()
            everyone = b"".join(self.given)
            self.barrier.wait()
            return everyone

        return gather


def shared(parts, work):
    """[work(begin, end) of each part], each in a thread with the others as its peers; the one
    without images gets the batch's first one, which is not to count."""
    meeting, results = Meeting(len(parts)), [None] * len(parts)

    def run(rank, first):
        _core.set_peers(meeting.of(rank), len(parts), parts[rank], first)
        try:
            attnnet.manual_seed(5)
            results[rank] = work(*((first, first + parts[rank]) if parts[rank] else (0, 1)))
        except BaseException as error:
            results[rank] = error
            meeting.barrier.abort()
        finally:
            _core.set_peers(None, 1, 0, 0)

    threads = [
        threading.Thread(target=run, args=(rank, sum(parts[:rank]))) for rank in range(len(parts))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return results


class Plain(nn.Module):
    """Row-major: channels that are no multiple of 16, a mean far from 0."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 10, 3, padding=1), nn.BatchNorm2d(10)

    def forward(self, x):
        return self.bn(self.conv(x[:, :3]) + 100.0)


class Fused(nn.Module):
    """Two convolutions, the first one's batch norm computed by the second, then an addition."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)

    def forward(self, x):
        y = conv_bn(x, self.conv1, self.bn1, relu=True, into=self.conv2)
        return conv_bn(y, self.conv2, self.bn2, residual=x, relu=True)


class Dropped(nn.Module):
    """15 values an image: parts begin where no group of random numbers does."""

    def forward(self, x):
        return F.dropout(F.dropout(x[:, :3, :5, 0], 0.4), 0.3)


def with_values(model):
    """The model with weights, also of batch norms, that are not all alike."""
    rng = np.random.default_rng(3)
    for parameter in model.parameters():
        parameter.copy_(rng.normal(0.0, 0.3, parameter.shape).astype(np.float32))
    return model


MODELS = {
    "plain": Plain,
    "fused": Fused,
    "sa": lambda: nn.SA(CHANNELS),
    "new": lambda: nn.NEW(CHANNELS),
    "cbam": lambda: nn.CBAM(CHANNELS),
    "dropout": Dropped,
}


def run_model(make, x, dy):
    """Output, gradient of x, gradients of the parameters, buffers, after a step on a batch."""
    model = with_values(make())
    images = attnnet.Tensor(x).requires_grad_()
    y = model(images)
    y.backward(attnnet.Tensor(dy))
    gradients = [p.grad.numpy() for p in model.parameters()]
    return y.numpy(), images.grad.numpy(), gradients, [np.array(b) for b in model.buffers()]


def close(got, expected):
    """Whether two arrays differ by no more than sums of a few thousand floats may."""
    scale = np.abs(expected).max() + 1e-30
    return np.abs(got.astype(np.float64) - expected).max() <= 2e-5 * scale


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("name", MODELS)
def test_parts_of_a_batch_equal_the_whole(name, parts):
    rng = np.random.default_rng(11)
    x = rng.normal(0.5, 1.0, (IMAGES, CHANNELS, SIDE, SIDE)).astype(np.float32)
    with attnnet.no_grad():
        shape = with_values(MODELS[name]())(attnnet.Tensor(x)).shape
    dy = rng.normal(0.2, 1.0, shape).astype(np.float32)
    attnnet.manual_seed(5)
    y, dx, gradients, buffers = run_model(MODELS[name], x, dy)

    def work(begin, end):
        stands_in = (begin, end) == (0, 1) and parts[0] != 1
        return run_model(MODELS[name], x[begin:end], dy[begin:end] * (not stands_in))

    results = shared(parts, work)
    counting = [result for result, images in zip(results, parts, strict=True) if images]
    assert close(np.concatenate([result[0] for result in counting]), y)
    assert close(np.concatenate([result[1] for result in counting]), dx)
    for at, expected in enumerate(gradients):
        # Of a convolution's bias before a batch norm the gradient is nothing but rounding.
        if np.abs(expected).max() > 1e-3:
            assert close(sum(result[2][at].astype(np.float64) for result in results), expected)
    for at, expected in enumerate(buffers):
        for result in results:
            assert close(result[3][at], expected)
            assert np.array_equal(result[3][at], results[0][3][at])  # to the bit


@pytest.mark.parametrize("name", ["fused", "new", "dropout"])
def test_the_same_parts_give_the_same_bits(name):
    rng = np.random.default_rng(2)
    x = rng.normal(0.5, 1.0, (IMAGES, CHANNELS, SIDE, SIDE)).astype(np.float32)
    with attnnet.no_grad():
        shape = with_values(MODELS[name]())(attnnet.Tensor(x)).shape
    dy = rng.normal(0.2, 1.0, shape).astype(np.float32)

    def work(begin, end):
        return run_model(MODELS[name], x[begin:end], dy[begin:end])

    one, two = shared((4, 9), work), shared((4, 9), work)
    for (y, dx, gradients, buffers), again in zip(one, two, strict=True):
        theirs = (again[0], again[1], *again[2], *again[3])
        assert all(map(np.array_equal, (y, dx, *gradients, *buffers), theirs))


def test_one_value_a_channel_is_enough_where_others_have_more():
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    whole = F.batch_norm(attnnet.Tensor(x), None, None, training=True).numpy()

    def work(begin, end):
        return F.batch_norm(attnnet.Tensor(x[begin:end]), None, None, training=True).numpy()

    assert close(np.concatenate(shared((1, 1, 1), work)), whole)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        shared((1, 0), work)


def test_dropout_of_what_is_no_part_of_a_batch():
    x = np.ones((50, 3), np.float32)
    attnnet.manual_seed(5)
    whole = F.dropout(attnnet.Tensor(x)).numpy()
    for got in shared((2, 4), lambda begin, end: F.dropout(attnnet.Tensor(x)).numpy()):
        assert np.array_equal(got, whole)


def test_an_error_of_the_gather_ends_the_operation():
    def fail(own):
        raise ZeroDivisionError("no connection")

    x = attnnet.Tensor(np.ones((2, 16, 4, 4), np.float32), requires_grad=True)
    y = F.batch_norm(x, None, None, training=True)
    wrong = [
        (fail, ZeroDivisionError, "no connection"),
        (lambda own: own, ValueError, r"gave 264 bytes, expected 528"),
        (lambda own: None, TypeError, "bytes-like"),
    ]
    try:
        for gather, error, words in wrong:
            _core.set_peers(gather, 2, 2, 0)
            with pytest.raises(error, match=words):
                F.batch_norm(x, None, None, training=True)
            with pytest.raises(error, match=words):
                y.sum().backward()
    finally:
        _core.set_peers(None, 1, 0, 0)
    F.batch_norm(x, None, None, training=True)


def test_a_gather_may_set_other_peers():
    x = attnnet.Tensor(np.ones((2, 16, 4, 4), np.float32), requires_grad=True)

    def more(own):
        _core.set_peers(more, 1 << 16, 2, 0)
        return own

    try:
        _core.set_peers(more, 1, 2, 0)
        y = F.batch_norm(x, None, None, training=True)
        _core.set_peers(more, 1, 2, 0)
        y.sum().backward()
    finally:
        _core.set_peers(None, 1, 0, 0)
    assert x.grad is not None


def test_a_gate_needs_more_than_one_value_of_the_whole_batch():
    sa = nn.SA()
    _core.set_peers(lambda own: own, 1, 1, 0)
    try:
        with pytest.raises(ValueError, match="more than one value in training, got 1 in the whole"):
            sa(attnnet.Tensor(np.ones((1, 16, 1, 1), np.float32)))
    finally:
        _core.set_peers(None, 1, 0, 0)
    assert all(np.isfinite(values).all() for values in sa.state_dict().values())


def test_peers_are_those_of_a_thread():
    x = attnnet.Tensor(np.ones((2, 16, 4, 4), np.float32))
    _core.set_peers(lambda own: 1 / 0, 2, 2, 0)
    try:
        thread_error = []

        def other():
            try:
                F.batch_norm(x, None, None, training=True)
            except ZeroDivisionError as error:
                thread_error.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert not thread_error
    finally:
        _core.set_peers(None, 1, 0, 0)


@pytest.mark.parametrize("arguments", [(None, 0, 1, 0), (print, 0, 1, 0), (print, 2, -1, 0),
                                       (print, 2, 1, -1), (3, 2, 1, 0)])  # fmt: skip
def test_what_cannot_be_is_refused(arguments):
    with pytest.raises((ValueError, TypeError)):
        _core.set_peers(*arguments)
