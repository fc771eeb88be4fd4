"""attnnet: train, evaluate and look into attention networks on a CPU.

    >>> import attnnet
    >>> recipe = attnnet.Recipe.preset("shapes")
    >>> history = attnnet.Trainer(recipe).fit()

Names are loaded when they are first used, so that ``import attnnet`` stays quick.
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"

from . import _blas

_blas.load()

from . import functional, random  # noqa: E402
from .autograd import enable_grad, is_grad_enabled, no_grad  # noqa: E402
from .config import (  # noqa: E402
    empty_cache,
    get_num_threads,
    memory_stats,
    set_memory_limit,
    set_num_threads,
    show_config,
)
from .random import get_rng_state, manual_seed, set_rng_state  # noqa: E402
from .tensor import Tensor, from_dlpack, tensor  # noqa: E402

_MODULES = (
    "bench", "cli", "data", "errors", "explain", "interop", "models", "nn", "optim", "plots",
    "study", "training",
)
_NAMES = {
    "nn": ("Module", "Parameter", "list_blocks", "register_block"),
    "models": (
        "create_model", "list_models",
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
        "vgg11", "vgg13", "vgg16", "vgg19",
    ),
    "profile": ("Profile",),
    "training": ("History", "Recipe", "Trainer", "evaluate", "train"),
    "interop": ("export_onnx", "load"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Tensor", "empty_cache", "enable_grad", "from_dlpack", "functional", "get_num_threads",
    "get_rng_state", "is_grad_enabled", "manual_seed", "memory_stats", "no_grad", "random",
    "set_memory_limit", "set_num_threads", "set_rng_state", "show_config", "tensor", *_MODULES,
    *_HOME,
]


def __getattr__(name: str):
    if name in _MODULES:
        return _import_module(f"{__name__}.{name}")
    if name in _HOME:
        value = getattr(_import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
