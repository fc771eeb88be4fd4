"""pytorch-grad-cam on the PyTorch twins of our networks: the oracle for class activation maps.

Needs PyTorch and grad-cam; import only behind ``pytest.importorskip``.
"""

from __future__ import annotations

import numpy as np
import pytorch_grad_cam as tool
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from attnnet.bench.peers import torch_networks

from . import tiny

CLASSES = {
    "gradcam": tool.GradCAM,
    "hirescam": tool.HiResCAM,
    "elementwise": tool.GradCAMElementWise,
    "gradcam++": tool.GradCAMPlusPlus,
    "xgradcam": tool.XGradCAM,
    "layercam": tool.LayerCAM,
    "eigencam": tool.EigenCAM,
    "eigengradcam": tool.EigenGradCAM,
    "scorecam": tool.ScoreCAM,
    "ablationcam": tool.AblationCAM,
    "fullgrad": tool.FullGrad,
}


def twin(model, arch: str, block: str | None, size: int, classes: int = 10) -> torch.nn.Module:
    """The PyTorch network with the model's weights, in evaluation mode."""
    other = torch_networks.create(
        arch, block, num_classes=classes, image_size=size, narrow=tiny.NARROW
    )
    other.load_state_dict({key: torch.tensor(v) for key, v in model.state_dict().items()})
    return other.eval()


def maps(model: torch.nn.Module, x: np.ndarray, method: str, layers=(), target=None,
         **options) -> np.ndarray:
    """The tool's maps (N, H, W) for layers by name; target: a class an image, or None."""
    # Ablation-CAM compounds what it cuts out within a batch: one at a time is what it means.
    settings = {"batch_size": 1} if method == "ablationcam" else {}
    modules = [model.get_submodule(name) for name in layers]
    targets = None if target is None else [ClassifierOutputTarget(int(t)) for t in target]
    with CLASSES[method](model, modules, **settings) as look:
        return look(torch.tensor(x), targets, **options)


def of_case(case, model, x: np.ndarray) -> np.ndarray:
    """The tool's maps for a ``cases.Case``."""
    other = twin(model, case.arch, case.block, case.size)
    return maps(other, x, case.method, case.layers, case.target, **case.options)
