"""DLPack: shared memory where it is plain and the consumer knows of read-only, else a copy."""

import numpy as np
import pytest
from reference.harness import make
from reference.memory import in_use

import attnnet

NUMPY = tuple(map(int, np.__version__.split(".")[:2]))
needs_marks = pytest.mark.skipif(NUMPY < (2, 1), reason="NumPy before 2.1 has no read-only DLPack")


class Older:
    """A producer as consumers before DLPack 1.0 see it."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, stream=None, **_):
        return self.tensor.__dlpack__(stream=stream)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


@needs_marks
def test_numpy_shares_plain_memory_and_cannot_write():
    tensor = attnnet.Tensor(np.arange(6.0).reshape(2, 3))
    array = np.from_dlpack(tensor)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(array, tensor.numpy())
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 9
    tensor.copy_(np.ones((2, 3)))
    assert array.sum() == 6
    own = np.from_dlpack(tensor, copy=True)
    assert not np.shares_memory(own, tensor.numpy())
    if NUMPY >= (2, 2):  # 2.1 takes its own copy for read-only
        own[...] = 5
    assert tensor.tolist() == np.ones((2, 3)).tolist()


@needs_marks
def test_memory_outlives_the_tensor():
    before = in_use()
    array = np.from_dlpack(attnnet.Tensor(np.full(1000, 3.0)))
    assert in_use() > before and array.sum() == 3000
    for _ in range(50):
        np.from_dlpack(attnnet.Tensor(np.zeros(1000)))
    attnnet.Tensor(np.zeros(1000)).__dlpack__(max_version=(1, 0))  # a capsule that nobody takes
    del array
    assert in_use() == before


def test_older_consumers_get_a_copy():
    tensor = attnnet.Tensor([1.0, 2.0])
    array = np.from_dlpack(Older(tensor))
    assert not np.shares_memory(array, tensor.numpy())
    tensor.copy_([3, 4])
    assert array.tolist() == [1, 2]
    with pytest.raises(BufferError, match="only a copy"):
        tensor.__dlpack__(copy=False)
    with pytest.raises(BufferError):
        tensor.__dlpack__(dl_device=(2, 0))


def test_blocked_tensors_are_converted():
    values = np.random.default_rng(0).standard_normal((2, 16, 3, 2)).astype(np.float32)
    tensor = make(values, "blocked16")
    assert tensor.layout == "blocked16"
    assert np.array_equal(np.from_dlpack(tensor), values)
    if NUMPY >= (2, 1):
        with pytest.raises(BufferError, match="blocked"):
            tensor.__dlpack__(max_version=(1, 0), copy=False)


def test_with_torch():
    torch = pytest.importorskip("torch")
    tensor = attnnet.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    theirs = torch.from_dlpack(tensor)
    assert theirs.tolist() == tensor.tolist()
    if NUMPY >= (2, 1):
        assert theirs.data_ptr() == tensor.numpy().ctypes.data
    back = attnnet.from_dlpack(theirs.t())
    assert back.tolist() == tensor.T.tolist() and not back.requires_grad
    assert attnnet.from_dlpack(torch.arange(3)).tolist() == [0, 1, 2]
    assert attnnet.from_dlpack(torch.zeros(0, 3)).shape == (0, 3)
    with pytest.raises(BufferError):
        attnnet.from_dlpack(torch.ones(2, requires_grad=True))


def test_what_does_not_speak_dlpack():
    with pytest.raises(TypeError, match="list does not speak DLPack"):
        attnnet.from_dlpack([1, 2])
