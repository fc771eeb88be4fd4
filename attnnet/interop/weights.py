"""Models from files of weights, and state dicts from and to PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import get_rng_state, set_rng_state
from ..data.cifar import CIFAR10, CIFAR100
from ..data.cifar_names import CIFAR10_NAMES, CIFAR100_NAMES
from ..errors import CheckpointError
from ..models import VGG, create_model
from ..nn.module import Module
from ..nn.parameter import at_most
from ..nn.state import StateDictError
from ..training import checkpoint as own
from . import study
from .torch_file import looks_like_torch, read_torch_file

# Where programs put the state dict, the study's first.
_ENTRIES = ("net", "state_dict", "model", "model_state_dict")
_STUDY = {"net": {"acc", "epoch"}, "state_dict": {"best_prec1", "epoch"}}


def load(
    path: str | os.PathLike[str], model: Module | None = None, **options: Any
) -> Module:
    """The model in a file, ready to predict (eval mode).

    Opens checkpoints of attnnet (a file, or a training's folder: its ``best.safetensors``, else
    ``last``); the study's ``.pth`` and ``.tar`` and any other file of ``torch.save`` with a state
    dict in it, both formats, without PyTorch; and safetensors files. Optimiser entries are left
    out, ``module.`` prefixes removed. Network, block, classes and image size are recognised from
    names and shapes; blocks named AA are taken to be of the study's form, ``AA_ORIGINAL``.
    Nothing in a file is executed.

    Args:
        path: of the file or folder.
        model: the model to fill, where it is not to be recognised; its names and shapes must
            fit one to one.
        options: what ``create_model`` takes, in place of what would be recognised: for example
            ``image_size=64``; with ``arch=`` nothing is recognised.

    Returns:
        The model. ``class_names``, ``normalization`` and ``recipe`` are attached where the file
        holds them. A file laid out as the study's (``net`` beside ``acc`` and ``epoch``, or
        ``state_dict`` beside ``best_prec1`` and ``epoch``) gets the normalisation and the class
        names of the study's data where it has as many classes as that: a VGG with 10 those of
        CIFAR-10, a ResNet with 100 those of CIFAR-100. With another number neither is set, since
        many programs write such files. ``source`` says what another program's file held beside
        the weights: ``path``, and its numbers and texts such as ``epoch`` and ``acc``.

    Raises:
        CheckpointError: missing, truncated, corrupt, hostile (names what it asked for), not
            recognised, or the weights do not fit (lists what does not).
        ValueError: its network or block is not registered, or an option does not exist.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return _load_own(path, model, options)
    path = own.file_of(path)
    with open(path, "rb") as file:
        head = file.read(9)
    if looks_like_torch(head):
        entry, state, facts = _find_state(read_torch_file(path), path)
    else:
        state, facts = own.read_safetensors(path)
        if "attnnet" in facts:
            return _load_own(path, model, options)
        entry = ""
    try:
        model = _filled(state, model, options, os.path.getsize(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if _STUDY.get(entry, {""}) <= facts.keys():
        layout, names = (
            (CIFAR10, CIFAR10_NAMES) if isinstance(model, VGG) else (CIFAR100, CIFAR100_NAMES)
        )
        shape = getattr(model, "in_channels", None), getattr(model, "num_classes", None)
        if shape == (len(layout.mean), len(names)):  # else it is of other data than the study's
            model.normalization, model.class_names = (layout.mean, layout.std), list(names)
    model.source = {"path": path, **facts}
    return model


def _load_own(path: str, model: Module | None, options: Mapping[str, Any]) -> Module:
    if options:
        raise ValueError(
            f"{path}: a checkpoint of attnnet says itself which model it holds; it takes no "
            f"{', '.join(options)}."
        )
    if model is None:
        return own.load_model(path)
    own.fill_model(model, own.load(own.best_of(path)))
    return model.eval()


def from_torch_state_dict(
    state_dict: Mapping[str, Any], model: Module | None = None, **options: Any
) -> Module:
    """The model with the weights of a PyTorch state dict, in eval mode.

    Args:
        state_dict: names to PyTorch tensors (on the CPU) or NumPy arrays. Names are those of the
            study's code, or of the model's own ``state_dict()``, with or without ``module.``.
        model: the model to fill; by default it is made from what names and shapes say.
        options: as for ``load``.

    Raises:
        CheckpointError: not recognised, or the weights do not fit (lists what does not).
        TypeError: a value is no array of numbers.
    """
    state = {str(key): _array(key, value) for key, value in state_dict.items()}
    return _filled(state, model, options, sum(array.nbytes for array in state.values()))


def to_torch_state_dict(
    model: Module, data_parallel: bool = False, tensors: bool = True
) -> dict[str, Any]:
    """A model's state dict as PyTorch code with the study's names loads it.

    Values are copies; ``num_batches_tracked`` is there, an int64 scalar. Names are the model's own
    but for VGG with SE_SA or SEC_SA, which the study counts as two entries of ``features``. The
    study's code computes AA in the form that is ``AA_ORIGINAL`` here.

    Args:
        model: any module.
        data_parallel: whether names get the ``module.`` that the study's GPU files have: in front,
            in a VGG after ``features``.
        tensors: PyTorch tensors (default), or NumPy arrays.

    Returns:
        Names to tensors, for ``load_state_dict`` or ``torch.save``.

    Raises:
        ImportError: tensors are wanted and PyTorch is not installed.
    """
    convert = np.asarray
    if tensors:
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                "to_torch_state_dict makes PyTorch tensors, and PyTorch is not installed: "
                "tensors=False gives NumPy arrays"
            ) from error
        convert = torch.from_numpy
    names = study.torch_names(model)
    state = {names[key]: convert(value) for key, value in model.state_dict().items()}
    if not data_parallel:
        return state
    if isinstance(model, VGG):
        return {key.replace("features.", "features.module.", 1): v for key, v in state.items()}
    return {f"module.{key}": value for key, value in state.items()}


def _array(key: object, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach()
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # NumPy has none
            value = value.float()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{key}: expected an array of numbers, got {type(value).__name__}")
    return array


def _filled(
    state: dict[str, np.ndarray], model: Module | None, options: Mapping[str, Any], room: int
) -> Module:
    """The model of a state, made unless it is given; it may have ``room`` parameters at most."""
    if model is not None and options:
        raise ValueError(f"a given model takes no options, got {', '.join(options)}")
    if model is None:
        random = get_rng_state()
        try:
            config = {} if "arch" in options else study.recognise(study.unwrapped(state))
            with at_most(room):
                model = create_model(**{**config, **options})
        except ValueError as error:
            raise CheckpointError(f"{error}") from error
        finally:
            set_rng_state(random)  # the numbers that filled it at first are nobody's business
    _fill(model, state)
    return model.eval()


def _fill(model: Module, state: dict[str, np.ndarray]) -> None:
    """Loads a state under the model's own names or the study's, wrapped or not.

    Raises:
        CheckpointError: lists every name and shape that does not fit.
    """
    names = study.torch_names(model)
    own_of = {theirs: mine for mine, theirs in names.items()}
    counters = {key: np.zeros((), np.int64) for key in names if key.endswith("num_batches_tracked")}
    attempts = [
        {**counters, **{rename.get(key, key): value for key, value in given.items()}}
        for given in (state, study.unwrapped(state))
        for rename in ({}, own_of)
    ]
    best = min(attempts, key=lambda attempt: len(attempt.keys() ^ names.keys()))
    try:
        model.load_state_dict(best)
    except StateDictError as error:
        raise CheckpointError(f"the weights do not fit the model. {error}") from None


def _find_state(content: object, path: str) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    """The state dict in what a file held, the entry it stood under, and the facts beside it.

    Raises:
        CheckpointError: there is none, or several.
    """
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, expected a state dict, or a dict with one."
        )
    found = [key for key, value in content.items() if _is_state(value)]
    chosen = [key for key in _ENTRIES if key in found] or found
    if len(chosen) == 1 or (chosen and chosen[0] in _ENTRIES):
        entry, state = str(chosen[0]), content[chosen[0]]
    elif not chosen and _is_state(content):
        entry, state = "", content
    else:
        what = f"several state dicts ({', '.join(map(str, chosen))})" if chosen else "no state dict"
        raise CheckpointError(
            f"{path}: holds {what}; attnnet.interop.read_torch_file shows what is in it."
        )
    facts = {} if state is content else _facts(content)
    return entry, {k: v for k, v in state.items() if isinstance(v, np.ndarray)}, facts


def _is_state(value: object) -> bool:
    """Whether this is a dict of names to tensors."""
    return (
        isinstance(value, dict)
        and all(isinstance(key, str) for key in value)
        and any(isinstance(entry, np.ndarray) and entry.ndim for entry in value.values())
    )


def _facts(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Numbers and texts; tensors of one element count as numbers."""
    facts = {}
    for key, value in content.items():
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        if isinstance(key, str) and isinstance(value, (int, float, str)):
            facts[key] = value
    return facts
