"""What the stored and the live comparison with pytorch-grad-cam look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import tiny

STORED = Path(__file__).with_name("golden.npz")
TOOL_VERSION = "1.5.7"
# Measured: 2e-5 at most. Convolutions differ by 2e-6 of an output's size, and scaling by the range
# of a map enlarges that a little; a wrong formula is off by a hundredth and more.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One call of ``cam``. Networks are given by architecture, block and image size."""

    arch: str
    block: str | None
    size: int
    method: str
    layers: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)
    target: tuple[int, ...] | None = (5, 4)
    tolerance: float = TOLERANCE

    def __str__(self) -> str:
        options = "".join(f" {name}" for name in self.options)
        layers = "+".join(self.layers)
        predicted = "" if self.target else " predicted"
        return f"{self.arch} {self.block} {self.method} {layers}{options}{predicted}"

    def network(self):
        return tiny.network(self.arch, self.block, self.size)

    def images(self):
        return tiny.images(2, self.size)


BY_FORMULA = ("gradcam", "hirescam", "elementwise", "gradcam++", "xgradcam", "layercam",
              "eigencam", "eigengradcam")
RESNET = ("resnet18", "NEW_12", 16)
# features.3 is the first group's CBAM, features.7 the second's last ReLU.
VGG = ("vgg11", "CBAM_1", 32)
BLOCKS = ("SE", "SEC", "CA", "SA", "AA", "SE_SA", "SEC_SA", "CBAM", "NEW", "NAB")

CASES = [
    *(Case(*RESNET, method, ("layer3",)) for method in BY_FORMULA),
    *(Case(*RESNET, method, ("layer1", "layer3")) for method in ("gradcam", "layercam")),
    *(Case(*RESNET, method, ("layer2",), {"eigen_smooth": True})
      for method in ("gradcam", "hirescam", "elementwise", "layercam")),
    Case(*RESNET, "gradcam", ("layer3",), {"aug_smooth": True}),
    Case(*RESNET, "gradcam", ("layer3",), target=None),
    Case(*RESNET, "gradcam", ("layer1.0.image_module",)),
    Case(*RESNET, "scorecam", ("layer2",)),
    Case(*RESNET, "ablationcam", ("layer2",)),
    # Before the ReLU channels go to -1e7, where float32 has no digits left behind the point.
    Case(*RESNET, "ablationcam", ("layer1.0.image_module",), tolerance=2e-2),
    Case(*RESNET, "fullgrad"),
    Case(*VGG, "gradcam", ("features.3",)),
    Case(*VGG, "layercam", ("features.3", "features.7")),
    Case(*VGG, "fullgrad"),
    *(Case(*VGG, method, ("features.7",)) for method in BY_FORMULA),
    # One layer's gradients come back through the blocks, the other's values through them.
    *(Case("resnet18", f"{block}_2", 16, "layercam", ("layer1", "layer2")) for block in BLOCKS),
    # With NAB two values under a max pool are equal to rounding: the gradient takes either way.
    *(Case("vgg11", f"{block}_2", 32, "layercam", ("features.2", "features.7"),
           tolerance=5e-3 if block == "NAB" else TOLERANCE) for block in BLOCKS),
]
