"""What is timed."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Runner(ABC):
    """One system at work on one job."""

    @abstractmethod
    def logits(self) -> np.ndarray:
        """What the job computes, as it is now, for the comparison before anything is timed: of a
        network the (batch, classes) float32 logits in evaluation mode."""

    @abstractmethod
    def step(self) -> None:
        """What is timed: for example a training step, or the logits of the batch."""
