"""Module: the base class of layers, attention blocks and models.

Parameters, buffers and child modules register themselves when they are assigned as attributes.
Names, state-dict keys and error messages follow PyTorch's ``torch.nn.Module``, so that its users
and its checkpoints feel at home. Reading and writing of state dicts is in ``state.py``, hooks in
``hooks.py``.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensor import Tensor
from . import hooks as _hooks
from . import state as _state
from .parameter import Parameter

if TYPE_CHECKING:
    from .summary import Summary

_TABLES = ("_parameters", "_buffers", "_modules")
# Attributes that hold what a copy or a pickle must not share or carry: hooks and caches.
_TRANSIENT = {"_forward_hooks", "_output_grad_hooks", "_hooked", "_folded", "_plan"}


class Module:
    """Base class. Subclasses assign children in ``__init__`` and compute in ``forward``.

    Example::

        class Gate(attnnet.nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.fc = attnnet.nn.Linear(channels, channels)

            def forward(self, x):                       # (N, C, H, W)
                return x * F.sigmoid(self.fc(x.mean((2, 3)))).reshape(-1, x.shape[1], 1, 1)
    """

    training: bool = True
    _hooked: bool = False

    def __init__(self) -> None:
        state = self.__dict__
        state["training"] = True
        state["_parameters"] = {}
        state["_buffers"] = {}
        state["_modules"] = {}
        state["_unsaved"] = set()  # buffers that the state dict leaves out
        self._reset_transient()

    def _reset_transient(self) -> None:
        tables = {"_forward_hooks": _hooks.HookTable(), "_output_grad_hooks": _hooks.HookTable()}
        self.__dict__.update(tables, _hooked=False)

    # ---- calling -------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.forward(*args, **kwargs)
        if self._hooked:
            return _hooks.run(self, args, output)
        return output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass gives its own.

        Raises:
            TypeError: where the subclass has none.
        """
        raise TypeError(f"{type(self).__name__} has no forward() of its own")

    def register_forward_hook(self, hook: Callable[..., Any]) -> _hooks.HookHandle:
        """Call ``hook(module, inputs, output)`` after each forward.

        Args:
            hook: returns None, or a tensor that takes the output's place.

        Returns:
            A handle; ``handle.remove()`` ends the hook. Where a fused path would hide the value
            that a hook sees, the unfused path is taken.
        """
        return _hooks.HookHandle(self, self._forward_hooks, hook)

    def register_output_grad_hook(self, hook: Callable[..., Any]) -> _hooks.HookHandle:
        """Call ``hook(module, grad)`` with the gradient at the module's output, in backward.

        Args:
            hook: returns None, or a tensor of the same shape that takes the gradient's place.

        Returns:
            A handle; ``handle.remove()`` ends the hook for later forwards.
        """
        return _hooks.HookHandle(self, self._output_grad_hooks, hook)

    # ---- registration --------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        state = self.__dict__
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        elif name in state.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign {type(value).__name__} as parameter {name!r} of "
                    f"{type(self).__name__} (Parameter or None expected)"
                )
            self.register_parameter(name, None)
        elif name in state.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign {type(value).__name__} as child module {name!r} of "
                    f"{type(self).__name__} (Module or None expected)"
                )
            self.add_module(name, None)
        elif name in state.get("_buffers", ()):
            self.register_buffer(name, value, persistent=name not in state["_unsaved"])
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Reached only where the instance and the class hold no such attribute.
        choices = [] if name.startswith("_") else dir(self)
        near = difflib.get_close_matches(name, choices, n=1, cutoff=0.75)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def __delattr__(self, name: str) -> None:
        for table in _TABLES:
            self.__dict__.get(table, {}).pop(name, None)
        object.__delattr__(self, name)

    def _check_name(self, kind: str, name: str) -> None:
        """Refuse names that members cannot have."""
        if "_parameters" not in self.__dict__:
            raise AttributeError(
                f"cannot assign {kind} before Module.__init__() call: "
                f"begin {type(self).__name__}.__init__ with super().__init__()"
            )
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string, got {type(name).__name__}")
        if name == "" or "." in name:
            raise KeyError(f"{kind} name can't be empty or contain '.', got {name!r}")
        if hasattr(type(self), name) or name in _TRANSIENT:
            raise KeyError(f"attribute {name!r} of {type(self).__name__} already exists")

    def _enter(self, table: str, name: str, member: Any) -> None:
        """Put a checked member into its table and out of the others.

        It is a plain attribute too, so that reading it costs no more than any attribute.
        """
        state = self.__dict__
        for other in _TABLES:
            if other != table:
                state[other].pop(name, None)
        state[table][name] = state[name] = member

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter under a name (None reserves the name and saves nothing)."""
        self._check_name("parameter", name)
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(
                f"cannot assign {type(parameter).__name__} object to parameter {name!r} "
                "(Parameter or None required)"
            )
        self._enter("_parameters", name, parameter)

    def register_buffer(
        self, name: str, value: Tensor | np.ndarray | None, persistent: bool = True
    ) -> None:
        """Add state that is saved but not trained, such as running statistics.

        Args:
            name: attribute name.
            value: a Tensor (float32), a NumPy array (kept as it is, int64 scalars too), or None.
            persistent: whether ``state_dict()`` holds it.

        Raises:
            TypeError: for a value of another type.
        """
        self._check_name("buffer", name)
        if value is not None and not isinstance(value, (Tensor, np.ndarray)):
            raise TypeError(
                f"cannot assign {type(value).__name__} object to buffer {name!r} "
                "(attnnet Tensor, NumPy array or None required)"
            )
        self._enter("_buffers", name, value)
        (self._unsaved.discard if persistent else self._unsaved.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under a name."""
        self._check_name("module", name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._enter("_modules", name, module)

    register_module = add_module

    # ---- walking -------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct children and their names, each module once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """Direct children, each once."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, prefix: str = "", _seen: set[int] | None = None
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted names, each module once."""
        seen = set() if _seen is None else _seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def _named_members(self, table: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        owners = self.named_modules(prefix) if recurse else [(prefix, self)]
        for owner, module in owners:
            for name, member in module.__dict__[table].items():
                if member is not None and id(member) not in seen:
                    seen.add(id(member))
                    yield (f"{owner}.{name}" if owner else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their dotted names, each once, in the order of registration."""
        return self._named_members("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, each once; what optimisers take."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Tensor | np.ndarray]]:
        """Buffers with their dotted names, each once."""
        return self._named_members("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor | np.ndarray]:
        """Buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted name, such as ``"layer1.0.conv1"``.

        Friendly names work too: ``"layer1.0.attention"`` is ``"layer1.0.image_module"``.

        Args:
            target: dotted name; "" is this module.

        Raises:
            ValueError: where there is no such module; lists the nearest name.
        """
        module: Any = self
        path: list[str] = []
        for part in target.split(".") if target else ():
            below = getattr(module, part, None)
            if not isinstance(below, Module):
                known = [name for name in dir(module) if _is_child(module, name)]
                near = difflib.get_close_matches(part, known, n=1, cutoff=0.3)
                hint = f" Did you mean {'.'.join([*path, *near])!r}?" if near else ""
                raise ValueError(f"{type(self).__name__} has no module {target!r}.{hint}")
            module = below
            path.append(part)
        return module

    # ---- state ---------------------------------------------------------------------------

    def state_dict(self, prefix: str = "", copy: bool = True) -> OrderedDict[str, np.ndarray]:
        """Every parameter and saved buffer, as NumPy arrays under dotted names.

        Args:
            prefix: put in front of every name.
            copy: whether the arrays are copies (default); else they are the memory itself where
                it is plain, and change with the next step.
        """
        return _state.collect(self, prefix, copy)

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> _state.IncompatibleKeys:
        """Copy values from a state dict into this module's parameters and buffers.

        Args:
            state_dict: mapping of names to arrays (NumPy, attnnet, or anything that
                ``numpy.asarray`` takes).
            strict: whether missing or unexpected keys are an error (default) or only returned.

        Returns:
            ``(missing_keys, unexpected_keys)``, a named tuple of lists.

        Raises:
            StateDictError: lists every missing and unexpected key (strict) and every value of
                the wrong shape or type (always). Nothing is written then.
        """
        return _state.load(self, state_dict, strict)

    def train(self, mode: bool = True) -> Module:
        """Set training mode here and below; returns the module."""
        if not isinstance(mode, bool):
            raise ValueError(f"training mode is expected to be boolean, got {mode!r}")
        for module in self.modules():
            module.__dict__["training"] = mode
        return self

    def eval(self) -> Module:
        """Set evaluation mode: running statistics, no dropout. Returns the module."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Drop the gradient of every parameter."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Set whether the parameters get gradients (False freezes them). Returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call ``fn(module)`` on every module, children first. Returns the module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Hooks belong to one live object and caches can be made again: copies have neither.
        return {key: value for key, value in self.__dict__.items() if key not in _TRANSIENT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset_transient()

    # ---- showing -------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses in ``repr``; layers give their settings."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"({name}): " + repr(module).replace("\n", "\n  ")
            for name, module in self._modules.items()
        ]
        settings = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({settings})"
        head = [settings] if settings else []
        return f"{type(self).__name__}(\n  " + "\n  ".join(head + lines) + "\n)"

    def _repr_html_(self) -> str:
        from .summary import structure_html

        return structure_html(self)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Multiply-adds of one call, for ``summary()``; layers without products count none.

        Args:
            input_shape: of the first argument, batch included.
            output_shape: of the output, batch included.
        """
        return 0

    def summary(self, input_shape: tuple[int, ...]) -> Summary:
        """Table of layers: output shape, parameters, multiply-adds, for one image.

        Runs one real forward in evaluation mode, without gradients, and leaves the module as it
        was.

        Args:
            input_shape: (C, H, W) of one image, or the whole shape of one input without its batch.

        Returns:
            A ``Summary``: prints as a table, shows as HTML in a notebook, and holds
            ``rows``, ``total_parameters`` and ``total_multiply_adds``.
        """
        from .summary import summarise

        return summarise(self, input_shape)


def _is_child(module: Module, name: str) -> bool:
    """Whether a name is a child module's, or a property that leads to one."""
    return not name.startswith("_") and isinstance(getattr(module, name, None), Module)
