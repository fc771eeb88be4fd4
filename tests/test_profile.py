"""Profile: what is noted, how nested calls are counted, the trace."""

import json

import numpy as np
import pytest

import attnnet
import attnnet.functional as F
from attnnet.profile import Event


def step():
    x = attnnet.tensor(np.ones((2, 16, 8, 8), np.float32), requires_grad=True)
    weight = attnnet.tensor(np.ones((16, 16, 3, 3), np.float32), requires_grad=True)
    F.relu(F.conv2d(x, weight, padding=1)).sum().backward()


def test_operations_and_their_gradients_are_noted_with_shapes():
    with attnnet.Profile() as profile:
        step()
    noted = [(event.name, event.backward, event.shapes) for event in profile.events]
    image = (2, 16, 8, 8)
    assert noted == [
        ("conv2d", False, (image, (16, 16, 3, 3))),
        ("relu", False, (image,)),
        ("sum", False, (image,)),
        ("sum", True, ((),)),
        ("relu", True, (image,)),
        ("conv2d", True, (image,)),
    ]
    assert sum(row.seconds for row in profile.rows()) <= profile.seconds
    assert profile.lost == 0


def test_an_optimiser_that_clips_is_noted():
    w = attnnet.tensor(np.ones(4, np.float32), requires_grad=True)
    w.grad = attnnet.tensor(np.ones(4, np.float32))
    optimizer = attnnet.optim.SGD([w], lr=0.1)
    with attnnet.Profile() as profile:
        attnnet.optim.clip_grad_norm_([w], 1.0)
        attnnet.optim.clip_grad_value_([w], 0.1)
        optimizer.step()
    names = [event.name for event in profile.events]
    assert names == ["global_norm", "scale_", "clip_value_", "sgd_step"]


def test_nothing_is_noted_outside_the_block():
    step()
    with attnnet.Profile() as profile:
        pass
    step()
    assert profile.events == []


def test_rows_sum_up_calls():
    profile = attnnet.Profile()
    profile.seconds = 1e-6
    profile.events = [
        Event("conv2d", False, 0, 0, 200, ((1, 2),)),
        Event("conv2d", False, 0, 300, 300, ((3, 4),)),
        Event("conv2d", True, 0, 600, 100, ((1, 2),)),
    ]
    forward, backward = profile.rows()
    assert forward[:4] == ("conv2d", False, (), 2) and backward[:4] == ("conv2d", True, (), 1)
    assert forward.seconds == pytest.approx(5e-7) and forward.share == pytest.approx(50)
    assert [row.shapes for row in profile.rows(shapes=True)] == [((3, 4),), ((1, 2),), ((1, 2),)]


def test_one_profile_at_a_time():
    with attnnet.Profile() as outer:
        with pytest.raises(RuntimeError, match="another profile is running"), attnnet.Profile():
            pass
        step()
    assert len(outer.events) == 6


def test_table_sums_up_what_it_does_not_show():
    with attnnet.Profile() as profile:
        step()
    lines = profile.table(limit=1).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["less", "outside operations", "all"]
    assert "2x16x8x8, 16x16x3x3" in profile.table(shapes=True)
    assert "conv2d, backward" in profile._repr_html_()


def test_trace_is_what_viewers_read(tmp_path):
    with attnnet.Profile() as profile:
        step()
    profile.save_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len(events) == 6 and {event["ph"] for event in events} == {"X"}
    assert min(event["ts"] for event in events) == 0
