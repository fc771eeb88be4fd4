"""See where a network looks: class activation maps, gradients at the image, attention maps.

    >>> cam = attnnet.explain.cam(model, images, "gradcam", layers="layer4")
    >>> cam.maps                      # (N, H, W) in 0..1; in a notebook, `cam` shows overlays
    >>> gradients = attnnet.explain.guided_backprop(model, images)
    >>> attnnet.explain.guided_product(cam.maps, gradients)

Everything runs in evaluation mode and leaves the model as it was.
"""

from .attention import AttentionMaps, attention_maps, attention_rows
from .cams import cam
from .gradients import (
    attribution_map,
    guided_backprop,
    integrated_gradients,
    occlusion,
    saliency,
    smoothgrad,
)
from .image import (
    COLORMAPS,
    apply_colormap,
    color_table,
    deprocess,
    grid,
    guided_product,
    overlay,
    strip,
)
from .layers import find_layers, last_layer
from .methods import Method, find_method, list_methods, register_method
from .result import CAM

__all__ = [
    "CAM",
    "AttentionMaps",
    "COLORMAPS",
    "Method",
    "apply_colormap",
    "attention_maps",
    "attention_rows",
    "attribution_map",
    "cam",
    "color_table",
    "deprocess",
    "find_layers",
    "find_method",
    "grid",
    "guided_backprop",
    "guided_product",
    "integrated_gradients",
    "last_layer",
    "list_methods",
    "occlusion",
    "overlay",
    "register_method",
    "saliency",
    "smoothgrad",
    "strip",
]
