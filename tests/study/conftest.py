"""What would take longer than the trainings themselves is left out."""

import pytest

import attnnet
from attnnet.training import finish


@pytest.fixture(scope="package", autouse=True)
def quick():
    """No pictures, and one thread, in this process (``study.small`` does as much in workers)."""
    before = attnnet.get_num_threads()
    attnnet.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "_draw", lambda trainer, evaluation: None)
        yield
    attnnet.set_num_threads(before)
