"""Pictures of maps, against the definitions, OpenCV and matplotlib."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from attnnet.explain import (
    apply_colormap,
    color_table,
    deprocess,
    grid,
    guided_product,
    overlay,
    strip,
)
from attnnet.explain.image import html_image


def test_jet():
    table = color_table("jet").astype(int)
    for i, color in {0: (0, 0, 128), 31: (0, 0, 252), 79: (0, 188, 255), 80: (0, 192, 255),
                     127: (126, 255, 130), 128: (130, 255, 126), 159: (254, 255, 1),
                     160: (255, 252, 0), 255: (128, 0, 0)}.items():
        assert tuple(table[i]) == color, i
    assert table.shape == (256, 3)


def test_jet_is_the_one_of_opencv():
    cv2 = pytest.importorskip("cv2")
    expected = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_JET)
    np.testing.assert_array_equal(color_table("jet"), expected[0, :, ::-1])


def test_viridis_grows_in_brightness():
    luma = color_table("viridis")[::5] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luma) > 0).all()


def test_viridis_is_the_one_of_matplotlib():
    matplotlib = pytest.importorskip("matplotlib")
    expected = np.array(matplotlib.colormaps["viridis"].colors) * 255
    expected = expected.round()
    assert np.abs(color_table("viridis") - expected).max() <= 5


def test_apply_colormap():
    maps = np.array([[0.0, 0.5, 1.0]])
    np.testing.assert_array_equal(apply_colormap(maps), color_table()[[[0, 127, 255]]])
    for bad in ([[1.5]], [[-0.1]], [[np.nan]]):
        with pytest.raises(ValueError, match="maps must be 0 to 1"):
            apply_colormap(bad)
    with pytest.raises(ValueError, match=r"unknown colormap 'virids'. Did you mean 'viridis'\?"):
        apply_colormap(maps, "virids")


def test_deprocess():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3, 4, 5)) * 3 + 7
    x[0, 0, 0, 0] = 1000
    got = deprocess(x)
    for image, picture in zip(x, got, strict=True):
        value = (image - image.mean()) / (image.std() + 1e-5) * 0.1 + 0.5
        expected = np.trunc(np.clip(value, 0, 1) * 255).transpose(1, 2, 0)
        np.testing.assert_array_equal(picture, expected)
    assert got.dtype == np.uint8 and got[0].max() == 255
    np.testing.assert_array_equal(deprocess(x[1]), got[1])
    np.testing.assert_array_equal(deprocess(x[:, :1])[..., 2], deprocess(x[:, :1])[..., 0])
    with pytest.raises(ValueError, match=r"1 or 3 channels: got \(4, 5\)"):
        deprocess(x[0, 0])


def test_overlay():
    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    maps = rng.random((2, 4, 5))
    for weight in (0.5, 0.6, 0.0, 1.0):
        got = overlay(pictures, maps, weight)
        for picture, one, result in zip(pictures, maps, got, strict=True):
            heat = color_table()[np.trunc(255 * one).astype(int)] / 255
            blend = (1 - weight) * heat + weight * (picture / 255)
            expected = np.trunc(255 * (blend / blend.max()))
            np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(overlay(pictures[0] / 255, maps[0]), overlay(pictures, maps)[0])
    assert overlay(np.zeros((2, 2, 3)), np.zeros((2, 2)), 1.0).max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 4, 3)), np.zeros((4, 5))), r"got \(4, 4, 3\) and \(4, 5\)"),
        ((np.zeros((4, 4)), np.zeros((4, 4))), r"got \(4, 4\) and \(4, 4\)"),
        ((np.full((4, 4, 3), 2.0), np.zeros((4, 4))), "float pictures must be 0 to 1, got 2 to 2"),
        ((np.zeros((4, 4, 3)), np.zeros((4, 4)), 1.5), "weight must be 0 to 1, got 1.5"),
    ],
)
def test_overlay_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        overlay(*arguments)


def test_guided_product():
    rng = np.random.default_rng(4)
    maps, gradients = rng.random((2, 4, 4)), rng.standard_normal((2, 3, 4, 4))
    expected = np.stack([deprocess(m * g) for m, g in zip(maps, gradients, strict=True)])
    np.testing.assert_array_equal(guided_product(maps, gradients), expected)


def test_grid():
    tiles = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)
    sheet = grid(tiles, columns=2, gap=1)
    assert sheet.shape == (9, 13, 3) and sheet.dtype == np.uint8
    assert (sheet[:4, :6] == 0).all() and (sheet[:4, 7:] == 1).all() and (sheet[5:, :6] == 2).all()
    assert (sheet[4] == 255).all() and (sheet[:, 6] == 255).all() and (sheet[5:, 7:] == 255).all()
    assert strip(tiles, gap=0).shape == (4, 18, 3)
    big = grid(tiles[1:2], scale=3)
    assert big.shape == (12, 18, 3) and (big == 1).all()
    titled = grid(tiles, titles=["a", "b", "c"], scale=10)
    assert titled.shape[0] > 40 and titled[-40:, :60].max() == 0
    assert titled[:-40, :60].min() < 128, "no letter was drawn"
    for wrong in ([], [tiles[0], tiles[0][:2]]):
        with pytest.raises(ValueError, match="pictures must be one or more of one shape"):
            grid(wrong)
    with pytest.raises(ValueError, match="1 titles for 3 pictures"):
        grid(tiles, titles=["a"])


def test_html_image():
    picture = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    text = html_image(picture, 'a "cat"')
    assert 'alt="a &quot;cat&quot;"' in text
    data = base64.b64decode(re.search(r"base64,([^\"]+)", text)[1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)
