"""What the core holds, without garbage that happens not to have been collected yet."""

import gc

from attnnet import _core


def held() -> tuple[int, int]:
    """Bytes and objects of the core that somebody can still reach."""
    gc.collect()
    stats = _core.memory_stats()
    return stats["in_use"], stats["objects"]


def in_use() -> int:
    """The bytes of :func:`held`."""
    return held()[0]
