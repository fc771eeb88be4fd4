"""The C core. Its functions take their arguments by position; ``attnnet.functional`` and the other
modules check, name and document them."""

from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self, disjoint_base

# Every result is an instance of the class that set_result_class has registered: this one.
from .tensor import Tensor as _Tensor

_Ints = tuple[int, ...] | list[int]
# A list or a tuple is all the core takes; None in it is refused by name.
_Tensors = Sequence[Tensor | None]
_Layout = Literal["plain", "blocked16"]
_Gates = tuple[_Tensor | None, _Tensor | None]
_Event = tuple[str, bool, int, int, int, tuple[tuple[int, ...], ...]]

class _Pass(TypedDict):
    block: int
    by_channels: bool
    shared_bytes: int
    worker_bytes: int

class _Plan(TypedDict):
    algorithm: str
    kept_bytes: int
    parts: int
    splits: int
    forward: _Pass
    backward: _Pass

class _Config(TypedDict):
    isa: str
    isa_available: list[str]
    threads: int
    blas: str
    blas_core: str
    blas_core_wanted: str | None
    compiler: str

@final
class _KeptWeights:  # a capsule
    ...

@disjoint_base
class Tensor:
    def __new__(cls, data: ArrayLike | Tensor, requires_grad: bool = False) -> Self: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def layout(self) -> _Layout: ...
    @property
    def version(self) -> int: ...
    @property
    def is_leaf(self) -> bool: ...
    @property
    def grad_fn(self) -> str | None: ...
    requires_grad: bool
    @property
    def grad(self) -> _Tensor | None: ...
    @grad.setter
    def grad(self, value: Tensor | None) -> None: ...
    def backward(
        self, gradient: Tensor | ArrayLike | None = None, retain_graph: bool = False
    ) -> None: ...
    def detach(self) -> _Tensor: ...
    def numpy(self) -> NDArray[np.float32]: ...
    def copy_(self, source: Tensor | ArrayLike, /) -> Self: ...
    def zero_(self) -> Self: ...
    def retain_grad(self) -> None: ...
    def _add_hook(self, hook: Callable[[_Tensor], Tensor | None], /) -> int: ...
    def _remove_hook(self, number: int, /) -> None: ...

# Single elements, two operands, reductions

def unary(
    kind: Literal["relu", "sigmoid", "tanh", "exp", "log", "sqrt", "abs", "neg"], x: Tensor, /
) -> _Tensor: ...
def clamp(x: Tensor, min: float, max: float, /) -> _Tensor: ...
def binary(
    kind: Literal["add", "sub", "mul", "div", "pow"], a: Tensor, b: Tensor, /
) -> _Tensor: ...
def reduce(
    kind: Literal["sum", "mean", "amax", "amin", "var"],
    x: Tensor,
    dim: _Ints,
    keepdim: bool,
    correction: int,
    /,
) -> _Tensor: ...

# Shapes

def reshape(x: Tensor, shape: _Ints, /) -> _Tensor: ...
def permute(x: Tensor, dims: _Ints, /) -> _Tensor: ...
def slice(x: Tensor, start: _Ints, step: _Ints, size: _Ints, /) -> _Tensor: ...
def pad(x: Tensor, before: _Ints, after: _Ints, value: float, /) -> _Tensor: ...
def concatenate(tensors: _Tensors, dim: int, /) -> _Tensor: ...
def to_layout(x: Tensor, layout: _Layout, /) -> _Tensor: ...

# Layers

def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    residual: Tensor | None,
    training: bool,
    relu: bool,
    momentum: float,
    eps: float,
    /,
) -> _Tensor: ...
def max_pool2d(x: Tensor, kernel_size: _Ints, stride: _Ints, padding: _Ints, /) -> _Tensor: ...
def avg_pool2d(
    x: Tensor, kernel_size: _Ints, stride: _Ints, padding: _Ints, count_include_pad: bool, /
) -> _Tensor: ...
def adaptive_pool2d(x: Tensor, height: int, width: int, maximum: bool, /) -> _Tensor: ...
def softmax(x: Tensor, dim: int, log: bool, /) -> _Tensor: ...
def cross_entropy(logits: Tensor, target: ArrayLike, label_smoothing: float, /) -> _Tensor: ...
def matmul(a: Tensor, b: Tensor, /) -> _Tensor: ...
def linear(x: Tensor, weight: Tensor, bias: Tensor | None, /) -> _Tensor: ...
def dropout(x: Tensor, p: float, seed: int, counter: int, /) -> _Tensor: ...
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: _Ints,
    padding: _Ints,
    groups: int,
    /,
) -> _Tensor: ...
def conv2d_fused(
    x: Tensor,
    weight: Tensor | _KeptWeights,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    stride: _Ints,
    padding: _Ints,
    groups: int,
    /,
) -> _Tensor: ...
def conv2d_batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    x_constants: Tensor | None,
    stride: _Ints,
    padding: _Ints,
    groups: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    residual: Tensor | None,
    training: bool,
    momentum: float,
    relu: bool,
    eps: float,
    defer: bool,
    /,
) -> tuple[_Tensor, _Tensor | None]: ...
def compute_deferred(y: Tensor, constants: Tensor, /) -> _Tensor: ...
def keep_weights(weight: Tensor, /) -> _KeptWeights: ...
def convolution_plan(
    x_shape: _Ints,
    weight_shape: _Ints,
    stride: _Ints,
    padding: _Ints,
    groups: int,
    keep: bool,
    /,
) -> _Plan: ...
def set_convolution_algorithm(name: str | None, /) -> None: ...
def convolution_algorithms() -> list[str]: ...

# Attention blocks; NAME_gates gives (channel gate, position gate)

def se(x: Tensor, w1: Tensor, w2: Tensor, relu: bool = False, /) -> _Tensor: ...
def se_gates(x: Tensor, w1: Tensor, w2: Tensor, relu: bool = False, /) -> _Gates: ...
def sec(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, relu: bool = False, /
) -> _Tensor: ...
def sec_gates(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, relu: bool = False, /
) -> _Gates: ...
def ca(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    pool_types: tuple[str, ...] | list[str],
    relu: bool = False,
    /,
) -> _Tensor: ...
def ca_gates(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    pool_types: tuple[str, ...] | list[str],
    relu: bool = False,
    /,
) -> _Gates: ...
def sa(
    x: Tensor,
    conv_w: Tensor,
    conv_b: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    bn_w: Tensor,
    bn_b: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool = False,
    /,
) -> _Tensor: ...
def sa_gates(
    x: Tensor,
    conv_w: Tensor,
    conv_b: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    bn_w: Tensor,
    bn_b: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool = False,
    /,
) -> _Gates: ...
def new_block(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    conv_w: Tensor,
    conv_b: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    bn_w: Tensor,
    bn_b: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool = False,
    /,
) -> _Tensor: ...
def new_block_gates(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    conv_w: Tensor,
    conv_b: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    bn_w: Tensor,
    bn_b: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool = False,
    /,
) -> _Gates: ...
def nab(
    x: Tensor, sam_w: Tensor, sam_b: Tensor, cam_w: Tensor, cam_b: Tensor, relu: bool = False, /
) -> _Tensor: ...
def nab_gates(
    x: Tensor, sam_w: Tensor, sam_b: Tensor, cam_w: Tensor, cam_b: Tensor, relu: bool = False, /
) -> _Gates: ...
def relative_attention(
    kqv: Tensor,
    rel_h: Tensor,
    rel_w: Tensor,
    heads: int,
    dk: int,
    dv: int,
    original_form: bool,
    /,
) -> _Tensor: ...
def relative_attention_rows(
    kqv: Tensor,
    rel_h: Tensor,
    rel_w: Tensor,
    heads: int,
    dk: int,
    dv: int,
    original_form: bool,
    image: int,
    query: int,
    /,
) -> _Tensor: ...

# Data and random numbers

def permutation(n: int, seed: int, epoch: int, /) -> NDArray[np.int64]: ...
def augment(
    images: NDArray[np.uint8],
    indices: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    padding: int,
    reflect: bool,
    flip: float,
    alternate: bool,
    cutout: int,
    seed: int,
    epoch: int,
    /,
) -> NDArray[np.float32]: ...
def shrink(images: NDArray[np.float32], height: int, width: int, /) -> NDArray[np.float32]: ...
def random_uniform(
    shape: _Ints, low: float, high: float, seed: int, counter: int, /
) -> NDArray[np.float32]: ...
def random_normal(
    shape: _Ints, mean: float, std: float, seed: int, counter: int, /
) -> NDArray[np.float32]: ...

# Optimisers: in place, all parameters in one call

def sgd_step(
    params: _Tensors,
    grads: _Tensors,
    momenta: _Tensors | None,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
    first: list[bool] | None,
    /,
) -> None: ...
def adamw_step(
    params: _Tensors,
    grads: _Tensors,
    exp_avgs: _Tensors,
    exp_avg_sqs: _Tensors,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    /,
) -> None: ...
def average_step(averages: _Tensors, values: _Tensors, share: float, /) -> None: ...
def global_norm(tensors: _Tensors, /) -> float: ...
def scale_(tensors: _Tensors, factor: float, /) -> None: ...
def clip_value_(tensors: _Tensors, limit: float, /) -> None: ...

# The system

def set_result_class(cls: type[Tensor], /) -> None: ...
def set_grad_enabled(enabled: bool, /) -> bool: ...
def grad_enabled() -> bool: ...
def num_threads() -> int: ...
def set_num_threads(num_threads: int, /) -> None: ...
def memory_stats() -> dict[str, int]: ...
def reset_peak_memory() -> None: ...
def set_memory_limit(bytes: int, /) -> None: ...
def empty_cache() -> None: ...
def fail_allocation(n: int, /) -> int: ...
def load_blas(path: str, /) -> None: ...
def config() -> _Config: ...
def set_peers(
    gather: Callable[[bytes], object] | None,
    ranks: int,
    images: int,
    first: int,
    /,
) -> None: ...
def profile_start() -> None: ...
def profile_stop() -> tuple[list[_Event], int]: ...
def multiply_adds(rounds: int, /) -> int: ...
