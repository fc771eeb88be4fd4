"""The formulas and the arithmetic of maps against their definitions, in NumPy float64."""

from __future__ import annotations

import numpy as np
import pytest
from reference.compare import assert_close

from attnnet.explain import find_method, list_methods
from attnnet.explain.maps import join_layers, principal_component, resize, scale, scaled_layer
from attnnet.explain.methods import METHODS, register_method

SEED = 3


def relu(x):
    return np.maximum(x, 0)


def sums(x):
    return x.sum((2, 3), keepdims=True)


def gradcam_plus_plus(a, g):
    alpha = np.where(g != 0, g**2 / (2 * g**2 + sums(a) * g**3 + 1e-6), 0)
    return sums(relu(g) * alpha) * a


FORMULAS = {
    "gradcam": lambda a, g: sums(g) / g[0, 0].size * a,
    "hirescam": lambda a, g: g * a,
    "elementwise": lambda a, g: relu(g * a),
    "gradcam++": gradcam_plus_plus,
    "xgradcam": lambda a, g: sums(g * a) / (sums(a) + 1e-7) * a,
    "layercam": lambda a, g: relu(g) * a,
    "eigencam": lambda a, g: a,
    "eigengradcam": lambda a, g: g * a,
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name, signed):
    rng = np.random.default_rng(SEED)
    a, g = rng.standard_normal((2, 3, 5, 4, 6))
    a, g = (a if signed else relu(a)), np.where(rng.random(g.shape) < 0.2, 0, 0.1 * g)
    a, g = a.astype(np.float32), g.astype(np.float32)
    got = METHODS[name].formula(a, g)
    assert got.dtype == np.float32
    assert_close(got, FORMULAS[name](a.astype(np.float64), g.astype(np.float64)), 24, name)


def test_every_formula_has_a_twin():
    assert {name for name in list_methods() if METHODS[name].formula} == set(FORMULAS)


def test_scale():
    maps = np.array([[[1.0, 3.0], [5.0, 2.0]], [[7.0, 7.0], [7.0, 7.0]]], np.float32)
    expected = np.array([[[0, 2], [4, 1]], [[0, 0], [0, 0]]]) / [[[4 + 1e-7]], [[1e-7]]]
    assert_close(scale(maps), expected)


def bilinear(image, size, align_corners):
    """Sample by sample."""
    out = np.empty(size)
    for place in np.ndindex(size):
        low, share = [], []
        for at, n, m in zip(place, image.shape, size, strict=True):
            if align_corners:
                x = at * (n - 1) / (m - 1) if m > 1 else 0.0
            else:
                x = min(max((at + 0.5) * n / m - 0.5, 0), n - 1)
            low.append(min(int(x), n - 1))
            share.append(x - low[-1])
        (y, x), (dy, dx) = low, share
        rows = image[y], image[min(y + 1, image.shape[0] - 1)]
        left = [row[x] for row in rows]
        right = [row[min(x + 1, image.shape[1] - 1)] for row in rows]
        top, bottom = ((1 - dx) * p + dx * q for p, q in zip(left, right, strict=True))
        out[place] = (1 - dy) * top + dy * bottom
    return out


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", [((2, 2), (8, 8)), ((4, 3), (5, 9)), ((8, 8), (3, 4)),
                                   ((1, 1), (4, 4)), ((5, 5), (1, 1)), ((6, 7), (6, 7))])
def test_resize(sizes, align_corners):
    before, after = sizes
    images = np.random.default_rng(SEED).standard_normal((2, 3, *before)).astype(np.float32)
    expected = [[bilinear(channel, after, align_corners) for channel in image] for image in images]
    assert_close(resize(images, after, align_corners), expected, 4)


def test_layers_are_cut_scaled_resized_joined_and_scaled_again():
    rng = np.random.default_rng(SEED)
    raws = [rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 4, 4))]
    scaled = []
    for raw in raws:
        cut = relu(raw)
        cut = cut - cut.min((1, 2), keepdims=True)
        cut /= 1e-7 + cut.max((1, 2), keepdims=True)
        scaled.append(np.array([bilinear(m, (6, 6), False) for m in cut]))
    expected = np.mean(scaled, 0)
    expected -= expected.min((1, 2), keepdims=True)
    expected /= 1e-7 + expected.max((1, 2), keepdims=True)
    got = join_layers([scaled_layer(raw.astype(np.float32), (6, 6)) for raw in raws])
    assert_close(got, expected, 8)


@pytest.mark.parametrize("shape", [(2, 5, 4, 4), (2, 40, 3, 3), (1, 9, 3, 3)])
def test_principal_component(shape):
    x = np.random.default_rng(SEED).standard_normal(shape)
    for image, got in zip(x, principal_component(x), strict=True):
        data = image.reshape(shape[1], -1).T  # positions are the samples
        data = data - data.mean(0)
        vector = np.linalg.svd(data, full_matrices=False)[2][0]
        vector = vector * np.sign(vector.sum())
        assert_close(got, (data @ vector).reshape(shape[2:]), shape[1])


def test_the_component_agrees_with_the_sum():
    x = np.random.default_rng(SEED).random((4, 6, 5, 5))
    for image, got in zip(x, principal_component(x), strict=True):
        assert np.corrcoef(got.ravel(), image.sum(0).ravel())[0, 1] > 0
    np.testing.assert_array_equal(principal_component(np.ones((1, 3, 2, 2))), np.zeros((1, 2, 2)))


def test_names():
    assert find_method("Grad-CAM++").name == "gradcam++"
    assert find_method("GradCAMPlusPlus").name == "gradcam++"
    assert find_method("gradcam_elementwise").name == "elementwise"
    with pytest.raises(ValueError, match=r"unknown method 'gradkam'. Did you mean 'gradcam'\?"):
        find_method("gradkam")
    with pytest.raises(ValueError, match="there is a method 'gradcam' already"):
        register_method("gradcam")(lambda a, g: a)
