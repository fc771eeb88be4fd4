"""attnnet's networks with every width divided, so that tests are quick."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def narrowed(factor: int) -> Iterator[None]:
    """Networks that are made inside have widths divided by ``factor``."""
    resnet, vgg = (importlib.import_module(f"attnnet.models.{m}") for m in ("resnet", "vgg"))
    planes = tuple(w // factor for w in resnet.PLANES)
    widths = tuple(w // factor for w in vgg.WIDTHS)
    with (
        mock.patch.object(resnet, "PLANES", planes),
        mock.patch.multiple(vgg, WIDTHS=widths, HIDDEN=vgg.HIDDEN // factor),
    ):
        yield
