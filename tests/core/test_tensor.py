"""The Tensor: construction from anything, views and copies, errors, pickling, memory."""

import copy
import gc
import pickle
import re
import sys
import weakref

import numpy as np
import pytest
from reference.memory import in_use

import attnnet
from attnnet import _core


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i1", "u1", "i8", "?", ">f4", ">i4"])
def test_takes_real_dtypes_and_byte_orders(dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype)
    before = array.copy()
    x = attnnet.Tensor(array)
    assert x.shape == (2, 3) and x.dtype == np.float32
    assert np.array_equal(x.numpy(), array.astype("f4"))
    assert np.array_equal(array, before)


def test_takes_strided_misaligned_readonly_and_empty_arrays():
    base = np.arange(60, dtype="f4").reshape(3, 4, 5)
    for array in (base[:, ::2, ::-1], base.T, base[1:1], np.float32(3.0), [], [[1, 2]]):
        assert np.array_equal(attnnet.Tensor(array).numpy(), np.asarray(array, dtype="f4"))
    raw = np.zeros(41, dtype="u1")
    misaligned = raw[1:].view("f4")
    misaligned[:] = np.arange(10)
    misaligned.flags.writeable = False
    assert np.array_equal(attnnet.Tensor(misaligned).numpy(), np.arange(10, dtype="f4"))


@pytest.mark.parametrize("data", ["text", [1j], [None], [[1, 2], [3]], object()])
def test_refuses_what_holds_no_real_numbers(data):
    with pytest.raises((TypeError, ValueError)):
        attnnet.Tensor(data)


def test_refuses_too_many_dimensions():
    with pytest.raises(ValueError, match="at most 8 dimensions"):
        attnnet.Tensor(np.zeros((1,) * 9))


def test_numpy_is_a_readonly_view_of_plain_memory():
    x = attnnet.Tensor([1.0, 2.0])
    view = x.numpy()
    with pytest.raises(ValueError):
        view[0] = 5
    x.copy_([3.0, 4.0])
    assert view.tolist() == [3.0, 4.0]
    del x
    gc.collect()
    assert view.tolist() == [3.0, 4.0], "the view keeps the memory alive"


def test_blocked_layout_holds_the_same_values():
    array = np.arange(2 * 32 * 3 * 5, dtype="f4").reshape(2, 32, 3, 5)
    blocked = _core.to_layout(attnnet.Tensor(array), "blocked16")
    assert blocked.layout == "blocked16" and blocked.shape == array.shape
    assert np.array_equal(blocked.numpy(), array)
    assert np.array_equal(_core.to_layout(blocked, "plain").numpy(), array)
    odd = _core.to_layout(attnnet.Tensor(array[:, :20]), "blocked16")
    assert odd.layout == "plain", "only multiples of 16 channels can be blocked"


def test_copy_checks_the_shape_and_raises_the_version():
    x = attnnet.Tensor([1.0, 2.0])
    version = x.version
    with pytest.raises(ValueError, match=r"source has shape \(3,\), the tensor has \(2,\)"):
        x.copy_([1, 2, 3])
    assert x.version == version
    assert x.copy_([5, 6]) is x and x.version > version
    x.zero_()
    assert x.tolist() == [0.0, 0.0]


def test_item_bool_float_len():
    assert attnnet.Tensor(2.5).item() == 2.5 and float(attnnet.Tensor([[2.5]])) == 2.5
    assert len(attnnet.Tensor(np.zeros((4, 2)))) == 4
    with pytest.raises(ValueError, match="one element"):
        attnnet.Tensor([1, 2]).item()
    with pytest.raises(TypeError):
        len(attnnet.Tensor(1.0))


def test_interchange():
    x = attnnet.Tensor([[1.0, 2.0]], requires_grad=True)
    assert np.asarray(x).tolist() == [[1.0, 2.0]]
    assert np.asarray(x, dtype="f8").dtype == np.float64
    capsule = np.from_dlpack(x)
    assert capsule.tolist() == [[1.0, 2.0]]
    assert isinstance(np.ones(2, "f4") * attnnet.Tensor([1, 2]), attnnet.Tensor)


def test_pickle_and_copy():
    x = attnnet.Tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    y = pickle.loads(pickle.dumps(x))
    assert y.tolist() == x.tolist() and y.requires_grad
    z = copy.deepcopy(x)
    z.copy_([0, 0])
    assert x.tolist() == [1.0, 2.0] and z.grad.tolist() == [2.0, 4.0]
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(x * 2)


def test_indexing_like_numpy():
    array = np.arange(2 * 3 * 4 * 5, dtype="f4").reshape(2, 3, 4, 5)
    x = attnnet.Tensor(array)
    for index in (0, -1, (1, 2), slice(None, None, -1), (..., 0), (0, ..., slice(1, 4, 2)),
                  (slice(None), None, 1), (slice(5, 2),), (0, 0, 0, 0)):
        assert np.array_equal(x[index].numpy(), array[index]), index
    for index in (2, (0, 0, 0, 0, 0), (..., ...)):
        with pytest.raises(IndexError):
            x[index]
    with pytest.raises(TypeError, match="integers, slices"):
        x[[0, 1]]


def test_weak_references_and_reference_counts():
    x = attnnet.Tensor([1.0])
    ref = weakref.ref(x)
    count = sys.getrefcount(x)
    for _ in range(100):
        _ = (x + x, x.numpy(), x.detach(), x.shape, x.grad)
    del _
    assert sys.getrefcount(x) == count
    del x
    assert ref() is None


def test_memory_is_counted_limited_and_returned():
    attnnet.empty_cache()
    before = in_use()
    x = attnnet.Tensor(np.zeros(1 << 16))
    assert in_use() - before >= 4 << 16
    attnnet.set_memory_limit(in_use() + 1000)
    try:
        with pytest.raises(MemoryError, match=r"262144 bytes were asked for .* allowed"):
            x + x
    finally:
        attnnet.set_memory_limit(0)
    assert (x + x).shape == x.shape
    del x
    assert in_use() == before
    with pytest.raises(ValueError, match="set_memory_limit: bytes is -1"):
        attnnet.set_memory_limit(-1)


def test_impossible_sizes_are_refused_without_harm():
    x = attnnet.Tensor(np.zeros((1, 1)))
    with pytest.raises(MemoryError):
        attnnet.functional.pad(x, (0, 1 << 40, 0, 1 << 40))


def test_html_for_notebooks():
    x = attnnet.tensor(np.array([[1.0, np.nan], [3.0, 4.0]], np.float32), requires_grad=True)

    def facts(tensor):
        cells = re.findall(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>", tensor._repr_html_())
        return dict(cells)

    assert facts(x)["shape"] == "2 x 2" and facts(x)["not finite"].startswith("1 of 4")
    assert facts(x)["minimum, mean, maximum"] == "1, 2.667, 4"  # of the others
    assert facts(x)["gradient"] == "wanted" and "<details open>" in x._repr_html_()
    y = (x * x).sum()
    assert facts(y)["made by"] == "sum" and facts(y)["shape"] == "a single value"
    assert "<details" not in y._repr_html_()
    y.backward()
    assert facts(x)["gradient"] == "there"
    assert facts(attnnet.tensor(np.zeros((0, 3), np.float32)))["shape"] == "0 x 3"
    many = attnnet.tensor(np.arange(100.0))._repr_html_()
    assert "<details><summary>values" in many
