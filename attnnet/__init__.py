"""attnnet: train, evaluate and look into attention networks on a CPU.

    >>> import attnnet
    >>> recipe = attnnet.Recipe.preset("shapes")
    >>> history = attnnet.Trainer(recipe).fit()

Names are loaded when they are first used, so that ``import attnnet`` stays quick.
"""

import typing as _typing
from importlib import import_module as _import_module

__version__ = "0.1.0"

from . import _blas

_blas.load()

from . import cores as _cores  # noqa: E402
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

set_num_threads(_cores.default_threads())

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

if _typing.TYPE_CHECKING:  # the same names, for type checkers and editors
    from . import bench as bench
    from . import cli as cli
    from . import data as data
    from . import errors as errors
    from . import explain as explain
    from . import interop as interop
    from . import models as models
    from . import nn as nn
    from . import optim as optim
    from . import plots as plots
    from . import study as study
    from . import training as training
    from .interop import export_onnx as export_onnx
    from .interop import load as load
    from .models import create_model as create_model
    from .models import list_models as list_models
    from .models import resnet18 as resnet18
    from .models import resnet34 as resnet34
    from .models import resnet50 as resnet50
    from .models import resnet101 as resnet101
    from .models import resnet152 as resnet152
    from .models import vgg11 as vgg11
    from .models import vgg13 as vgg13
    from .models import vgg16 as vgg16
    from .models import vgg19 as vgg19
    from .nn import Module as Module
    from .nn import Parameter as Parameter
    from .nn import list_blocks as list_blocks
    from .nn import register_block as register_block
    from .profile import Profile as Profile
    from .training import History as History
    from .training import Recipe as Recipe
    from .training import Trainer as Trainer
    from .training import train as train
    from .training.evaluate import evaluate as evaluate

__all__ = [
    "Tensor", "empty_cache", "enable_grad", "from_dlpack", "functional", "get_num_threads",
    "get_rng_state", "is_grad_enabled", "manual_seed", "memory_stats", "no_grad", "random",
    "set_memory_limit", "set_num_threads", "set_rng_state", "show_config", "tensor", *_MODULES,
    *_HOME,
]


if not _typing.TYPE_CHECKING:  # which would take it for leave to use any name

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
