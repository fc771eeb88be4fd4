"""What NumPy may hand over: strided, misaligned, read-only, byte-swapped, empty, wrong."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from reference import ops
from reference.compare import assert_close
from reference.harness import draw

import attnnet
from attnnet import functional as F

BASE = draw(1, 4, 6, 5)


def misaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)[1:]
    out = memory.view(np.float32).reshape(x.shape)
    out[...] = x
    assert not out.flags.aligned
    return out


def read_only(x):
    out = x.copy()
    out.flags.writeable = False
    return out


FORMS = {
    "contiguous": lambda x: x,
    "fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strided": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
    "misaligned": misaligned,
    "read-only": read_only,
    "big-endian": lambda x: x.astype(">f4"),
    "float64": lambda x: x.astype(np.float64),
    "list": lambda x: x.tolist(),
    "float16": lambda x: x.astype(np.float16),
    "subclass": lambda x: np.ma.masked_array(x),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tensor(form):
    x = np.round(BASE * 64) / 64  # exact in float16 as well
    given = FORMS[form](x)
    before = sys.getrefcount(given)
    tensor = attnnet.Tensor(given)
    np.testing.assert_array_equal(tensor.numpy(), x)
    assert tensor.numpy().dtype == np.float32
    del tensor
    assert sys.getrefcount(given) == before
    np.testing.assert_array_equal(np.asarray(given, np.float32), x)


def test_broadcast_views_are_copied_out():
    x = np.broadcast_to(np.float32(2.5), (3, 4))
    np.testing.assert_array_equal(attnnet.Tensor(x).numpy(), x)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint16, bool])
def test_integers_and_booleans(dtype):
    x = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    np.testing.assert_array_equal(attnnet.Tensor(x).numpy(), x.astype(np.float32))


@pytest.mark.parametrize(
    "data",
    [np.ones(3, complex), np.array(["a", "b"]), np.array([None, 1]), "text", [[1, 2], [3]]],
    ids=["complex", "strings", "objects", "text", "ragged"],
)
def test_what_is_no_number_is_refused(data):
    with pytest.raises((TypeError, ValueError)):
        attnnet.Tensor(data)


def test_more_axes_than_there_can_be_are_refused():
    with pytest.raises(ValueError, match="9"):
        attnnet.Tensor(np.ones((1,) * 9))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4), (0, 16, 4, 4)], ids=str)
def test_empty(shape):
    tensor = attnnet.Tensor(np.zeros(shape))
    assert tensor.shape == shape and tensor.numel() == 0
    assert (tensor + 1).shape == shape
    assert tensor.sum().item() == 0.0


def test_the_tensor_is_a_copy():
    x = BASE.copy()
    tensor = attnnet.Tensor(x)
    x[...] = 0
    np.testing.assert_array_equal(tensor.numpy(), BASE)


def test_numpy_is_read_only_and_outlives_the_tensor():
    view = attnnet.Tensor(BASE).numpy()  # the tensor itself is gone
    with pytest.raises(ValueError):
        view[...] = 0
    np.testing.assert_array_equal(view, BASE)


def test_array_protocol():
    tensor = attnnet.Tensor(BASE)
    np.testing.assert_array_equal(np.asarray(tensor), BASE)
    assert np.asarray(tensor, dtype=np.float64).dtype == np.float64
    copy = np.array(tensor)
    copy[...] = 0
    np.testing.assert_array_equal(tensor.numpy(), BASE)


def test_dlpack():
    np.testing.assert_array_equal(np.from_dlpack(attnnet.Tensor(BASE)), BASE)


def test_copy_writes_from_every_form():
    for name, form in FORMS.items():
        x = np.round(BASE * 64) / 64
        tensor = attnnet.Tensor(np.zeros_like(x))
        version = tensor.version
        tensor.copy_(form(x))
        np.testing.assert_array_equal(tensor.numpy(), x, name)
        assert tensor.version > version
    with pytest.raises(ValueError, match=r"\(4, 6, 4\)"):
        tensor.copy_(np.zeros((4, 6, 4)))


def test_operations_leave_no_references():
    """A step run many times holds on to nothing of its inputs."""
    tensor = attnnet.Tensor(draw(1, 2, 16, 5, 5), requires_grad=True)
    weight = attnnet.Tensor(draw(2, 16, 16, 3, 3), requires_grad=True)
    before = sys.getrefcount(tensor), sys.getrefcount(weight)
    for _ in range(5):
        F.relu(F.conv2d(tensor, weight, padding=1)).sum().backward()
    assert (sys.getrefcount(tensor), sys.getrefcount(weight)) == before


def test_failed_calls_leave_no_references():
    tensor = attnnet.Tensor(draw(1, 2, 16, 5, 5), requires_grad=True)
    before = sys.getrefcount(tensor)
    for call in (
        lambda: F.conv2d(tensor, attnnet.Tensor(np.ones((3, 5, 3, 3)))),
        lambda: F.reshape(tensor, (7,)),
        lambda: F.max_pool2d(tensor, 9),
        lambda: F.sum(tensor, 9),
        lambda: F.cat([tensor, attnnet.Tensor(np.ones(3))]),
    ):
        for _ in range(3):
            with pytest.raises((ValueError, IndexError)):
                call()
    assert sys.getrefcount(tensor) == before


def test_a_chain_of_everything():
    """One small network of plain operations, values and gradients from end to end."""
    arrays = [draw(1, 3, 3, 8, 8), draw(2, 16, 3, 3, 3) * 0.3, draw(3, 5, 16), draw(4, 5)]
    target = np.array([1, 4, 0])

    def ours(x, w, v, b):
        h = F.max_pool2d(F.tanh(F.conv2d(x, w, padding=1)), 2)
        g = F.sigmoid(h.mean((2, 3), keepdim=True))
        return F.cross_entropy(F.linear((h * g).sum((2, 3)), v, b), target)

    def theirs(x, w, v, b):
        conv, b0 = ops.conv2d(x, w, padding=1)
        act, b1 = ops.tanh(conv)
        h, b2 = ops.max_pool2d(act, 2)
        pooled, b3 = ops.mean(h, (2, 3), True)
        g, b4 = ops.sigmoid(pooled)
        gated, b5 = ops.mul(h, g)
        total, b6 = ops.sum(gated, (2, 3))
        logits, b7 = ops.linear(total, v, b)
        loss, b8 = ops.cross_entropy(logits, target)

        def backward(dy):
            dtotal, dv, db = b7(*b8(dy))
            dh, dg = b5(*b6(dtotal))
            dh = dh + b3(*b4(dg))[0]
            dx, dw, _ = b0(*b1(*b2(dh)))
            return dx, dw, dv, db

        return loss, backward

    tensors = [attnnet.Tensor(a, requires_grad=True) for a in arrays]
    loss = ours(*tensors)
    expected, backward = theirs(*(a.astype(np.float64) for a in arrays))
    assert_close(loss, expected, 200, "loss")
    loss.backward()
    names = ("x", "conv weight", "linear weight", "linear bias")
    for name, t, g in zip(names, tensors, backward(1.0), strict=True):
        assert_close(t.grad, g, 200, name)
