"""What would take longer than the trainings themselves is left out."""

import sys

import pytest

import attnnet
from attnnet.nn import registry
from attnnet.training import finish


@pytest.fixture(scope="package", autouse=True)
def quick():
    """No pictures, and one thread, in this process (``study.small`` does as much in workers); the
    blocks that some tests register are forgotten afterwards."""
    before, blocks = attnnet.get_num_threads(), dict(registry._entries)
    attnnet.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "_draw", lambda trainer, evaluation: None)
        yield
    attnnet.set_num_threads(before)
    registry._entries.clear()
    registry._entries.update(blocks)
    sys.modules.pop("study.trouble", None)  # so that its next import registers its blocks again
