"""Class activation maps against pytorch-grad-cam: values that it gave once, and live."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import attnnet
from attnnet.explain.maps import join_layers, scaled_layer

from . import cases


@cache
def model_and_images(arch, block, size):
    case = cases.Case(arch, block, size, "gradcam")
    return case.network(), case.images()


def check(case: cases.Case, expected: np.ndarray) -> None:
    model, x = model_and_images(case.arch, case.block, case.size)
    layers = list(case.layers) or None
    got = attnnet.explain.cam(
        model, attnnet.Tensor(x), case.method, layers, case.target, **case.options
    )
    error = np.abs(got.maps - expected).max((1, 2))
    if got.method.principal or case.options.get("eigen_smooth"):  # the tool's sign is arbitrary
        (raw,) = got.layer_maps.values()
        turned = join_layers([scaled_layer(-raw, x.shape[2:])])
        error = np.minimum(error, np.abs(turned - expected).max((1, 2)))
    if not (error.max() <= case.tolerance):
        raise AssertionError(f"{case}: off by {error}")
    assert expected.max() > 0.5, "an empty map would prove nothing"


@pytest.fixture(scope="module")
def stored():
    with np.load(cases.STORED) as file:
        return dict(file)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_stored(case, stored):
    check(case, stored[str(case)])


def test_nothing_else_is_stored(stored):
    assert set(stored) == {str(case) for case in cases.CASES}
    assert cases.STORED.stat().st_size < 200 * 1024


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_live(case):
    pytest.importorskip("torch")
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from . import tool

    check(case, tool.of_case(case, *model_and_images(case.arch, case.block, case.size)))
