"""Measures of maps: localisation, faithfulness, their intervals and differences."""

from __future__ import annotations

import numpy as np
import pytest

import attnnet
from attnnet import explain, nn
from attnnet.explain import Measure, Measures
from attnnet.explain.faithfulness import impute

from . import tiny

SEED = 11


# ---- intervals ---------------------------------------------------------------------------


def test_the_interval_covers_the_true_mean():
    """In about 95 % of samples; 200 samples of 60: a binomial's 5 sigma is 8 %."""
    rng = np.random.default_rng(SEED)
    samples = rng.exponential(1.0, (200, 60))
    intervals = [Measure("m", values).bootstrap(resamples=300) for values in samples]
    covered = np.mean([low <= 1.0 <= high for low, high in intervals])
    assert 0.87 <= covered <= 0.99, covered
    widths = [high - low for low, high in intervals]
    normal = 2 * 1.96 * samples.std(1, ddof=1) / np.sqrt(60)
    assert abs(np.mean(widths) / np.mean(normal) - 1) < 0.06


def test_measure():
    measure = Measure("energy", [0.25, 0.75, 0.5])
    assert measure.mean == 0.5 and len(measure) == 3
    assert measure.interval == measure.bootstrap() == Measure("energy", measure.values).interval
    low, high = measure.interval
    assert repr(measure) == f"energy: 0.500 ({low:.3f} to {high:.3f}), 95% interval, 3 images"
    for wrong in ([], [[1.0]], [np.nan]):
        with pytest.raises(ValueError, match="needs one finite value an image"):
            Measure("m", wrong)


def test_one_image_has_no_interval():
    one = Measure("energy", [0.25])
    assert one.mean == 0.25 and np.isnan(one.interval).all()
    assert str(one) == "0.250" and repr(one) == "energy: 0.250, 1 image"
    assert str(Measures({"layer4": {"energy": one}})).split() == ["energy", "layer4", "0.250"]


def test_paired_differences_are_sharp():
    rng = np.random.default_rng(SEED)
    base = rng.random(100)  # images differ far more than the two models
    a, b = Measure("m", base + 0.02 + 0.01 * rng.random(100)), Measure("m", base)
    difference = a - b
    np.testing.assert_allclose(difference.values, a.values - b.values)
    assert difference.interval[0] > 0.02 and a.interval[0] < b.interval[1]
    with pytest.raises(ValueError, match="the same images: 100 and 99 values"):
        a - Measure("m", base[:99])
    with pytest.raises(TypeError):
        a - 1


def test_tables():
    one, two = Measure("m", [1.0, 2.0]), Measure("m", [0.5, 0.5])
    table = Measures({"layer4": {"m": one}}) - Measures({"layer4": {"m": two, "n": one}})
    assert list(table) == ["layer4"] and list(table["layer4"]) == ["m"]
    np.testing.assert_array_equal(table["layer4"]["m"].values, [0.5, 1.5])
    other = Measures({"layer4": {"m": one}}) - Measures({"features.5": {"m": two}})
    assert list(other) == ["layer4 - features.5"]
    assert "layer4" in str(table) and str(table["layer4"]["m"]) in repr(table)
    assert table._repr_html_().count("<tr>") == 2


# ---- localisation ------------------------------------------------------------------------


def one_map(values):
    return np.array([values], np.float64)


MASK = np.array([[[True, True, False], [False, False, False], [False, False, False]]])


@pytest.mark.parametrize(
    ("values", "hit", "near", "energy", "iou"),
    [
        ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], 1, 1, 1.0, 1 / 2),
        ([[0.6, 1, 0], [0, 0, 0], [0, 0, 0]], 1, 1, 1.0, 1.0),
        ([[0, 0, 1], [0, 0, 0], [0, 0, 0]], 0, 1, 0.0, 0.0),
        ([[0.5, 0, 0], [0, 0, 0], [0, 0, 1]], 0, 0, 1 / 3, 1 / 3),
        ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 1, 1, 2 / 9, 2 / 9),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], 0, 0, 0.0, 0.0),
    ],
)
def test_localisation_by_hand(values, hit, near, energy, iou):
    maps = one_map(values)
    assert explain.pointing_game(maps, MASK).mean == hit
    assert explain.pointing_game(maps, MASK, tolerance=1).mean == near
    np.testing.assert_allclose(explain.energy_inside(maps, MASK).values, [energy])
    np.testing.assert_allclose(explain.mask_iou(maps, MASK).values, [iou])


def test_a_negative_tolerance_is_refused():
    for tolerance in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"tolerance must be 0 or more, got {tolerance}"):
            explain.pointing_game(one_map(np.eye(3)), MASK, tolerance)


def test_threshold():
    maps = one_map([[1, 0.3, 0.4], [0, 0, 0], [0, 0, 0]])
    for threshold, iou in ((0.5, 1 / 2), (0.35, 1 / 3), (0.25, 2 / 3), (1, 1 / 2)):
        np.testing.assert_allclose(explain.mask_iou(maps, MASK, threshold).values, [iou])
    with pytest.raises(ValueError, match="threshold must be above 0 and at most 1, got 0"):
        explain.mask_iou(maps, MASK, 0)


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.ones((1, 3, 3)), MASK[0], r"must be \(N, H, W\) both: got \(1, 3, 3\) and \(3, 3\)"),
        (np.ones((2, 3, 3)), MASK, r"got \(2, 3, 3\) and \(1, 3, 3\)"),
        (np.ones((1, 3, 3)), MASK.astype(int), "masks must be bool, got int"),
        (np.ones((1, 3, 3)), np.zeros((1, 3, 3), bool), "mask 0 has no object"),
        (-np.ones((1, 3, 3)), MASK, "maps must be 0 or more"),
        (np.full((1, 3, 3), np.nan), MASK, "maps must be 0 or more and no NaN"),
    ],
)
def test_wrong_maps_and_masks(maps, masks, message):
    for measure in (explain.pointing_game, explain.energy_inside, explain.mask_iou):
        with pytest.raises(ValueError, match=message):
            measure(maps, masks)


def test_measure_localisation():
    model = tiny.network()
    x = attnnet.Tensor(tiny.images(4, 16))
    masks = np.zeros((4, 16, 16), bool)
    masks[:, 4:12, 4:12] = True
    table = explain.measure_localisation(
        model, x, masks, "layercam", ["layer1.0.attention", "layer3"], target=2
    )
    assert list(table) == ["layer1.0.attention", "layer3"]
    assert table.columns() == ["pointing game", "energy inside", "IoU"]
    maps = explain.cam(model, x, "layercam", "layer3", 2).maps
    np.testing.assert_allclose(table["layer3"]["energy inside"].values,
                               explain.energy_inside(maps, masks).values, atol=1e-4)
    smooth = explain.measure_localisation(model, x, masks, "layercam", ["layer1", "layer3"],
                                          target=2, aug_smooth=True)  # fmt: skip
    maps = explain.cam(model, x, "layercam", "layer3", 2, aug_smooth=True).maps
    np.testing.assert_allclose(smooth["layer3"]["energy inside"].values,
                               explain.energy_inside(maps, masks).values, atol=1e-4)
    assert list(explain.measure_localisation(model, x, masks, "fullgrad")) == ["fullgrad"]
    same = table - table
    assert same["layer3"]["IoU"].interval == (0.0, 0.0)


# ---- faithfulness ------------------------------------------------------------------------


class OnePixel(nn.Module):
    """Two classes; the second one's logit is ten times the pixel (1, 2) of a 4 x 4 image."""

    def __init__(self):
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.Linear(16, 2, bias=False)
        weight = np.zeros((2, 16))
        weight[1, 6] = 10
        self.linear.weight.copy_(weight)

    def forward(self, x):
        return self.linear(self.flatten(x))


@pytest.fixture
def asked():
    """Model, three images whose pixel is 1, and a map that names it first and one last."""
    rng = np.random.default_rng(SEED)
    x = rng.random((3, 1, 4, 4))
    x[:, 0, 1, 2] = 1
    good = rng.random((3, 4, 4)) * 0.5
    good[:, 1, 2] = 1
    return OnePixel(), attnnet.Tensor(x), good, 1 - good


ON, OFF = 1 / (1 + np.exp(-10)), 0.5


def test_deletion(asked):
    model, x, good, bad = asked
    # At once after the start; or at the very end. The trapezoid takes half of that step.
    for maps, steps_on in ((good, 0.5), (bad, 15.5)):
        got = explain.deletion(model, x, maps, 1, steps=16)
        np.testing.assert_allclose(got.values, (steps_on * ON + (16 - steps_on) * OFF) / 16)
    assert explain.deletion(model, x, good, 1, steps=16, value=1).values.min() > 0.999
    np.testing.assert_array_equal(explain.deletion(model, x, good, 0, batch_size=2).values,
                                  explain.deletion(model, x, good, 0).values)


def test_insertion(asked):
    model, x, good, bad = asked
    place = np.arange(4)
    kernel = np.exp(-((place[:, None] - place) ** 2) / 2)
    kernel /= kernel.sum(1, keepdims=True)
    blurred = 1 / (1 + np.exp(-10 * (kernel @ x.numpy()[:, 0] @ kernel.T)[:, 1, 2]))
    for maps, steps_off in ((good, 0.5), (bad, 15.5)):
        got = explain.insertion(model, x, maps, 1, steps=16, blur=1.0)
        expected = (steps_off * blurred + (16 - steps_off) * ON) / 16
        np.testing.assert_allclose(got.values, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="blur must be above 0, got 0"):
        explain.insertion(model, x, good, blur=0)


def test_drop_and_increase(asked):
    model, x, good, bad = asked
    after = 1 / (1 + np.exp(-10 * bad[:, 1, 2]))
    drop = explain.average_drop(model, x, bad, 1)
    np.testing.assert_allclose(drop.values, 100 * (ON - after) / ON, rtol=1e-4)
    np.testing.assert_allclose(explain.average_drop(model, x, good, 1).values, 0, atol=1e-4)
    double = 2 * good
    np.testing.assert_array_equal(explain.increase_in_confidence(model, x, double, 1).values, 100)
    np.testing.assert_array_equal(explain.increase_in_confidence(model, x, double, 0).values, 0)
    np.testing.assert_array_equal(explain.increase_in_confidence(model, x, bad, 1).values, 0)


def test_imputation():
    """Every filled pixel is the weighted mean of its neighbours, at borders of those there are."""
    rng = np.random.default_rng(SEED)
    images, missing = rng.standard_normal((2, 3, 6, 5)), rng.random((2, 6, 5)) < 0.6
    filled = impute(images, missing, 0.0, rng)
    np.testing.assert_array_equal(filled[~missing[:, None].repeat(3, 1)],
                                  images[~missing[:, None].repeat(3, 1)])
    for n, y, x in np.argwhere(missing):
        total, weights = 0, 0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = 0 <= y + dy < 6 and 0 <= x + dx < 5
                if (dy or dx) and inside:
                    weight = 1 / 6 if dy == 0 or dx == 0 else 1 / 12
                    total, weights = total + weight * filled[n, :, y + dy, x + dx], weights + weight
        np.testing.assert_allclose(filled[n, :, y, x], total / weights, atol=1e-10)
    noisy = impute(images, missing, 0.5, np.random.default_rng(1)) - filled
    assert 0.35 < noisy[missing[:, None].repeat(3, 1)].std() < 0.65


def test_road(asked):
    model, x, good, bad = asked
    x = x.numpy().copy()
    x[:] = 0
    x[:, 0, 1, 2] = 1  # what is filled in for the pixel is near 0
    x = attnnet.Tensor(x)
    most = explain.road(model, x, good, 1, "morf", noise=0)
    least = explain.road(model, x, good, 1, "lerf", noise=0)
    assert (most.values < 0.51).all() and (least.values > 0.999).all()
    both = explain.road(model, x, good, 1, noise=0)
    np.testing.assert_allclose(both.values, (least.values - most.values) / 2)
    assert explain.road(model, x, bad, 1, noise=0).mean < -0.2
    for options, message in (({"order": "most"}, "order must be 'morf'"),
                             ({"shares": (0.5, 1.0)}, "shares must be above 0 and below 1")):
        with pytest.raises(ValueError, match=message):
            explain.road(model, x, good, 1, **options)


def test_ties_are_random_but_repeatable(asked):
    model, x, _, _ = asked
    flat = np.zeros((3, 4, 4))
    first, again, other = (explain.deletion(model, x, flat, 1, steps=16, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.values, again.values)
    assert (first.values != other.values).any() and len(set(first.values)) > 1


def test_measure_faithfulness_and_what_is_refused(asked):
    model, x, good, bad = asked
    table = explain.measure_faithfulness(model, x, {"good": good, "bad": bad}, 1)
    assert list(table) == ["good", "bad"] and len(table.columns()) == 5
    assert table["good"]["deletion AUC"].mean < table["bad"]["deletion AUC"].mean
    assert table["good"]["insertion AUC"].mean > table["bad"]["insertion AUC"].mean
    for maps, target, message in (
        (good[:2], 1, r"maps must be \(3, 4, 4\) for these images, got \(2, 4, 4\)"),
        (good * np.nan, 1, "maps must be finite"),
        (good, 2, r"target must be 0 to 1 \(the classes\), got 2"),
        (good, lambda logits: logits[:, 0], "target must be classes here"),
    ):
        for measure in (explain.deletion, explain.average_drop, explain.road):
            with pytest.raises(ValueError, match=message):
                measure(model, x, maps, target)
