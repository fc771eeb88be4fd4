"""The tensor that users see: methods and operators over the core's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import _core

if TYPE_CHECKING:
    from types import EllipsisType

    from numpy.typing import DTypeLike, NDArray

    from .operands import Integers, Operand

_Item: TypeAlias = "int | slice | EllipsisType | None"
Index: TypeAlias = "_Item | tuple[_Item, ...]"

# NumPy before 2.1 cannot say in DLPack that an array is read-only.
_NUMPY_MARKS_READ_ONLY = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 1)


class HookHandle:
    """What registering a hook returns; :meth:`remove` takes the hook off again."""

    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove: Callable[[], None] | None = remove

    def remove(self) -> None:
        """Takes the hook off; a second call does nothing."""
        if self._remove is not None:
            self._remove()
            self._remove = None


class Tensor(_core.Tensor):
    """A float32 array that can be differentiated.

    Args:
        data: anything NumPy can make an array of; copied, converted to float32.
        requires_grad: whether gradients are computed for it (default False).

    Raises:
        TypeError: for data that holds no real numbers.
        MemoryError: where memory is out, or the limit of ``set_memory_limit`` is reached.

    Attributes ``shape``, ``ndim``, ``requires_grad``, ``grad``, ``is_leaf``, ``grad_fn``,
    ``layout`` and ``version`` are described at the core's type.
    """

    __slots__ = ()

    # Gradients

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets ``requires_grad`` in place and returns the tensor."""
        self.requires_grad = requires_grad
        return self

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Calls ``hook(grad)`` when the tensor's gradient is complete; what it returns, if not
        None, takes the gradient's place.

        Raises:
            RuntimeError: where the tensor requires no gradient.
            TypeError: where ``hook`` cannot be called.
        """
        number = self._add_hook(hook)
        return HookHandle(lambda: self._remove_hook(number))

    # Sizes and values

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Always ``numpy.float32``."""
        return np.dtype(np.float32)

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix."""
        return self.transpose(-2, -1)

    def size(self, dim: int | None = None) -> tuple[int, ...] | int:
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of dimensions."""
        return self.ndim

    def numel(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def item(self) -> float:
        """The value of a tensor of one element.

        Raises:
            ValueError: where it has more or fewer elements.
        """
        if self.numel() != 1:
            raise ValueError(f"item: only a tensor of one element has it, this has {self.shape}")
        return float(self.numpy().reshape(-1)[0])

    def tolist(self) -> Any:
        """Nested lists of Python floats."""
        return self.numpy().tolist()

    def __float__(self) -> float:
        return self.item()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.item())

    def __array__(self, dtype: DTypeLike | None = None,
                  copy: bool | None = None) -> NDArray[Any]:
        array = self.numpy()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, *, stream: None = None, max_version: tuple[int, int] | None = None,
                   dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> Any:
        """The tensor's values as a DLPack capsule, for ``numpy.from_dlpack`` and the like.

        A consumer that knows DLPack 1.0 (NumPy from 2.1, PyTorch as it is today) gets the
        tensor's own memory, marked read-only, because a write there would not raise ``version``;
        a tensor in the blocked layout is converted to a copy first. NumPy's array cannot be
        written to then; PyTorch does not look at the mark: there, write to a ``clone()`` only.
        Older consumers cannot be told, so they get a copy.

        Args:
            stream: None; memory is the CPU's.
            max_version: the newest DLPack that the consumer knows, (major, minor), or None.
            dl_device: None or (1, 0), the CPU.
            copy: True for a copy that may be written to, False for an error in place of one.

        Raises:
            BufferError: ``copy=False`` where there is no other way, or another device.
        """
        array = self.numpy()
        if max_version is not None and max_version[0] >= 1 and _NUMPY_MARKS_READ_ONLY:
            if copy is False and self.layout != "plain":
                raise BufferError("a tensor in the blocked layout can only be exported as a copy")
            return array.__dlpack__(max_version=max_version, dl_device=dl_device, copy=copy)
        if copy is False or dl_device not in (None, (1, 0)):
            raise BufferError("to consumers before DLPack 1.0 only a copy on the CPU is exported")
        return array.copy().__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", threshold=200, prefix="tensor(")
        tail = f", grad_fn={self.grad_fn}" if self.grad_fn else (
            ", requires_grad=True" if self.requires_grad else "")
        shape = f", shape={self.shape}" if self.numel() > 200 or self.numel() == 0 else ""
        return f"tensor({text}{shape}{tail})"

    def _repr_html_(self) -> str:
        """For notebooks: shape, what the tape knows, and how the values are spread."""
        from html import escape

        from .markup import folded, table

        values = self.numpy()
        facts = {"shape": " x ".join(map(str, self.shape)) or "a single value"}
        finite = values[np.isfinite(values)]
        if values.size == 1:
            facts["value"] = f"{self.item():.6g}"
        elif finite.size:
            facts["minimum, mean, maximum"] = (
                f"{finite.min():.4g}, {finite.mean(dtype=np.float64):.4g}, {finite.max():.4g}")
            facts["standard deviation"] = f"{finite.std(dtype=np.float64):.4g}"
        if finite.size < values.size:
            facts["not finite"] = (
                f"{values.size - finite.size:,} of {values.size:,}, which the figures leave out")
        if self.grad_fn:
            facts["made by"] = self.grad_fn
        facts["gradient"] = ("there" if self.is_leaf and self.grad is not None else
                             "wanted" if self.requires_grad else "none")
        shown = f"<pre>{escape(np.array2string(values, threshold=50, precision=4))}</pre>"
        few = 1 < values.size <= 50
        return ("<b>Tensor</b>" + table((), facts.items())
                + folded("values", shown, is_open=few) * (values.size > 1))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), np.array(self.numpy()), self.requires_grad and self.is_leaf)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("deepcopy: only leaf tensors can be copied; detach() this one first")
        grad = self.grad  # which one that is frozen keeps
        twin = type(self)(self, requires_grad=self.requires_grad or grad is not None)
        memo[id(self)] = twin
        if grad is not None:
            twin.grad = Tensor(grad)
        return twin.requires_grad_(self.requires_grad)

    def __copy__(self) -> Tensor:
        return type(self)(self, requires_grad=self.requires_grad and self.is_leaf)

    def clone(self) -> Tensor:
        """A copy through which gradients flow."""
        return F.mul(self, 1.0)

    # Operators

    def __neg__(self) -> Tensor:
        return _core.unary("neg", self)

    def __add__(self, other: Operand) -> Tensor:
        return F.add(self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return F.add(other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return F.sub(self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return F.sub(other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return F.mul(self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return F.mul(other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return F.div(self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return F.div(other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return F.pow(self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return F.pow(other, self)

    def __matmul__(self, other: Operand) -> Tensor:
        return F.matmul(self, other)

    def __rmatmul__(self, other: Operand) -> Tensor:
        return F.matmul(other, self)

    def __abs__(self) -> Tensor:
        return F.abs(self)

    # NumPy must not take `array * tensor` apart element by element.
    __array_ufunc__ = None

    def __getitem__(self, index: Index) -> Tensor:
        return _index(self, index)

    # Methods of the functions that take the tensor first

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """:func:`attnnet.functional.reshape`; sizes as one tuple or one by one."""
        return F.reshape(self, _as_sizes(shape))

    view = reshape

    def flatten(self, start_dim: int = 0) -> Tensor:
        """:func:`attnnet.functional.flatten`, from the first dimension by default."""
        return F.flatten(self, start_dim)

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """:func:`attnnet.functional.permute`; dimensions as one tuple or one by one."""
        return F.permute(self, _as_sizes(dims))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Swaps two dimensions."""
        order = list(range(self.ndim))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return F.permute(self, order)

    def unsqueeze(self, dim: int) -> Tensor:
        """Inserts a dimension of size 1 at position ``dim``.

        Raises:
            IndexError: where there is no such position.
        """
        at = _in_range(dim, self.ndim + 1)
        return F.reshape(self, (*self.shape[:at], 1, *self.shape[at:]))

    def squeeze(self, dim: int | None = None) -> Tensor:
        """Drops dimensions of size 1: all of them, or the one named.

        Raises:
            IndexError: where there is no such dimension.
        """
        if dim is None:
            return F.reshape(self, [n for n in self.shape if n != 1])
        at = _in_range(dim, max(self.ndim, 1))
        if self.shape[at:at + 1] != (1,):  # of one without any there is none at 0 and -1
            return self
        return F.reshape(self, self.shape[:at] + self.shape[at + 1:])

    if TYPE_CHECKING:  # the functions of the same names; set behind the class

        def relu(self) -> Tensor: ...
        def sigmoid(self) -> Tensor: ...
        def tanh(self) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def abs(self) -> Tensor: ...
        def clamp(self, min: float | None = None, max: float | None = None) -> Tensor: ...
        def pow(self, b: Operand) -> Tensor: ...
        def matmul(self, b: Operand) -> Tensor: ...
        def softmax(self, dim: int) -> Tensor: ...
        def log_softmax(self, dim: int) -> Tensor: ...
        def sum(self, dim: Integers | None = None, keepdim: bool = False) -> Tensor: ...
        def mean(self, dim: Integers | None = None, keepdim: bool = False) -> Tensor: ...
        def amax(self, dim: Integers | None = None, keepdim: bool = False) -> Tensor: ...
        def amin(self, dim: Integers | None = None, keepdim: bool = False) -> Tensor: ...
        def var(self, dim: Integers | None = None, correction: int = 1,
                keepdim: bool = False) -> Tensor: ...
        def split(self, size_or_sections: Integers, dim: int = 0) -> list[Tensor]: ...


def _in_range(dim: int, count: int) -> int:
    """A dimension counted from the front; PyTorch's words where there is none."""
    if not -count <= dim < count:
        raise IndexError(f"Dimension out of range (expected to be in range of "
                         f"[{-count}, {count - 1}], but got {dim})")
    return dim % count


def _as_sizes(sizes: tuple[Any, ...]) -> Sequence[int]:
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        return sizes[0]
    return sizes


def _rebuild(cls: type[Tensor], array: NDArray[np.float32], requires_grad: bool) -> Tensor:
    return cls(array, requires_grad=requires_grad)


def _index(x: Tensor, index: Index) -> Tensor:
    """x[index] for integers, slices, None and Ellipsis: one strided copy, then a reshape."""
    items = list(index) if isinstance(index, tuple) else [index]
    used = sum(item is not None and item is not Ellipsis for item in items)
    if used > x.ndim or items.count(Ellipsis) > 1:
        raise IndexError(f"too many indices: {used} for a tensor of {x.ndim} dimensions")
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    items[at:at + 1] = [slice(None)] * (x.ndim - used)
    start: list[int] = []
    step: list[int] = []
    size: list[int] = []
    shape: list[int] = []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        length = x.shape[axis]
        if isinstance(item, slice):
            begin, end, stride = item.indices(length)
            count = len(range(begin, end, stride))
            shape.append(count)
        elif isinstance(item, (int, np.integer)) and not isinstance(item, bool):
            if not -length <= item < length:
                raise IndexError(
                    f"index {item} is out of range for dimension {axis} of size {length}"
                )
            begin, stride, count = int(item) % length, 1, 1
        else:
            raise TypeError(f"tensor indices are integers, slices, None or ..., got "
                            f"{type(item).__name__}")
        start.append(begin)
        step.append(stride)
        size.append(count)
        axis += 1
    return F.reshape(_core.slice(x, start, step, size), shape)


def tensor(data: Operand, requires_grad: bool = False) -> Tensor:
    """A new :class:`Tensor` with a copy of ``data`` as float32."""
    return Tensor(data, requires_grad=requires_grad)


def from_dlpack(x: Any) -> Tensor:
    """A new :class:`Tensor` with a copy of a CPU array of any library that speaks DLPack.

    Args:
        x: has ``__dlpack__``; of real numbers, in any strides.

    Raises:
        TypeError: it does not speak DLPack.
        BufferError: it is on another device, or takes part in another library's gradients.
    """
    try:
        return Tensor(np.from_dlpack(x))
    except AttributeError as error:
        raise TypeError(f"from_dlpack: a {type(x).__name__} does not speak DLPack") from error


from . import functional as F  # noqa: E402  (functions and methods name each other)

for _name in ("relu", "sigmoid", "tanh", "exp", "log", "sqrt", "abs", "clamp", "pow", "softmax",
              "log_softmax", "sum", "mean", "var", "amax", "amin", "split", "matmul"):
    setattr(Tensor, _name, getattr(F, _name))

_core.set_result_class(Tensor)
