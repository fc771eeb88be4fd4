"""pytorch-grad-cam on the same networks. Needs PyTorch and grad-cam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytorch_grad_cam as tool
import torch

from ..engine import Job
from .torch_engine import TorchEngine

CLASSES = {
    "gradcam": tool.GradCAM,
    "gradcam++": tool.GradCAMPlusPlus,
    "layercam": tool.LayerCAM,
    "eigencam": tool.EigenCAM,
}


def looker(job: Job, method: str, layer: str) -> Callable[[], np.ndarray]:
    """What makes the maps (N, H, W) of the job's images for their predicted classes."""
    model = TorchEngine("torch").network(job).eval()
    look = CLASSES[method](model, [model.get_submodule(layer)])
    images = torch.tensor(job.images)
    return lambda: look(images, None)
