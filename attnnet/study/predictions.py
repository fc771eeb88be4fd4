"""What the chosen epoch of a run says of each test image."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ..errors import CheckpointError
from ..training.checkpoint import read_safetensors
from ..training.files import write_atomically

FILE = "predictions.safetensors"
_KINDS = {"labels": np.int32, "predictions": np.int32, "confidence": np.float32}


@dataclass(frozen=True)
class Predictions:
    """A network's word on N test images.

    Attributes:
        labels: (N,) int32, the true classes. predictions: (N,) int32, the classes taken.
        confidence: (N,) float32, the probability of each class taken.
        images: says which test images these are.
    """

    labels: np.ndarray
    predictions: np.ndarray
    confidence: np.ndarray
    images: str

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: whether the class taken is the true one, and was taken for a number (logits
        that are NaN count as wrong)."""
        return (self.predictions == self.labels) & ~np.isnan(self.confidence)

    @property
    def which(self) -> tuple[str, int]:
        """What is the same for predictions of the same images."""
        return self.images, len(self.labels)

    def write(self, folder: str) -> None:
        """Writes them into a run's folder. Raises: OSError."""
        from safetensors.numpy import save

        arrays = {name: getattr(self, name).astype(kind) for name, kind in _KINDS.items()}
        write_atomically(os.path.join(folder, FILE), save(arrays, {"images": self.images}))

    @classmethod
    def read(cls, folder: str) -> Predictions:
        """Those of a run's folder.

        Raises:
            CheckpointError: there are none, or not what ``write`` writes.
        """
        path = os.path.join(folder, FILE)
        arrays, meta = read_safetensors(path)
        kinds = {name: array.dtype for name, array in arrays.items()}
        shapes = {array.shape for array in arrays.values()}
        if kinds != _KINDS or "images" not in meta or len(shapes) > 1:
            raise CheckpointError(f"{path}: corrupt: no predictions of a run.")
        (shape,) = shapes
        if len(shape) != 1 or shape == (0,):
            raise CheckpointError(
                f"{path}: corrupt: predictions of shape {shape}, expected a number for each image."
            )
        return cls(**arrays, images=meta["images"])
