"""A user's program, for ``mypy --strict``: what it gets back has types, and wrong uses are seen.

Lines that end in ``# wrong`` must be refused; all others must not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import attnnet
from attnnet import Tensor, explain, nn, optim
from attnnet import functional as F


@attnnet.register_block("TYPED")
class Gate(nn.Module):
    def __init__(self, channels: int, height: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(np.ones((channels, height)))

    def forward(self, x: Tensor) -> Tensor:
        gate = (x.mean(dim=(2, 3), keepdim=True) * self.gain[:, :1].reshape(1, -1, 1, 1)).sigmoid()
        return x * gate + 0.5 * F.relu(x - 1).clamp(max=2.0)


def tensors() -> float:
    x = attnnet.tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True)
    y = (x @ x.T).softmax(dim=1).log().sum()
    y.backward()
    grad: Tensor | None = x.grad
    assert grad is not None
    values: NDArray[np.float32] = grad.numpy()
    shape: tuple[int, ...] = x.unsqueeze(0)[..., None].shape
    text: str = x.shape  # wrong
    x.sum(dim="all")  # wrong
    F.conv2d(x, weight=3)  # wrong
    return float(values.sum()) + len(shape) + y.item() + len(text)


@attnnet.no_grad()
def scores(model: nn.Module, images: NDArray[np.float32]) -> Tensor:
    answer: Tensor = model(attnnet.tensor(images))
    return answer


def train_by_hand() -> list[float]:
    train, test = attnnet.data.load("shapes")
    model = attnnet.resnet18("TYPED_12", num_classes=len(train.classes))
    rule = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = optim.CosineAnnealingLR(rule, 10)
    losses: list[float] = []
    for batch in attnnet.data.Loader(train, batch_size=32).epoch(0):
        loss = F.cross_entropy(model(attnnet.tensor(batch.images)), batch.labels)
        rule.zero_grad()
        loss.backward()
        rule.step()
        losses.append(loss.item())
    schedule.step()
    print(attnnet.evaluate(model, test).top1, scores(model, batch.images[:2]).shape)
    return losses


def train() -> None:
    recipe = attnnet.Recipe.preset("shapes", epochs=2, block="CBAM_12")
    history = attnnet.Trainer(recipe, output=False, progress=False).fit()
    print(history[-1]["test_top1"])
    model = attnnet.load("runs/cbam/best.safetensors")
    print(model.predict(np.zeros((1, 3, 32, 32), np.uint8), top=3)[0])
    cam = explain.cam(model, np.zeros((1, 3, 32, 32), np.uint8), "gradcam", layers="layer4")
    overlays: NDArray[np.uint8] = cam.overlay(weight=0.5)
    attnnet.resnet81("SE_1")  # wrong
    attnnet.set_num_threads("two")  # wrong
    print(overlays.shape, attnnet.memory_stats()["peak"] + 1)
