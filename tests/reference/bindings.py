"""One good call of every function of ``attnnet._core``, and of every member of its Tensor.

The tests of leaks, failed allocations and hostile numbers walk through this table; one of them
fails by name where a function has no entry here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import attnnet
from attnnet import _core

# What no shape, size or count can be.
HOSTILE = (0, -1, -(2**63), 2**31, 2**62, 2**63 - 1, 2**64)


def tensor(*shape: int, low: float = -1.0, grad: bool = True, layout: str = "plain"):
    """A leaf with values from ``low`` to 1."""
    values = np.random.default_rng(sum(shape)).uniform(low, 1.0, shape)
    made = attnnet.Tensor(values)
    if layout != "plain":
        made = _core.to_layout(made, layout)
    return made.requires_grad_(grad)


@dataclass(frozen=True)
class Case:
    """Positional arguments of a good call, made afresh by ``make``.

    Args:
        make: () -> the arguments.
        tame: positions of numbers that are not to be replaced by hostile ones: they would be
            believed, and the call would take long or all the memory.
        undo: called after each call that may have worked, where the function sets something.
        most: how many arguments it takes, where the last ones may be left out.
    """

    make: Callable[[], tuple]
    tame: tuple[int, ...] = ()
    undo: Callable[[], Any] | None = None
    most: int | None = None


def _x():
    return tensor(2, 16, 8, 8, layout="blocked16")


def _conv2d_batch_norm(defer):
    return (_x(), tensor(16, 16, 3, 3), tensor(16), None, (1, 1), (1, 1), 1, tensor(16), tensor(16),
            tensor(16, grad=False), tensor(16, low=0.5, grad=False), None if defer else _x(), True,
            0.1, True, 1e-5, defer)


def _deferred():
    with attnnet.no_grad():
        return _core.conv2d_batch_norm(*_conv2d_batch_norm(True))


def _spatial(*before):
    return (*before, tensor(1, 2, 7, 7), tensor(1), tensor(1, grad=False),
            tensor(1, low=0.5, grad=False), tensor(1), tensor(1), True, 0.01, 1e-5, True)


def _se():
    return _x(), tensor(1, 16), tensor(16, 1), True


def _sec():
    return _x(), tensor(1, 16), tensor(1), tensor(16, 1), tensor(16), True


def _ca():
    return (*_sec()[:5], ("avg", "max", "lp", "lse"), True)


def _sa():
    return _spatial(_x())


def _new():
    return _spatial(*_se()[:3])


def _nab():
    return _x(), tensor(1, 16, 1, 1), tensor(1), tensor(16, 16, 7, 7), tensor(16), True


def _attention(*more):
    return tensor(2, 24, 3, 4), tensor(5, 4), tensor(7, 4), 2, 8, 8, False, *more


def _augment():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, 3, 8, 8), np.uint8)
    return (images, np.array([4, 0, 2]), np.full(3, 0.5, "f4"), np.full(3, 0.2, "f4"), 2, True,
            0.5, False, 3, 7, 1)


def _pool(*more):
    return _x(), (2, 2), (2, 2), (1, 1), *more


def _lists(count):
    return tuple([tensor(4, 3, grad=False), tensor(5, grad=False)] for _ in range(count))


def _threads():
    _core.set_num_threads(_THREADS)


_THREADS = _core.num_threads()

CASES: dict[str, Case] = {
    # elementwise, shapes
    "unary": Case(lambda: ("sigmoid", _x())),
    "clamp": Case(lambda: (_x(), -0.5, 0.5)),
    "binary": Case(lambda: ("mul", _x(), tensor(1, 16, 1, 1))),
    "reduce": Case(lambda: ("var", _x(), (0, 2, 3), True, 1)),
    "reshape": Case(lambda: (_x(), (2, -1, 4))),
    "permute": Case(lambda: (_x(), (0, 2, 3, 1))),
    "slice": Case(lambda: (_x(), (0, 15, 0, 0), (1, -2, 1, 1), (1, 4, 8, 8))),
    "pad": Case(lambda: (_x(), (0, 0, 1, 1), (0, 0, 2, 2), 0.5)),
    "concatenate": Case(lambda: ([_x(), _x()], 1)),
    "to_layout": Case(lambda: (_x(), "plain")),
    # dense
    "batch_norm": Case(lambda: (_x(), tensor(16), tensor(16), tensor(16, grad=False),
                                tensor(16, low=0.5, grad=False), _x(), True, True, 0.1, 1e-5)),
    "max_pool2d": Case(_pool),
    "avg_pool2d": Case(lambda: _pool(True)),
    "adaptive_pool2d": Case(lambda: (_x(), 3, 3, True)),
    "softmax": Case(lambda: (tensor(4, 7), 1, True)),
    "cross_entropy": Case(lambda: (tensor(4, 7), np.array([6, 0, 3, 3]), 0.1)),
    "matmul": Case(lambda: (tensor(2, 4, 5), tensor(5, 3))),
    "linear": Case(lambda: (tensor(4, 5), tensor(3, 5), tensor(3))),
    "dropout": Case(lambda: (_x(), 0.5, 3, 4)),
    # convolution
    "conv2d": Case(lambda: (_x(), tensor(16, 16, 3, 3), tensor(16), (1, 1), (1, 1), 1)),
    "conv2d_fused": Case(lambda: (_x(), _core.keep_weights(tensor(16, 16, 3, 3)), tensor(16), _x(),
                                  True, (1, 1), (1, 1), 1)),
    "conv2d_batch_norm": Case(lambda: _conv2d_batch_norm(False)),
    "compute_deferred": Case(_deferred),
    "keep_weights": Case(lambda: (tensor(16, 16, 3, 3),)),
    "convolution_plan": Case(lambda: ((2, 16, 8, 8), (16, 16, 3, 3), (1, 1), (1, 1), 1, True)),
    "set_convolution_algorithm": Case(lambda: (None,)),
    "convolution_algorithms": Case(lambda: ()),
    # blocks
    "se": Case(_se, most=4),
    "se_gates": Case(_se, most=4),
    "sec": Case(_sec, most=6),
    "sec_gates": Case(_sec, most=6),
    "ca": Case(_ca, most=7),
    "ca_gates": Case(_ca, most=7),
    "sa": Case(_sa, most=11),
    "sa_gates": Case(_sa, most=11),
    "new_block": Case(_new, most=13),
    "new_block_gates": Case(_new, most=13),
    "nab": Case(_nab, most=6),
    "nab_gates": Case(_nab, most=6),
    "relative_attention": Case(_attention),
    "relative_attention_rows": Case(lambda: _attention(1, 5)),
    # data
    "permutation": Case(lambda: (50, 3, 4), tame=(0,)),
    "augment": Case(_augment),
    "shrink": Case(lambda: (np.ones((2, 3, 8, 6), np.float32), 5, 6)),
    "random_uniform": Case(lambda: ((5, 7), -1.0, 1.0, 3, 4)),
    "random_normal": Case(lambda: ((5, 7), 0.0, 1.0, 3, 4)),
    # optimisers
    "sgd_step": Case(lambda: (*_lists(3), 0.1, 0.9, 1e-4, True, [True, False])),
    "adamw_step": Case(lambda: (*_lists(4), 0.1, 0.9, 0.99, 1e-8, 1e-4, 3)),
    "average_step": Case(lambda: (*_lists(2), 0.1)),
    "global_norm": Case(lambda: _lists(1)),
    "scale_": Case(lambda: (*_lists(1), 0.5)),
    "clip_value_": Case(lambda: (*_lists(1), 0.5)),
    # the system
    "set_result_class": Case(lambda: (attnnet.Tensor,)),
    "set_grad_enabled": Case(lambda: (True,), undo=lambda: _core.set_grad_enabled(True)),
    "grad_enabled": Case(lambda: ()),
    "num_threads": Case(lambda: ()),
    "set_num_threads": Case(lambda: (2,), undo=_threads),
    "memory_stats": Case(lambda: ()),
    "reset_peak_memory": Case(lambda: ()),
    "set_memory_limit": Case(lambda: (2**40,), undo=lambda: _core.set_memory_limit(0)),
    "empty_cache": Case(lambda: ()),
    "fail_allocation": Case(lambda: (10**9,), undo=lambda: _core.fail_allocation(0)),
    "load_blas": Case(lambda: ("/no/such/library.so",)),
    "config": Case(lambda: ()),
    "set_peers": Case(lambda: (lambda own: None, 2, 3, 4),
                      undo=lambda: _core.set_peers(None, 1, 0, 0)),
    "profile_start": Case(lambda: (), undo=lambda: _core.profile_stop()),
    "profile_stop": Case(lambda: ()),
    "multiply_adds": Case(lambda: (10,), tame=(0,)),
}


def _graph():
    x = _x()
    return (_core.unary("sigmoid", x), tensor(2, 16, 8, 8))


def _write(name):
    return _core.Tensor.__dict__[name].__set__


def _hooked(x, hook):
    x._remove_hook(x._add_hook(hook))


def _read(name):
    return operator.attrgetter(name)


def _method(name):
    return getattr(_core.Tensor, name)


# The members of _core.Tensor: what to call, and the arguments. But for the hooks no function of
# Python's lies between: where memory fails, its own errors would be seen.
MEMBERS: dict[str, tuple[Callable, Case]] = {
    "__new__": (attnnet.Tensor, Case(lambda: (np.ones((3, 4)), True))),
    **{
        name: (_read(name), Case(lambda: (_x(),)))
        for name in ("shape", "ndim", "layout", "version", "is_leaf", "grad_fn")
    },
    "requires_grad": (_write("requires_grad"), Case(lambda: (_x(), True))),
    "grad": (_write("grad"), Case(lambda: (_x(), tensor(2, 16, 8, 8)))),
    "backward": (_method("backward"), Case(_graph)),
    "detach": (_method("detach"), Case(lambda: (_x(),))),
    "numpy": (_method("numpy"), Case(lambda: (_x(),))),
    "copy_": (_method("copy_"), Case(lambda: (_x(), np.ones((2, 16, 8, 8))))),
    "zero_": (_method("zero_"), Case(lambda: (_x(),))),
    "retain_grad": (_method("retain_grad"), Case(lambda: _graph()[:1])),
    "_add_hook": (_hooked, Case(lambda: (_x(), print))),
    "_remove_hook": (_method("_remove_hook"), Case(lambda: (_x(), 7))),
}


def functions() -> dict[str, tuple[Callable, Case]]:
    """Everything: name -> (what to call, its case)."""
    here = {name: (getattr(_core, name), case) for name, case in CASES.items()
            if hasattr(_core, name)}
    return here | {f"Tensor.{name}": entry for name, entry in MEMBERS.items()}


def wrong_calls(case: Case) -> Iterator[tuple]:
    """Argument lists that are wrong in one place, most of them refused: an argument too few or too
    many, one of another type, hostile numbers, text that means nothing."""
    good = case.make()
    if good and case.most is None:
        yield good[:-1]
    yield (*good, None)
    for at, argument in enumerate(good):
        for other in _others(argument, at in case.tame):
            yield (*good[:at], other, *good[at + 1 :])


def _others(argument: Any, tame: bool) -> Iterator[Any]:
    yield object()
    if isinstance(argument, bool):
        return
    if isinstance(argument, int):
        yield from () if tame else HOSTILE
        yield 0.5
    elif isinstance(argument, float):
        yield from (float("nan"), float("inf"), -1e300)
    elif isinstance(argument, str):
        yield "nothing of the kind \N{SNOWMAN}"
    elif isinstance(argument, attnnet.Tensor):
        yield from (tensor(3, 5), tensor(0, 16, 8, 8), None)
    elif isinstance(argument, np.ndarray):
        yield from (np.zeros((2, 2)), np.array([-1, 2**40, 2]), np.array(["a", "b"]))
    elif isinstance(argument, (tuple, list)):
        yield type(argument)()
        for times in (2, 4, 5):  # within and beyond what a tensor may have dimensions
            yield type(argument)([*argument] * times)
        if argument and isinstance(argument[0], int):
            for hostile in HOSTILE:
                yield (hostile,) * len(argument)
                yield (*argument[:-1], hostile)
        elif argument:
            yield [*argument[:-1], object()]
